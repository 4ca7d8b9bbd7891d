package bolt

import (
	"io/fs"
	"os"
	"reflect"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"go.etcd.io/bbolt"
)

// disk stands between bbolt and its file: it replaces the function with which bbolt writes, so that what fails goes
// through bbolt's own commit and rollback.
type disk struct {
	mu    sync.Mutex
	err   error                 // of a write, when full says so
	full  func(off int64) bool  // nil: never
	torn  bool                  // write before failing
	tries int                   // writes that failed
	room  func(size int64) bool // whether the reserve can be made; nil: yes
}

func (d *disk) options(o Options) Options {
	o.hooks.opened = d.opened
	o.hooks.allocate = d.allocate
	return o
}

func (d *disk) opened(h *bbolt.DB) {
	write := field[func([]byte, int64) (int, error)](h, "ops", "writeAt")
	real := *write
	*write = func(b []byte, off int64) (int, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.full == nil || !d.full(off) {
			return real(b, off)
		}
		d.tries++
		if d.torn {
			real(b, off)
		}
		return 0, &fs.PathError{Op: "write", Path: h.Path(), Err: d.err}
	}
}

func (d *disk) allocate(f *os.File, size int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.room != nil && !d.room(size) {
		return &fs.PathError{Op: "fallocate", Path: f.Name(), Err: syscall.ENOSPC}
	}
	return allocate(f, size)
}

// set changes the disk's behaviour.
func (d *disk) set(change func(*disk)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

// fill makes the disk full: writes fail while the reserve exists, and the reserve cannot be made again.
func (d *disk) fill(dir string) {
	d.set(func(d *disk) {
		d.err = syscall.ENOSPC
		d.full = func(int64) bool { return exists(dbPath(dir) + reserveSuffix) }
		d.room = func(int64) bool { return false }
	})
}

func (d *disk) free() {
	d.set(func(d *disk) { d.full, d.room = nil, nil })
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// field reaches into a struct for a field that is not exported.
func field[T any](of any, names ...string) *T {
	v := reflect.ValueOf(of).Elem()
	for _, n := range names {
		v = v.FieldByName(n)
	}
	return (*T)(unsafe.Pointer(v.UnsafeAddr()))
}

// health records what an engine says of itself.
type health chan error

func newHealth() health { return make(health, 100) }

func (h health) report(err error) { h <- err }

// breakSync makes fdatasync of the handle fail, by putting a pipe in the place of the file it syncs. It must run while
// the writer is in BeforeSync. The returned function puts the file back, so that Close finds it.
func breakSync(t *testing.T, h *bbolt.DB) func() {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	file := field[*os.File](h, "file")
	old := *file
	*file = r
	return func() {
		*file = old
		r.Close()
		w.Close()
	}
}
