//go:build unix

package main

import (
	"math"
	"syscall"
)

// fileLimit is how many descriptors the process may have open. The Go runtime has raised it as far as it may go.
func fileLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 {
		return math.MaxInt32
	}
	return int(limit.Cur)
}
