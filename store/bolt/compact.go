package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"

	"stint/internal/defect"
	"stint/store"
)

const (
	// compactPart is how much is copied in one transaction, in bytes.
	compactPart = 4 << 20
	// compactAgain is how many commits pass before a compaction that failed is tried again.
	compactAgain = 10000
)

// compactIfDue makes the file small once it is mostly free and what is left can be copied while the queues wait, which is
// a fraction of a second. bbolt uses free pages again but never gives them back.
func (w *writer) compactIfDue() {
	if w.failed != nil || w.full {
		return
	}
	if w.notYet > 0 {
		w.notYet--
		return
	}
	if size, live := w.usage(); size < w.opts.limits.compactFrom || live > w.opts.limits.compactLive || live*compactShare > size {
		return
	}
	began := time.Now()
	before, _ := w.usage()
	if err := w.compact(); err != nil {
		if errors.Is(err, store.ErrUnknown) {
			w.fail(err)
			return
		}
		w.notYet = compactAgain
		w.log.Warn("the database could not be compacted", "path", w.db.path, "error", err)
		return
	}
	after, _ := w.usage()
	w.log.Info("the database was compacted", "path", w.db.path, "before", before, "after", after, "took", time.Since(began))
}

// usage returns the size of the file and how much of it is in use, in bytes, the size as 0 if there is little free.
func (w *writer) usage() (size, live int64) {
	h := w.db.handle
	stats := h.Stats()
	free := int64(stats.FreePageN+stats.PendingPageN) * int64(h.Info().PageSize)
	if free < w.opts.limits.compactFrom/2 {
		return 0, 0
	}
	_ = h.View(func(tx *bbolt.Tx) error { // it cannot fail while the handle is open
		size = tx.Size()
		return nil
	})
	return size, size - free
}

// compact copies what is in use to a new file, makes it durable, puts it in the place of the old one, and goes on with
// it. A crash leaves the old file or the new one, which hold the same, and a leftover that the next open removes.
//
// The new file is open, and locked, before it gets its name, and the lock file is held all the while: no other process can come
// between. Reads go on at the old file until the handle is swapped.
func (w *writer) compact() error {
	tmp := w.db.path + compactSuffix
	dst, err := w.copyTo(tmp)
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	if err := os.Rename(tmp, w.db.path); err != nil {
		return errors.Join(err, dst.Close(), os.Remove(tmp))
	}
	if err := syncDir(filepath.Dir(w.db.path)); err != nil {
		return errors.Join(fmt.Errorf("%w: %w", store.ErrUnknown, err), dst.Close())
	}
	w.db.mu.Lock()
	old := w.db.handle
	w.db.handle = dst
	w.db.mu.Unlock()
	w.lastTx = 0
	if err := old.Close(); err != nil {
		w.log.Warn("the file from before the compaction was not closed", "path", w.db.path, "error", err)
	}
	return nil
}

// copyTo makes a durable copy and returns it open.
func (w *writer) copyTo(path string) (dst *bbolt.DB, err error) {
	var file *os.File
	dst, err = openMapped(path, &bbolt.Options{
		Timeout: w.opts.LockTimeout, FreelistType: bbolt.FreelistMapType,
		NoSync: true, NoGrowSync: true, // one sync at the end
		InitialMmapSize: w.opts.limits.mmapSize,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			f, err := os.OpenFile(name, flag|os.O_TRUNC, mode)
			file = f
			return f, err
		},
	})
	if err != nil {
		return nil, fmt.Errorf("open the copy: %w", err)
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errPanic, p)
		}
		if err != nil {
			_ = dst.Close() // it is removed
			dst = nil
		}
	}()
	if err := bbolt.Compact(dst, w.db.handle, compactPart); err != nil {
		return dst, fmt.Errorf("copy: %w", err)
	}
	w.opts.hooks.opened(dst)
	dst.NoSync, dst.NoGrowSync = defect.NoSync, defect.NoSync
	if !defect.NoSync {
		if err := file.Sync(); err != nil {
			return dst, fmt.Errorf("sync the copy: %w", err)
		}
	}
	return dst, nil
}
