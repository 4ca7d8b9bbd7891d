package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTick is the unit of /proc/PID/stat: the kernel shows a hundredth of a second to programs, whatever it counts in itself.
const clockTick = time.Second / 100

// readUsage reads /proc.
func readUsage(pid int) usage {
	u := usage{CPU: -1, Written: -1}
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		u.CPU = parseCPU(text)
	}
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid)); err == nil {
		u.Written = field(text, "write_bytes:")
	}
	return u
}

// anonymousMemory is in bytes; negative: not known.
func anonymousMemory(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return -1
	}
	kilobytes := field(text, "RssAnon:")
	if kilobytes < 0 {
		return -1
	}
	return kilobytes << 10
}

// parseCPU reads the times in user mode and in the kernel. They are counted from the end of the program's name, which may
// have spaces and brackets in it.
func parseCPU(stat []byte) time.Duration {
	_, rest, ok := strings.Cut(string(stat[bytes.LastIndexByte(stat, ')')+1:]), " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return -1
	}
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return -1
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return -1
	}
	return time.Duration(user+system) * clockTick
}

// field finds the number behind a name at the beginning of a line; -1: none.
func field(text []byte, name string) int64 {
	for line := range strings.Lines(string(text)) {
		value, ok := strings.CutPrefix(line, name)
		if !ok {
			continue
		}
		words := strings.Fields(value)
		if len(words) == 0 {
			return -1
		}
		n, err := strconv.ParseInt(words[0], 10, 64)
		if err != nil {
			return -1
		}
		return n
	}
	return -1
}

// fileSystem names what a directory lies on; "": not known.
func fileSystem(dir string) string {
	var s syscall.Statfs_t
	if syscall.Statfs(dir, &s) != nil {
		return ""
	}
	names := map[int64]string{
		0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x01021994: inMemory, 0x794c7630: "overlay", 0x2fc12fc1: "zfs",
		0x6969: "nfs", 0xf2f52010: "f2fs",
	}
	kind := int64(uint32(s.Type)) // the type's width and sign depend on the machine
	if name := names[kind]; name != "" {
		return name
	}
	return fmt.Sprintf("type %#x", kind)
}

// childAttr makes a child die with this process, and puts it in a group of its own so that a Ctrl-C is not for it.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
