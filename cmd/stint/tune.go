package main

import (
	"bufio"
	"bytes"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// gcPercent lets the heap grow to five times what lives before it is collected. A broker's live heap is small and bounded
// and its garbage plentiful, so this costs some megabytes; it was worth 10 % of throughput when measured.
const gcPercent = 400

// memoryShare is the part of the memory at hand beyond which the collector works as hard as it must, so that the
// generous percentage does not end in the kernel's killing the process.
const memoryShare = 0.75

// tuneMemory sets the collector unless the environment does, with GOGC or GOMEMLIMIT.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if limit := memoryAtHand(); os.Getenv("GOMEMLIMIT") == "" && limit > 0 {
		debug.SetMemoryLimit(int64(float64(limit) * memoryShare))
	}
}

// memoryAtHand is the machine's memory or the control group's limit, in bytes; 0 where nothing says.
func memoryAtHand() int64 {
	info, _ := os.ReadFile("/proc/meminfo")
	limit := totalMemory(info)
	groups, _ := os.ReadFile("/proc/self/cgroup")
	for _, file := range groupFiles(string(groups)) {
		text, err := os.ReadFile(file)
		if n := groupLimit(text); err == nil && n > 0 && (limit == 0 || n < limit) {
			limit = n
		}
	}
	return limit
}

// totalMemory reads MemTotal, which is in kilobytes.
func totalMemory(meminfo []byte) int64 {
	lines := bufio.NewScanner(bytes.NewReader(meminfo))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && fields[0] == "MemTotal:" {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// groupFiles are the files that may limit a process of these control groups: its own group's and those above it.
func groupFiles(cgroup string) []string {
	const root = "/sys/fs/cgroup"
	files := []string{root + "/memory.max", root + "/memory/memory.limit_in_bytes"}
	for line := range strings.Lines(cgroup) {
		group, v2 := strings.CutPrefix(strings.TrimSpace(line), "0::")
		for group = path.Clean(group); v2 && len(group) > 1; group = path.Dir(group) {
			files = append(files, path.Join(root, group, "memory.max"))
		}
	}
	return files
}

// groupLimit reads a limit; "max", and the huge number that says the same, is none.
func groupLimit(text []byte) int64 {
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n >= 1<<60 {
		return 0
	}
	return n
}
