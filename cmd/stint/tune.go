package main

import (
	"bufio"
	"bytes"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
)

// gcPercent lets the heap grow to five times what lives before it is collected. A broker's live heap is small and bounded
// and its garbage plentiful, so this costs some megabytes; it was worth 10 % of throughput when measured.
const gcPercent = 400

const (
	// memoryEnough is where that generosity ends, in bytes: what is beyond it is left to what lives.
	memoryEnough = 176 << 20
	// memoryBeside is how much more than twice what lives is allowed where that alone is more than enough.
	memoryBeside = 32 << 20
	// memoryShare is the part of the memory at hand beyond which the collector works as hard as it must, so that the
	// kernel does not kill the process.
	memoryShare = 0.75
)

// tuneMemory sets the collector unless the environment does, with GOGC or GOMEMLIMIT.
func tuneMemory() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		limitMemory(memoryAtHand(), 0)
	}
}

// limitMemory sets a limit for what lives now, and again after each collection. old is the one before: to set a limit
// stops all goroutines for a moment.
func limitMemory(atHand, old int64) {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	limit := memoryLimit(int64(live[0].Value.Uint64()), atHand)
	if limit != old {
		debug.SetMemoryLimit(limit)
	}
	runtime.SetFinalizer(&collected{}, func(*collected) { limitMemory(atHand, limit) })
}

// collected is an object whose end says that there was a collection. It is not empty, since the runtime gives all empty ones
// the same address.
type collected struct{ _ *byte }

// memoryLimit is the limit for a process with so many bytes alive on a machine with so many at hand; 0 of these: unknown.
func memoryLimit(live, atHand int64) int64 {
	limit := max(memoryEnough, 2*live+memoryBeside)
	if atHand > 0 {
		limit = min(limit, int64(float64(atHand)*memoryShare))
	}
	return limit
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
