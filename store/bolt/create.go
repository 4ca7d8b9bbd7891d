package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"stint/internal/defect"
	"stint/store"
)

// Names beside the database. All that end in newSuffix or are the compacted copy are leftovers when the lock is taken.
const (
	lockSuffix    = ".lock"
	reserveSuffix = ".reserve"
	newSuffix     = ".new"
	compactSuffix = ".compact"
)

// formatVersion is the format of files that are written and the newest that can be read.
//
//	1  the database alone
//	2  a log beside it; a registration says what batches it takes
const formatVersion = 2

// step is one step of a first start. The order of the steps is what makes a crash between any two of them harmless: the file
// has its name only once it is whole and durable, and the names above it are durable before anything is promised.
type step struct {
	name string
	do   func() error
}

// creation returns the steps that make a new database at path.
func creation(path string) []step {
	tmp := path + newSuffix
	return []step{
		{"write the new file", func() error { return initialise(tmp) }},
		{"sync the new file", func() error { return syncFile(tmp) }},
		{"name the new file", func() error { return os.Rename(tmp, path) }},
		{"sync the directory", func() error { return syncDir(filepath.Dir(path)) }},
	}
}

func runSteps(steps []step) error {
	for _, s := range steps {
		if err := s.do(); err != nil {
			return fmt.Errorf("create the database: %s: %w", s.name, err)
		}
	}
	return nil
}

// makeDir makes the directory and those above it, each made durable in its parent.
func makeDir(dir string) error {
	if info, err := os.Stat(dir); err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is a file; a directory is needed there", dir)
		}
		return nil
	}
	if parent := filepath.Dir(dir); parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the directory of the database: %w", err)
	}
	return syncDir(filepath.Dir(dir))
}

// removeLeftovers clears what a crash left of a file that had no name yet. The caller has the lock.
func removeLeftovers(path string) error {
	for _, name := range []string{path + newSuffix, path + compactSuffix, path + reserveSuffix + newSuffix} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a leftover: %w", err)
		}
	}
	return nil
}

// isAbsent says whether there is no database yet. An empty file counts: nothing this program wrote is ever empty, but a
// person may have touched it.
func isAbsent(path string) (bool, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("look for the database: %w", err)
	case !info.Mode().IsRegular():
		return false, fmt.Errorf("%w: %s is not a file", store.ErrCorrupt, path)
	}
	return info.Size() == 0, nil
}

// initialise writes an empty database.
func initialise(path string) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		FreelistType: bbolt.FreelistMapType, NoSync: defect.NoSync, Timeout: lockPoll,
	})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket(metaBucket)
		if err != nil {
			return err
		}
		return errors.Join(
			b.Put(formatKey, appendMeta(nil, formatKey, formatVersion)),
			b.Put(epochKey, appendMeta(nil, epochKey, 0)))
	})
	return errors.Join(err, db.Close())
}

func syncFile(path string) error {
	if defect.NoSync {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
