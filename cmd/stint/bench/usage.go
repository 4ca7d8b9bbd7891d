package bench

import (
	"context"
	"time"
)

// usage is what a process has used. A negative field is not known.
type usage struct {
	CPU     time.Duration // in user mode and in the kernel
	Written int64         // bytes, as they were given to the kernel for a disk
}

const memoryStep = 50 * time.Millisecond

// inMemory is the name of the file system that has no disk.
const inMemory = "tmpfs"

// watchMemory looks at a process's anonymous memory until ctx ends, and then sends the most it saw, in bytes; negative:
// not known.
func watchMemory(ctx context.Context, pid int) <-chan int64 {
	out := make(chan int64, 1)
	go func() {
		tick := time.NewTicker(memoryStep)
		defer tick.Stop()
		most := anonymousMemory(pid)
		for {
			select {
			case <-tick.C:
				most = max(most, anonymousMemory(pid))
			case <-ctx.Done():
				out <- most
				return
			}
		}
	}()
	return out
}
