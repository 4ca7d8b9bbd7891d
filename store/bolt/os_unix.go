//go:build unix

package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"stint/internal/defect"
	"stint/store"
)

// lockPoll is how long to wait between two tries for the lock.
const lockPoll = 20 * time.Millisecond

// takeLock takes the lock file, waiting up to timeout for the process that has it. The lock is a file of its own, that is
// never renamed or removed, since the database's own is lost for a moment whenever the file is closed and
// reopened or replaced by a smaller one.
func takeLock(path string, timeout time.Duration) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock file: %w", err)
	}
	for deadline := time.Now().Add(timeout); ; time.Sleep(lockPoll) { //nolint:forbidigo // another process lets go of a lock without a word
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if time.Now().After(deadline) {
			f.Close()
			return nil, fmt.Errorf("%w: %s is locked; stop the other process, or give this one another directory",
				store.ErrLocked, path)
		}
	}
}

// letGo unlocks and closes a file of bbolt's that may still be mapped: the map alone would keep the lock. If bbolt has closed
// it, nothing happens.
func letGo(f *os.File) {
	if c, err := f.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) { _ = syscall.Flock(int(fd), syscall.LOCK_UN) })
	}
	_ = f.Close()
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	if defect.NoSync {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) { // a file system that cannot, need not
		return fmt.Errorf("sync the directory %s: %w", dir, err)
	}
	return nil
}

// syncData makes what was written to a file durable that keeps its size.
func syncData(f *os.File) error {
	if defect.NoSync {
		return nil
	}
	return fdatasync(f)
}

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// isFull says whether a commit failed because there was no room to write, so that nothing of it counts.
//
// A failed write is an *fs.PathError of os.File.WriteAt. A failed truncate, when the file grows, is flattened to text by
// bbolt. A failed fsync is a bare errno or other text, and is never definite, not even ENOSPC: data that had been taken is gone.
func isFull(err error) bool {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Op == "write" && isNoSpace(pe.Err)
	}
	if text := err.Error(); strings.HasPrefix(text, "file resize error: ") {
		for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
			if strings.HasSuffix(text, errno.Error()) {
				return true
			}
		}
	}
	return false
}

// cannotMap says whether an open failed for want of address space.
func cannotMap(err error) bool {
	return errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EOVERFLOW)
}
