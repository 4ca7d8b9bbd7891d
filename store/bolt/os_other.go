//go:build !linux

package bolt

import "os"

// allocate gives the file real space of that size.
func allocate(f *os.File, size int64) error { return fillZero(f, size) }

// fdatasync makes the content of a file durable.
func fdatasync(f *os.File) error { return f.Sync() }
