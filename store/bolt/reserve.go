package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// reserve is a file of real space beside the database. It is given up when the disk is full, so that what is finished
// can still be deleted: a commit writes new pages before it frees the old ones.
type reserve struct {
	path string
	size int64 // bytes; 0: none is kept
	fill func(f *os.File, size int64) error
}

// slackAlone is how much space must be free where no reserve is kept.
const slackAlone = 1 << 20

// slack is how much space beyond the reserve must be free before the disk counts as no longer full, so that a single
// insert does not fill it again.
func (r reserve) slack() int64 {
	if r.size == 0 {
		return slackAlone
	}
	return r.size / 2
}

// ensure makes the reserve unless it is there. The error wraps the cause; isNoSpace says whether the disk is full.
func (r reserve) ensure() error {
	if r.size == 0 {
		return nil
	}
	if info, err := os.Stat(r.path); err == nil && info.Size() == r.size {
		return nil
	}
	return r.make(r.size)
}

// regain makes the reserve anew, and the slack beside it to see whether it is free.
func (r reserve) regain() error {
	return r.make(r.size + r.slack())
}

func (r reserve) make(size int64) error {
	tmp := r.path + newSuffix
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("make the reserve: %w", err)
	}
	err = r.fill(f, size)
	if err == nil && size > r.size {
		err = f.Truncate(r.size)
	}
	err = errors.Join(err, f.Close())
	switch {
	case err == nil && r.size == 0:
		err = os.Remove(tmp)
	case err == nil:
		err = os.Rename(tmp, r.path)
	}
	if err != nil {
		os.Remove(tmp) // what is left of it is removed at the next open
		return fmt.Errorf("make the reserve of %d bytes: %w", r.size, err)
	}
	return nil
}

// release gives the space up.
func (r reserve) release() error {
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("give up the reserve: %w", err)
	}
	return nil
}

// fillZero writes zeroes where the file system cannot allocate.
func fillZero(f *os.File, size int64) error {
	zero := make([]byte, 64<<10)
	for at := int64(0); at < size; at += int64(len(zero)) {
		if _, err := f.WriteAt(zero[:min(int64(len(zero)), size-at)], at); err != nil {
			return err
		}
	}
	return nil
}
