package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"stint/store"
	"stint/store/storetest"
)

var page1 = store.Limit{Records: 1000}

func wantIDs(t *testing.T, q store.Queue, want ...uint64) {
	t.Helper()
	var got []uint64
	for _, r := range storetest.Drain(t, q, page1) {
		got = append(got, r.ID)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("items %v, want %v", got, want)
	}
}

// TestFull follows a disk that fills and is freed again, for every word the system has for it.
func TestFull(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		t.Run(errno.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testFull(t, errno) })
		})
	}
}

func testFull(t *testing.T, errno syscall.Errno) {
	dir, d, h := t.TempDir(), &disk{}, newHealth()
	db := mustOpen(t, dir, d.options(Options{LogBytes: noLog, Health: h.report, ReserveBytes: 1 << 20}))
	q := storetest.Queue(t, db, "q")
	a, b := storetest.Waiting(1, 0, "a"), storetest.Waiting(2, 0, "b")
	storetest.Commit(t, q, storetest.Put(a), storetest.Put(b))

	d.fill(dir)
	d.set(func(d *disk) { d.err = errno })
	if err := storetest.Submit(q, storetest.Put(storetest.Waiting(3, 0, "c"))); !errors.Is(err, store.ErrFull) {
		t.Fatalf("a put on a full disk: %v", err)
	}
	if err := <-h; !errors.Is(err, store.ErrFull) {
		t.Fatalf("health: %v", err)
	}
	wantIDs(t, q, 1, 2)
	if exists(dbPath(dir) + reserveSuffix) {
		t.Error("the reserve was not given up")
	}
	// What is finished can be written; what is new is refused at once, without trying the disk.
	storetest.Commit(t, q, storetest.Delete(a), store.Op{Kind: store.OpPutReply, Reply: &store.Reply{ID: 1, Subject: "s"}})
	storetest.Commit(t, q, storetest.Move(b, store.Place{Area: store.Dead}, store.Marks{}))
	tries := d.tries
	if err := storetest.Submit(q, storetest.Put(storetest.Waiting(4, 0, "d"))); !errors.Is(err, store.ErrFull) {
		t.Fatalf("a put while full: %v", err)
	}
	time.Sleep(time.Minute)
	if d.tries != tries || len(h) != 0 {
		t.Errorf("%d writes, %d reports while the disk was full", d.tries-tries, len(h))
	}

	d.free()
	freed := time.Now()
	if err := <-h; err != nil {
		t.Fatalf("health: %v", err)
	}
	if d := time.Since(freed); d > 250*time.Millisecond {
		t.Errorf("it took %v to notice the space", d)
	}
	storetest.Commit(t, q, storetest.Put(storetest.Waiting(5, 0, "e")))
	wantIDs(t, q, 5)
	if c := storetest.Load(t, q).Counts; c != (store.Counts{Ready: 1, Dead: 1, Bytes: 2, Replies: 1}) {
		t.Errorf("counts %+v", c)
	}
	if info, err := os.Stat(dbPath(dir) + reserveSuffix); err != nil || info.Size() != 1<<20 {
		t.Errorf("the reserve: %v, %v", info, err)
	}
	db.Close()
	q = storetest.Queue(t, mustOpen(t, dir, small), "q")
	wantIDs(t, q, 5)
}

// TestFullJoined: of the batches that are joined in the transaction that fails, those that finish work succeed.
func TestFullJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, d := t.TempDir(), &disk{}
		entered, leave := make(chan bool, 100), make(chan bool, 100)
		o := d.options(Options{LogBytes: noLog, ReserveBytes: 1 << 20})
		o.BeforeSync = func(int) { entered <- true; <-leave }
		leave <- true // the epoch
		db := mustOpen(t, dir, o)
		<-entered
		a, b, c := storetest.Queue(t, db, "a"), storetest.Queue(t, db, "b"), storetest.Queue(t, db, "c")
		item := storetest.Waiting(1, 0, "x")
		leave <- true
		storetest.Commit(t, a, storetest.Put(item))
		<-entered

		first, put, del := make(chan error, 1), make(chan error, 1), make(chan error, 1)
		submit := func(q store.Queue, done chan error, op store.Op) {
			q.Submit(&store.Batch{Ops: []store.Op{op}, Done: func(err error) { done <- err }})
		}
		submit(c, first, storetest.Put(item))
		<-entered // the writer is busy; the next two are joined
		submit(a, del, storetest.Delete(item))
		submit(b, put, storetest.Put(item))
		synctest.Wait() // both are with the writer
		leave <- true
		if err := <-first; err != nil {
			t.Fatal(err)
		}
		<-entered
		d.fill(dir)
		leave <- true // fails
		leave <- true // what is left of it
		if err := <-put; !errors.Is(err, store.ErrFull) {
			t.Errorf("the put: %v", err)
		}
		if err := <-del; err != nil {
			t.Errorf("the delete that was joined with it: %v", err)
		}
		wantIDs(t, a)
		wantIDs(t, b)
		wantIDs(t, c, 1)
		for range 10 {
			leave <- true
		}
	})
}

// TestFullForAll: with nothing left to give up, deletes are told so too, one by one, and the engine lives.
func TestFullForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, d, h := t.TempDir(), &disk{}, newHealth()
		db := mustOpen(t, dir, d.options(Options{LogBytes: noLog, Health: h.report, ReserveBytes: -1}))
		q := storetest.Queue(t, db, "q")
		a := storetest.Waiting(1, 0, "a")
		storetest.Commit(t, q, storetest.Put(a))
		d.fill(dir)
		d.set(func(d *disk) { d.full = func(int64) bool { return true } })
		for range 3 {
			if err := storetest.Submit(q, storetest.Delete(a)); !errors.Is(err, store.ErrFull) {
				t.Fatalf("a delete with no space at all: %v", err)
			}
			wantIDs(t, q, 1)
		}
		if err := <-h; !errors.Is(err, store.ErrFull) || len(h) != 0 {
			t.Fatalf("health: %v and %d more", err, len(h))
		}
		d.free()
		if err := <-h; err != nil {
			t.Fatalf("health: %v", err)
		}
		storetest.Commit(t, q, storetest.Delete(a))
		wantIDs(t, q)
	})
}

// TestFullAtOpen: a disk that is full at the start is full afterwards, and work can be finished.
func TestFullAtOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir, d, h := t.TempDir(), &disk{}, newHealth()
		o := d.options(Options{LogBytes: noLog, Health: h.report, ReserveBytes: 1 << 20})
		db := mustOpen(t, dir, o)
		a := storetest.Waiting(1, 0, "a")
		storetest.Commit(t, storetest.Queue(t, db, "q"), storetest.Put(a))
		db.Close()

		d.fill(dir)
		db = mustOpen(t, dir, o)
		if err := <-h; !errors.Is(err, store.ErrFull) {
			t.Fatalf("health: %v", err)
		}
		q := storetest.Queue(t, db, "q")
		storetest.Commit(t, q, storetest.Delete(a))
		if err := storetest.Submit(q, storetest.Put(a)); !errors.Is(err, store.ErrFull) {
			t.Fatalf("a put: %v", err)
		}
		db.Close()

		// Not even the epoch can be written.
		d.set(func(d *disk) { d.full = func(int64) bool { return true } })
		if _, err := Open(dbPath(dir), o); !errors.Is(err, store.ErrFull) {
			t.Fatalf("open with no space at all: %v", err)
		}
		d.free()
		wantIDs(t, storetest.Queue(t, mustOpen(t, dir, o), "q"))
	})
}

// TestFullAfterMeta: had the meta page been written before the error, the transaction would be there after the file is
// reopened; that is not a definite failure.
func TestFullAfterMeta(t *testing.T) {
	dir, d, h := t.TempDir(), &disk{}, newHealth()
	db := mustOpen(t, dir, d.options(Options{LogBytes: noLog, Health: h.report}))
	q := storetest.Queue(t, db, "q")
	d.set(func(d *disk) {
		d.err, d.torn = syscall.ENOSPC, true
		d.full = func(off int64) bool { return off < 2*int64(os.Getpagesize()) }
	})
	err := storetest.Submit(q, storetest.Put(storetest.Waiting(1, 0, "a")))
	if !errors.Is(err, store.ErrUnknown) {
		t.Fatalf("a write that went through and said it did not: %v", err)
	}
}

// TestReserveError: a reserve that cannot be made for another reason than space is an error at the start.
func TestReserveError(t *testing.T) {
	o := Options{LogBytes: noLog}
	o.hooks.allocate = func(*os.File, int64) error { return &fs.PathError{Op: "fallocate", Err: syscall.EIO} }
	if _, err := Open(dbPath(t.TempDir()), o); !errors.Is(err, syscall.EIO) {
		t.Fatalf("open: %v", err)
	}
}

func TestFillZero(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := fillZero(f, 200_001); err != nil {
		t.Fatal(err)
	}
	got, _ := os.ReadFile(f.Name())
	if !bytes.Equal(got, make([]byte, 200_001)) {
		t.Errorf("%d bytes", len(got))
	}
}

// TestSyncFails: nothing is known of what a failed fsync leaves, so nothing is written or read any more.
func TestSyncFails(t *testing.T) {
	h := newHealth()
	var db *DB
	var arm bool
	restore := func() {}
	o := Options{LogBytes: noLog, Health: h.report, ReserveBytes: -1}
	o.BeforeSync = func(int) {
		if arm {
			arm = false
			restore = breakSync(t, db.handle)
		}
	}
	dir := t.TempDir()
	db = mustOpen(t, dir, o)
	q := storetest.Queue(t, db, "q")
	for range 5 { // so that there are free pages and the file need not grow
		storetest.Commit(t, q, storetest.Put(storetest.Waiting(1, 0, "a")))
	}
	arm = true
	err := storetest.Submit(q, storetest.Delete(storetest.Waiting(1, 0, "a")))
	if !errors.Is(err, store.ErrUnknown) || errors.Is(err, store.ErrFull) || !errors.Is(err, syscall.EINVAL) {
		t.Fatalf("a failed fsync: %v", err)
	}
	if err := <-h; !errors.Is(err, store.ErrUnknown) {
		t.Fatalf("health: %v", err)
	}
	if err := storetest.Submit(q, storetest.Put(storetest.Waiting(2, 0, "b"))); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("a write afterwards: %v", err)
	}
	if _, err := q.Ready(store.Cursor{}, page1); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("a read afterwards: %v", err)
	}
	if len(h) != 0 {
		t.Errorf("%d more reports", len(h))
	}
	restore()
	if err := db.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	wantIDs(t, storetest.Queue(t, mustOpen(t, dir, small), "q"), 1)
}

// TestIsFull: which errors of a commit are definite.
func TestIsFull(t *testing.T) {
	path := func(op string, err error) error { return &fs.PathError{Op: op, Path: "f", Err: err} }
	for _, test := range []struct {
		err  error
		want bool
	}{
		{path("write", syscall.ENOSPC), true},
		{path("write", syscall.EDQUOT), true},
		{path("write", syscall.EFBIG), true},
		{fmt.Errorf("file resize error: %s", path("truncate", syscall.ENOSPC)), true},
		{fmt.Errorf("file resize error: %s", path("truncate", syscall.EFBIG)), true},
		{path("write", syscall.EIO), false},
		{path("sync", syscall.ENOSPC), false},
		{fmt.Errorf("file sync error: %s", path("sync", syscall.ENOSPC)), false},
		{fmt.Errorf("file resize error: %s", path("truncate", syscall.EIO)), false},
		{syscall.ENOSPC, false}, // what bbolt's fdatasync returns
		{syscall.EIO, false},
		{errors.New("mmap allocate error: no space left on device"), false},
	} {
		if got := isFull(test.err); got != test.want {
			t.Errorf("%v: %v", test.err, got)
		}
	}
}

// TestTinyDisk fills a real file system of four megabytes.
func TestTinyDisk(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("a small file system cannot be mounted here, which needs root: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("umount", dir).Run() })
	h := newHealth()
	o := Options{LogBytes: noLog, Health: h.report, ReserveBytes: 512 << 10}
	o.limits.regainEvery = time.Millisecond
	db := mustOpen(t, dir, o)
	q := storetest.Queue(t, db, "q")
	id, err := fillUp(q)
	if !errors.Is(err, store.ErrFull) {
		t.Fatalf("after %d items: %v", id, err)
	}
	if err := <-h; !errors.Is(err, store.ErrFull) {
		t.Fatalf("health: %v", err)
	}
	for i := uint64(1); i < id; i++ {
		storetest.Commit(t, q, storetest.Delete(storetest.Waiting(i, 0, body)))
	}
	wantIDs(t, q)
	if c := storetest.Load(t, q).Counts; c != (store.Counts{}) {
		t.Errorf("counts %+v", c)
	}
	// The disk is as full as it was, but what was finished has made room inside the file.
	if err := <-h; err != nil {
		t.Fatalf("health: %v", err)
	}
	storetest.Commit(t, q, storetest.Put(storetest.Waiting(id+1, 0, body)))
	wantIDs(t, q, id+1)
	// That room is not used up to the last page, or nothing could be finished any more.
	var last uint64
	for i := id + 2; ; i++ {
		if err := storetest.Submit(q, storetest.Put(storetest.Waiting(i, 0, body))); err != nil {
			if !errors.Is(err, store.ErrFull) {
				t.Fatal(err)
			}
			break
		}
		last = i
	}
	for i := id + 1; i <= last; i++ {
		storetest.Commit(t, q, storetest.Delete(storetest.Waiting(i, 0, body)))
	}
	wantIDs(t, q)
}

var body = strings.Repeat("0123456789abcdef", 256)

// fillUp puts items until it fails.
func fillUp(q store.Queue) (id uint64, err error) {
	for id = 1; id < 5000; id++ {
		if err = storetest.Submit(q, storetest.Put(storetest.Waiting(id, 0, body))); err != nil {
			return id, err
		}
	}
	return id, nil
}

// TestPanic: a page that bbolt cannot go on from ends the database, not the process.
func TestPanic(t *testing.T) {
	dir, h := t.TempDir(), newHealth()
	db := mustOpen(t, dir, Options{LogBytes: noLog, Health: h.report, ReserveBytes: -1})
	q := storetest.Queue(t, db, "q")
	if id, err := putMany(q, 400); err != nil {
		t.Fatalf("item %d: %v", id, err)
	}
	smashLeaves(t, dbPath(dir))
	if _, err := q.Ready(store.Cursor{}, page1); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a read of a broken page: %v", err)
	}
	err := storetest.Submit(q, storetest.Delete(storetest.Waiting(200, 0, body)))
	if !errors.Is(err, store.ErrUnknown) {
		t.Errorf("a write to a broken page: %v", err)
	}
	if err := <-h; !errors.Is(err, store.ErrUnknown) {
		t.Errorf("health: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func putMany(q store.Queue, n uint64) (uint64, error) {
	for id := uint64(1); id <= n; id++ {
		if err := storetest.Submit(q, storetest.Put(storetest.Waiting(id, 0, body))); err != nil {
			return id, err
		}
	}
	return n, nil
}

// smashLeaves overwrites the head of every page with items, in the file that is open.
func smashLeaves(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size := os.Getpagesize()
	for at := 2 * size; at+size <= len(data); at += size {
		if bytes.Contains(data[at:at+size], []byte(body[:64])) {
			f.WriteAt(bytes.Repeat([]byte{0xff}, pageHead), int64(at))
		}
	}
}
