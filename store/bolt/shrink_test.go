package bolt

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"go.etcd.io/bbolt"

	"stint/store"
	"stint/store/storetest"
)

// crashed copies the file as it is at this moment, which is what a killed process leaves, and opens the copy.
func crashed(t *testing.T, dir string) *DB {
	t.Helper()
	data, err := os.ReadFile(dbPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	copied := t.TempDir()
	write(t, copied, data)
	return mustOpen(t, copied, small)
}

func meta(t *testing.T, dir string) metaPage {
	t.Helper()
	f, err := os.Open(dbPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, ok := readMeta(f)
	if !ok {
		t.Fatal("no meta page")
	}
	return m
}

// TestFreelistFlips: the list of free pages is written while it is short and not while it is long, and a crash at any
// moment leaves a file that opens with all that was committed.
func TestFreelistFlips(t *testing.T) {
	dir := t.TempDir()
	o := small
	o.limits.freelistLong = 30
	db := mustOpen(t, dir, o)
	q := storetest.Queue(t, db, "q")
	seen := map[bool]int{}
	next, head := uint64(1), uint64(1)
	check := func() {
		listed := meta(t, dir).freelist != noFreelist
		if seen[listed]++; seen[listed] > 3 {
			return
		}
		copied := crashed(t, dir)
		got := storetest.Drain(t, storetest.Queue(t, copied, "q"), page1)
		if len(got) != int(next-head) || len(got) > 0 && got[0].ID != head {
			t.Fatalf("%d items after a crash, want %d from %d", len(got), next-head, head)
		}
		copied.Close()
	}
	for range 3 {
		for range 8 {
			var ops []store.Op
			for range 20 {
				ops = append(ops, storetest.Put(storetest.Waiting(next, 0, body[:1000])))
				next++
			}
			storetest.Commit(t, q, ops...)
			check()
		}
		for head+5 < next {
			var ops []store.Op
			for range 5 {
				ops = append(ops, storetest.Delete(storetest.Waiting(head, 0, body[:1000])))
				head++
			}
			storetest.Commit(t, q, ops...)
			check()
		}
	}
	if seen[true] == 0 || seen[false] == 0 {
		t.Errorf("listed and not: %v", seen)
	}
	db.Close()
	if meta(t, dir).freelist == noFreelist {
		t.Error("the list was not written at the end")
	}
}

func shrinking() Options {
	o := small
	o.limits.compactFrom, o.limits.compactLive = 1<<20, 256<<10
	return o
}

// sizeOfFile is how far the file is written; bbolt gives it some length ahead, which takes no space.
func sizeOfFile(t *testing.T, dir string) int64 {
	m := meta(t, dir)
	return int64(m.pages) * int64(m.pageSize)
}

// grow fills a queue with several megabytes and empties it but for the last few items.
func grow(t *testing.T, q store.Queue) (kept []uint64) {
	t.Helper()
	const n = 1500
	var ops []store.Op
	for id := uint64(1); id <= n; id++ {
		ops = append(ops, storetest.Put(storetest.Waiting(id, 0, body)))
	}
	storetest.Commit(t, q, ops...)
	ops = nil
	for id := uint64(1); id <= n-10; id++ {
		ops = append(ops, storetest.Delete(storetest.Waiting(id, 0, body)))
	}
	storetest.Commit(t, q, ops...)
	for id := uint64(n - 9); id <= n; id++ {
		kept = append(kept, id)
	}
	return kept
}

// TestCompact: a file that is mostly free becomes small while it is in use, keeps what it holds, and stays locked.
func TestCompact(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir, shrinking())
	q, other := storetest.Queue(t, db, "q"), storetest.Queue(t, db, "other")
	storetest.Commit(t, other, storetest.Put(storetest.Delayed(1, 5, "x")),
		store.Op{Kind: store.OpPutDedup, Dedup: store.Dedup{MsgID: "m", ID: 1, Expires: 9}})
	stop, reading := make(chan struct{}), sync.WaitGroup{}
	reading.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if p, err := other.Due(10, page1); err != nil || len(p.Records) != 1 {
				t.Errorf("a read beside the compaction: %+v, %v", p, err)
				return
			}
		}
	})
	kept := grow(t, q)
	storetest.Commit(t, q) // behind the compaction
	close(stop)
	reading.Wait()
	if n := sizeOfFile(t, dir); n > 1<<20 {
		t.Fatalf("the file has %d bytes", n)
	}
	if exists(dbPath(dir) + compactSuffix) {
		t.Error("the copy is still there")
	}
	wantIDs(t, q, kept...)
	same := storetest.Load(t, other)
	if same.Counts != (store.Counts{Delayed: 1, Bytes: 1, Dedup: 1}) || same.NextDue != 5 {
		t.Errorf("%+v", same)
	}
	synctest.Test(t, func(t *testing.T) {
		if _, err := Open(dbPath(dir), small); !errors.Is(err, store.ErrLocked) {
			t.Errorf("a second open after the compaction: %v", err)
		}
	})
	if h, err := bbolt.Open(dbPath(dir), 0o600, &bbolt.Options{Timeout: 1}); err == nil {
		h.Close()
		t.Error("the new file is not locked")
	}
	storetest.Commit(t, q, storetest.Put(storetest.Waiting(5000, 0, "after")),
		store.Op{Kind: store.OpPruneDedup, Expires: 100})
	wantIDs(t, storetest.Queue(t, crashed(t, dir), "q"), append(kept, 5000)...)
	db.Close()
	wantIDs(t, storetest.Queue(t, mustOpen(t, dir, small), "q"), append(kept, 5000)...)
}

// TestCompactAtOpen: a file that was left large is made small at the start.
func TestCompactAtOpen(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir, small)
	kept := grow(t, storetest.Queue(t, db, "q"))
	db.Close()
	if n := sizeOfFile(t, dir); n < 4<<20 {
		t.Fatalf("the file has only %d bytes", n)
	}
	db = mustOpen(t, dir, shrinking())
	q := storetest.Queue(t, db, "q")
	storetest.Commit(t, q)
	if n := sizeOfFile(t, dir); n > 1<<20 {
		t.Errorf("the file has %d bytes", n)
	}
	wantIDs(t, q, kept...)
}

// TestCompactNot: a file with much in use is left alone.
func TestCompactNot(t *testing.T) {
	dir := t.TempDir()
	o := shrinking()
	o.limits.compactLive = 4096
	db := mustOpen(t, dir, o)
	q := storetest.Queue(t, db, "q")
	kept := grow(t, q)
	storetest.Commit(t, q)
	if n := sizeOfFile(t, dir); n < 4<<20 {
		t.Errorf("the file has %d bytes", n)
	}
	wantIDs(t, q, kept...)
}

// TestCompactFails: a copy that cannot be made is removed, and the old file goes on.
func TestCompactFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(dbPath(dir)+".x", 0o700); err != nil {
		t.Fatal(err)
	}
	db := mustOpen(t, dir, shrinking())
	// A directory with something in it, in the place of the copy, that neither can be opened nor removed.
	if err := os.MkdirAll(dbPath(dir)+compactSuffix+"/x", 0o700); err != nil {
		t.Fatal(err)
	}
	q := storetest.Queue(t, db, "q")
	kept := grow(t, q)
	storetest.Commit(t, q, storetest.Put(storetest.Waiting(7000, 0, "x")))
	wantIDs(t, q, append(kept, 7000)...)
	if n := sizeOfFile(t, dir); n < 4<<20 {
		t.Errorf("the file has %d bytes", n)
	}
}

// TestSteadySize: under a steady flow the file does not grow with what passes through it.
func TestSteadySize(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir, small)
	q := storetest.Queue(t, db, "q")
	const held = 50
	pass := func(from, to uint64) {
		for id := from; id < to; id += 10 {
			var ops []store.Op
			for i := id; i < id+10; i++ {
				ops = append(ops, storetest.Put(storetest.Waiting(i, 0, body)))
				if i > held {
					ops = append(ops, storetest.Delete(storetest.Waiting(i-held, 0, body)))
				}
			}
			storetest.Commit(t, q, ops...)
		}
	}
	pass(1, 1001)
	before := sizeOfFile(t, dir)
	pass(1001, 4001)
	if after := sizeOfFile(t, dir); after > before*3/2 {
		t.Errorf("from %d to %d bytes", before, after)
	}
}

// TestManyDatabases: what is opened is closed again, files and maps and goroutines.
func TestManyDatabases(t *testing.T) {
	dir := t.TempDir()
	fds := func() int {
		e, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("descriptors cannot be counted here: ", err)
		}
		return len(e)
	}
	mustOpen(t, dir, small).Close()
	before := fds()
	for range 20 {
		mustOpen(t, dir, small).Close()
	}
	if after := fds(); after > before {
		t.Errorf("from %d to %d descriptors", before, after)
	}
}

func TestMakeDirDeep(t *testing.T) {
	dir := t.TempDir() + "/a/b/c"
	db, err := Open(dir+"/work.db", small)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	if err := syncDir(dir + "/none"); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("a directory that is not there: %v", err)
	}
}
