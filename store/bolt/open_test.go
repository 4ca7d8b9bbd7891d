package bolt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"stint/store"
	"stint/store/storetest"
)

// checkUsable opens the database, writes to it, and finds what it wrote after a restart.
func checkUsable(t *testing.T, dir string) {
	t.Helper()
	for _, id := range []uint64{1, 2} {
		db, err := Open(dbPath(dir), Options{LogBytes: noLog, ReserveBytes: 4096})
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		q := storetest.Queue(t, db, "q")
		storetest.Commit(t, q, storetest.Put(storetest.Waiting(id, 0, "")))
		if n := len(storetest.Drain(t, q, page1)); n != int(id) {
			t.Fatalf("%d items, want %d", n, id)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	left, _ := filepath.Glob(dbPath(dir) + "*")
	if want := []string{dbPath(dir), dbPath(dir) + lockSuffix, dbPath(dir) + reserveSuffix}; strings.Join(left, " ") != strings.Join(want, " ") {
		t.Errorf("files %v, want %v", left, want)
	}
}

// TestFirstStartCut ends the first start after each of its steps.
func TestFirstStartCut(t *testing.T) {
	steps := len(creation("x"))
	for n := range steps + 1 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "b")
			if err := makeDir(dir); err != nil {
				t.Fatal(err)
			}
			if err := runSteps(creation(dbPath(dir))[:n]); err != nil {
				t.Fatal(err)
			}
			checkUsable(t, dir)
		})
	}
}

// TestFirstStartTorn leaves every kind of half-written file under the names that a first start writes to.
func TestFirstStartTorn(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "whole")
	if err := initialise(whole); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	var pieces [][]byte
	for n := 0; n <= len(data); n += 1024 {
		pieces = append(pieces, data[:n], append(make([]byte, n), data[n:]...))
	}
	for i, piece := range pieces {
		dir := t.TempDir()
		for _, name := range []string{newSuffix, compactSuffix, reserveSuffix + newSuffix} {
			if err := os.WriteFile(dbPath(dir)+name, piece, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		t.Run(fmt.Sprint(i), func(t *testing.T) { checkUsable(t, dir) })
	}
}

// TestFirstStartEmptyFile: somebody has touched the file.
func TestFirstStartEmptyFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dbPath(dir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	checkUsable(t, dir)
}

// TestFirstStartFails: where the first start cannot write, it says so, and leaves nothing in the way.
func TestFirstStartFails(t *testing.T) {
	dir := t.TempDir()
	steps := creation(dbPath(dir))
	steps[1].do = func() error { return &os.PathError{Op: "sync", Path: "x", Err: syscall.EIO} }
	if err := runSteps(steps); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "sync the new file") {
		t.Fatalf("a failed step: %v", err)
	}
	if exists(dbPath(dir)) {
		t.Error("the file has its name although it was not synced")
	}
	checkUsable(t, dir)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(file, "work.db"), small); err == nil {
		t.Error("a file passes for a directory")
	}
	if err := fullOr(&os.PathError{Op: "write", Err: syscall.ENOSPC}); !errors.Is(err, store.ErrFull) {
		t.Errorf("no space at the first start: %v", err)
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir, small)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		_, err := Open(dbPath(dir), small)
		if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), dbPath(dir)) {
			t.Errorf("a second open: %v", err)
		}
		if d := time.Since(began); d < time.Second || d > 1100*time.Millisecond {
			t.Errorf("it waited %v", d)
		}
	})
	db.Close()
	mustOpen(t, dir, small)
}

// TestLockedByOther: a tool of bbolt's, which knows nothing of our lock file, keeps us out as well.
func TestLockedByOther(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir, small).Close()
	h, err := bbolt.Open(dbPath(dir), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	synctest.Test(t, func(t *testing.T) {
		if _, err := Open(dbPath(dir), small); !errors.Is(err, store.ErrLocked) {
			t.Errorf("open: %v", err)
		}
	})
}

func TestNewer(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir, small).Close()
	edit(t, dir, func(tx *bbolt.Tx) error {
		return tx.Bucket(metaBucket).Put(formatKey, appendMeta(nil, formatKey, formatVersion+6))
	})
	before, _ := os.ReadFile(dbPath(dir))
	_, err := Open(dbPath(dir), small)
	if !errors.Is(err, store.ErrNewer) || !strings.Contains(err.Error(), "format 8") || !strings.Contains(err.Error(), "up to 2") {
		t.Errorf("open: %v", err)
	}
	if after, _ := os.ReadFile(dbPath(dir)); string(after) != string(before) {
		t.Error("a file of a newer format was written to")
	}
}

func edit(t *testing.T, dir string, change func(*bbolt.Tx) error) {
	t.Helper()
	h, err := bbolt.Open(dbPath(dir), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Update(change); err != nil {
		t.Fatal(err)
	}
}

func TestNotOurs(t *testing.T) {
	for name, make := range map[string]func(t *testing.T, dir string){
		"text":      func(t *testing.T, dir string) { write(t, dir, []byte("hello")) },
		"zeroes":    func(t *testing.T, dir string) { write(t, dir, make([]byte, 40000)) },
		"noise":     func(t *testing.T, dir string) { write(t, dir, []byte(strings.Repeat("noise", 10000))) },
		"directory": func(t *testing.T, dir string) { os.Mkdir(dbPath(dir), 0o700) },
		"foreign": func(t *testing.T, dir string) {
			edit(t, dir, func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("other")); return err })
		},
		"format": func(t *testing.T, dir string) {
			mustOpen(t, dir, small).Close()
			edit(t, dir, func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Put(formatKey, []byte("nonsense")) })
		},
		"epoch": func(t *testing.T, dir string) {
			mustOpen(t, dir, small).Close()
			edit(t, dir, func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Delete(epochKey) })
		},
		"list of free pages": func(t *testing.T, dir string) {
			mustOpen(t, dir, small).Close()
			m := meta(t, dir)
			poke(t, dbPath(dir), int64(m.freelist)*int64(m.pageSize)+8, "\xff\xff")
		},
		"cut": func(t *testing.T, dir string) {
			db := mustOpen(t, dir, small)
			putMany(storetest.Queue(t, db, "q"), 200)
			db.Close()
			if err := os.Truncate(dbPath(dir), 100_000); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			make(t, dir)
			for range 2 { // what was refused is let go of
				_, err := Open(dbPath(dir), small)
				if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), dbPath(dir)) {
					t.Errorf("open: %v", err)
				}
			}
		})
	}
}

// TestCut: a file that lost its end is refused wherever it was cut.
func TestCut(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir, small)
	if id, err := putMany(storetest.Queue(t, db, "q"), 60); err != nil {
		t.Fatalf("item %d: %v", id, err)
	}
	db.Close()
	image, err := os.ReadFile(dbPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	m := meta(t, dir)
	for pages := int(m.pages) - 1; pages > 1; pages-- {
		write(t, dir, image[:pages*m.pageSize])
		if _, err := Open(dbPath(dir), small); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("cut to %d of %d pages: %v", pages, m.pages, err)
		}
	}
	write(t, dir, image[:int(m.pages)*m.pageSize])
	mustOpen(t, dir, small)
}

// TestLockFile: the lock is held by the file of its own, without bbolt's.
func TestLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := takeLock(path, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := takeLock(path, 0); !errors.Is(err, store.ErrLocked) {
		t.Errorf("the second time: %v", err)
	}
	first.Close()
	second, err := takeLock(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}

func write(t *testing.T, dir string, data []byte) {
	t.Helper()
	if err := os.WriteFile(dbPath(dir), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestEpochUsedUp(t *testing.T) {
	dir := t.TempDir()
	mustOpen(t, dir, small).Close()
	edit(t, dir, func(tx *bbolt.Tx) error {
		return tx.Bucket(metaBucket).Put(epochKey, appendMeta(nil, epochKey, maxEpoch))
	})
	if _, err := Open(dbPath(dir), small); err == nil {
		t.Error("the last epoch was given twice")
	}
}

// TestSmallAddressSpace: where there is no room for a large map, a smaller one does.
func TestSmallAddressSpace(t *testing.T) {
	dir := t.TempDir()
	o := small
	o.limits.mmapSize = 1 << 47 // more than there is
	db := mustOpen(t, dir, o)
	storetest.Commit(t, storetest.Queue(t, db, "q"), storetest.Put(storetest.Waiting(1, 0, "")))
}

// TestLoneBatch: one batch is committed alone and at once, and nothing happens while there is none.
func TestLoneBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		commits := 0
		o := Options{LogBytes: noLog, ReserveBytes: -1, BeforeSync: func(int) { commits++ }}
		db := mustOpen(t, t.TempDir(), o)
		q := storetest.Queue(t, db, "q")
		began := time.Now()
		storetest.Commit(t, q, storetest.Put(storetest.Waiting(1, 0, "")))
		if d := time.Since(began); d != 0 || commits != 2 {
			t.Errorf("it took %v and %d commits", d, commits)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if commits != 2 {
			t.Errorf("%d commits after an idle hour", commits)
		}
	})
}

// TestJoined: what waits while a commit runs shares the next one.
func TestJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		commits, entered, leave := 0, make(chan bool, 1), make(chan bool)
		hold := false
		o := Options{LogBytes: noLog, ReserveBytes: -1, BeforeSync: func(int) {
			commits++
			if hold {
				entered <- true
				<-leave
			}
		}}
		db := mustOpen(t, t.TempDir(), o)
		const n = 50
		done := make(chan error, n+1)
		var qs []store.Queue
		for i := range n + 1 {
			qs = append(qs, storetest.Queue(t, db, fmt.Sprint(i)))
		}
		submit := func(i int) {
			qs[i].Submit(&store.Batch{Ops: []store.Op{storetest.Put(storetest.Waiting(1, 0, ""))}, Done: func(err error) { done <- err }})
		}
		hold = true
		submit(n)
		<-entered
		hold = false
		for i := range n {
			submit(i)
		}
		synctest.Wait() // all are with the writer
		leave <- true
		for range n + 1 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if commits != 3 { // the epoch, the first, all others
			t.Errorf("%d commits", commits)
		}
	})
}
