package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"stint/store"
	"stint/store/storetest"
)

// counted counts the transactions of the file, by the writes to its meta pages.
func counted(o Options, commits *atomic.Int64) Options {
	o.hooks.opened = func(h *bbolt.DB) {
		write := field[func([]byte, int64) (int, error)](h, "ops", "writeAt")
		real := *write
		*write = func(b []byte, off int64) (int, error) {
			if off < 2*int64(os.Getpagesize()) {
				commits.Add(1)
			}
			return real(b, off)
		}
	}
	return o
}

// TestReadersSeeTheLog: whatever was told done is read by another goroutine, although the file does not have it.
func TestReadersSeeTheLog(t *testing.T) {
	item, later := storetest.Waiting(1, 3, "a"), storetest.Delayed(2, 5, "b")
	item.Expires, later.Expires = 9, 0
	inFile := []store.Op{
		storetest.Put(item), storetest.Put(later),
		{Kind: store.OpPutReply, Reply: &store.Reply{ID: 3, Subject: "old"}},
		{Kind: store.OpPutDedup, Dedup: store.Dedup{MsgID: "m", ID: 1, Expires: 5}},
	}
	third := storetest.Waiting(3, 0, "c")
	soon := storetest.Delayed(4, 1, "d")
	brief := storetest.Delayed(5, 99, "e")
	brief.Expires = 1
	dead := store.Place{Area: store.Dead}
	ids := func(p store.Page, err error) string {
		var b strings.Builder
		for _, r := range p.Records {
			fmt.Fprint(&b, r.ID, r.Deliveries, " ")
		}
		return fmt.Sprint(b.String(), err, len(p.Damaged))
	}
	ready := func(q store.Queue) string { return ids(q.Ready(store.Cursor{}, store.Limit{Records: 1})) }
	due := func(q store.Queue) string { return ids(q.Due(50, store.Limit{})) }
	expired := func(q store.Queue) string { return ids(q.Expired(50, store.Limit{})) }
	reply := func(q store.Queue) string {
		r, ok, err := q.Reply(3)
		return fmt.Sprint(r.Subject, ok, err)
	}
	dedup := func(q store.Queue) string {
		d, ok, err := q.Dedup("m")
		return fmt.Sprint(d.ID, ok, err)
	}
	load := func(q store.Queue) string {
		s, err := q.Load()
		return fmt.Sprint(s.Counts, s.NextDue, s.NextExpiry, len(s.Leases), len(s.Registrations), len(s.Replies), err)
	}
	reads := map[string]func(store.Queue) string{"ready": ready, "due": due, "expired": expired, "reply": reply, "dedup": dedup, "load": load}
	for name, ops := range map[string][]store.Op{
		"put":              {storetest.Put(third), storetest.Put(soon), storetest.Put(brief)},
		"delete":           {storetest.Delete(item), storetest.Delete(later)},
		"move":             {storetest.Move(item, store.Place{Area: store.Delayed, Due: -1}, store.Marks{Deliveries: 7})},
		"move to ready":    {storetest.Move(later, store.Place{Area: store.Ready}, store.Marks{Deliveries: 7})},
		"bury":             {storetest.Move(item, dead, store.Marks{}), storetest.Move(later, dead, store.Marks{})},
		"marks":            {storetest.Move(item, item.Place, store.Marks{Deliveries: 8})},
		"set aside":        {{Kind: store.OpSetAside, ID: 1, From: item.Place}},
		"unexpire":         {{Kind: store.OpUnexpire, ID: 1, Expires: 9}},
		"reply":            {{Kind: store.OpPutReply, Reply: &store.Reply{ID: 3, Subject: "new"}}},
		"no reply":         {{Kind: store.OpDeleteReply, ID: 3}},
		"dedup":            {{Kind: store.OpPutDedup, Dedup: store.Dedup{MsgID: "m", ID: 4, Expires: 50}}},
		"prune":            {{Kind: store.OpPruneDedup, Expires: 50}},
		"dedup and prune":  {{Kind: store.OpPutDedup, Dedup: store.Dedup{MsgID: "m", ID: 4, Expires: 6}}, {Kind: store.OpPruneDedup, Expires: 50}},
		"lease":            {{Kind: store.OpPutLease, Lease: store.Lease{ID: 1, Attempt: 1, Processor: "p"}}},
		"registration":     {{Kind: store.OpPutRegistration, Registration: store.Registration{Processor: "p"}}},
		"changes that end": {storetest.Put(third), storetest.Delete(third)},
	} {
		db, plain := mustOpen(t, t.TempDir(), logged), mustOpen(t, t.TempDir(), small)
		for what, read := range reads {
			t.Run(name+", "+what, func(t *testing.T) {
				q, same := storetest.Queue(t, db, what), storetest.Queue(t, plain, what)
				storetest.Commit(t, q, inFile...)
				storetest.Load(t, q)
				if q.(*Queue).unread.has((*pending).any) {
					t.Fatal("the log still holds something")
				}
				storetest.Commit(t, same, inFile...)
				storetest.Commit(t, same, ops...)
				done := make(chan error)
				q.Submit(&store.Batch{Ops: ops, Done: func(err error) { done <- err }})
				got := make(chan string)
				go func() {
					<-done
					got <- read(q)
				}()
				if got, want := <-got, read(same); got != want {
					t.Errorf("%s, want %s", got, want)
				}
			})
		}
		db.Close()
		plain.Close()
	}
}

// TestDedupInBothFiles: of a message id that both files of the log hold, the later one counts.
func TestDedupInBothFiles(t *testing.T) {
	for later := range int32(2) {
		hold := make(chan bool)
		var armed atomic.Bool
		db := mustOpen(t, t.TempDir(), holding(logged, &armed, hold))
		q := storetest.Queue(t, db, "q")
		if later == 0 {
			storetest.Commit(t, q, storetest.Put(storetest.Waiting(1, 0, "")))
			storetest.Load(t, q) // changes over
		}
		remember := func(id uint64) {
			storetest.Commit(t, q, store.Op{Kind: store.OpPutDedup, Dedup: store.Dedup{MsgID: "m", ID: id, Expires: 5}})
		}
		id := uint64(10)
		remember(id)
		storetest.Commit(t, q, store.Op{Kind: store.OpPutDedup, Dedup: store.Dedup{MsgID: "once", ID: 3, Expires: 5}})
		armed.Store(true)
		loaded := make(chan error)
		go func() { _, err := q.Load(); loaded <- err }()
		for db.front.active.Load() != later {
			id++
			remember(id)
		}
		if d, ok, err := q.Dedup("once"); !ok || err != nil || d.ID != 3 {
			t.Errorf("of the round under way: accepted as %d, %v, %v", d.ID, ok, err)
		}
		for range 2 {
			id++
			remember(id)
			if d, ok, err := q.Dedup("m"); !ok || err != nil || d.ID != id {
				t.Errorf("accepted as %d, %v, %v; want %d", d.ID, ok, err, id)
			}
		}
		close(hold)
		if err := <-loaded; err != nil {
			t.Error(err)
		}
	}
}

// TestLongBacklog: to read on at the head of a long backlog, while items are added at its end and finished before its head,
// needs nothing of what the log holds.
func TestLongBacklog(t *testing.T) {
	var commits atomic.Int64
	q := storetest.Queue(t, mustOpen(t, t.TempDir(), counted(logged, &commits)), "q")
	var ops []store.Op
	const backlog = 1000
	for id := uint64(1); id <= backlog; id++ {
		ops = append(ops, storetest.Put(storetest.Waiting(id, 0, "b")))
	}
	storetest.Commit(t, q, ops...)
	storetest.Load(t, q)
	before := commits.Load()
	var at store.Cursor
	for next := uint64(1); next+10 < backlog; next += 10 {
		p, err := q.Ready(at, store.Limit{Records: 10})
		if err != nil || len(p.Records) != 10 || p.Records[0].ID != next || !p.More {
			t.Fatalf("from %d: %d records, %v", next, len(p.Records), err)
		}
		ops = ops[:0]
		for _, r := range p.Records {
			at = store.Cursor{ID: r.ID}
			ops = append(ops, storetest.Delete(r))
		}
		storetest.Commit(t, q, append(ops, storetest.Put(storetest.Waiting(backlog+next, 0, "new")))...)
	}
	if n := commits.Load() - before; n != 0 {
		t.Errorf("%d transactions", n)
	}
	p, err := q.Ready(at, store.Limit{})
	if want := int(backlog - at.ID + at.ID/10); err != nil || len(p.Records) != want || commits.Load() == before {
		t.Errorf("the rest: %d records, want %d, %v", len(p.Records), want, err)
	}
}

// TestDamageEndsAPage: the caller goes on after a damaged record, so an item in the log that stands before it must be in the page.
func TestDamageEndsAPage(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir, logged)
	q := storetest.Queue(t, db, "q")
	for _, id := range []uint64{1, 2, 3, 4, 6, 7, 8, 9} {
		storetest.Commit(t, q, storetest.Put(storetest.Waiting(id, 0, "body")))
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	edit(t, dir, func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(queuePrefix + "q")).Bucket(bucketNames[kindReady])
		key := appendPlaceKey(nil, store.Place{Area: store.Ready}, 6)
		return b.Put(key, flipped(b.Get(key), 100))
	})
	q = storetest.Queue(t, mustOpen(t, dir, logged), "q")
	storetest.Load(t, q)
	storetest.Commit(t, q, storetest.Put(storetest.Waiting(5, 0, "in the log")))
	p, err := q.Ready(store.Cursor{}, store.Limit{Records: 5})
	if err != nil || len(p.Records) != 5 || p.Records[4].ID != 5 {
		t.Errorf("%d records and %d damaged, %v", len(p.Records), len(p.Damaged), err)
	}
}

// TestOutOfOrder: what the log holds need not be in the order in which it is read.
func TestOutOfOrder(t *testing.T) {
	q := storetest.Queue(t, mustOpen(t, t.TempDir(), logged), "q")
	for id := uint64(1); id <= 20; id++ {
		storetest.Commit(t, q, storetest.Put(storetest.Waiting(id, 1, "")))
	}
	storetest.Load(t, q)
	for _, op := range []store.Op{
		storetest.Put(storetest.Waiting(30, 2, "")), storetest.Put(storetest.Waiting(31, 0, "")),
		{Kind: store.OpPutReply, Reply: &store.Reply{ID: 9}},
		{Kind: store.OpPutReply, Reply: &store.Reply{ID: 3}},
	} {
		storetest.Commit(t, q, op)
	}
	if p, err := q.Ready(store.Cursor{}, store.Limit{Records: 5}); err != nil || p.Records[0].ID != 31 {
		t.Errorf("the urgent item is not the first: %+v, %v", p.Records, err)
	}
	storetest.Commit(t, q, store.Op{Kind: store.OpPutReply, Reply: &store.Reply{ID: 8}}, store.Op{Kind: store.OpPutReply, Reply: &store.Reply{ID: 2}})
	if _, ok, err := q.Reply(2); !ok || err != nil {
		t.Errorf("the reply that was put last: %v, %v", ok, err)
	}
}

// TestReadersBesideRounds: readers see what was told done at every moment, while the files of the log change places all
// the time.
func TestReadersBesideRounds(t *testing.T) {
	o := logged
	o.LogBytes, o.limits.directSize = 1500, 600
	db := mustOpen(t, t.TempDir(), o)
	var wg sync.WaitGroup
	for i := range 2 {
		q := storetest.Queue(t, db, fmt.Sprint(i))
		var told atomic.Uint64
		stop := make(chan struct{})
		wg.Go(func() {
			defer close(stop)
			for id := uint64(1); id <= 150; id++ {
				ops := []store.Op{
					storetest.Put(storetest.Waiting(id, 0, strings.Repeat("b", int(id%90)))),
					{Kind: store.OpPutReply, Reply: &store.Reply{ID: id, Subject: "s"}},
					{Kind: store.OpPutDedup, Dedup: store.Dedup{MsgID: fmt.Sprint(id), ID: id, Expires: 1}},
				}
				if err := storetest.Submit(q, ops...); err != nil {
					t.Error(err)
					return
				}
				told.Store(id)
			}
		})
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				last := told.Load()
				if last == 0 {
					continue
				}
				d, ok, err := q.Dedup(fmt.Sprint(last))
				if !ok || err != nil || d.ID != last {
					t.Errorf("message id %d: %v %v %v", last, d, ok, err)
					return
				}
				if r, ok, err := q.Reply(last); !ok || err != nil || r.ID != last {
					t.Errorf("reply %d: %v %v %v", last, r, ok, err)
					return
				}
				p, err := q.Ready(store.Cursor{ID: last / 2}, store.Limit{})
				if err != nil || len(p.Records) < int(last-last/2) {
					t.Errorf("%d items after %d, %d were told: %v", len(p.Records), last/2, last, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// wantEnded checks a database that cannot be written any more.
func wantEnded(t *testing.T, db *DB, q store.Queue, h health, cause error) {
	t.Helper()
	for i := range uint64(2*directRun + 2) {
		err := storetest.Submit(q, storetest.Put(storetest.Waiting(1000+i, 0, "after")))
		if !errors.Is(err, store.ErrUnknown) || errors.Is(err, store.ErrFull) || !errors.Is(err, cause) {
			t.Fatalf("write %d afterwards: %v", i, err)
		}
	}
	if _, err := q.Ready(store.Cursor{}, page1); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("a read afterwards: %v", err)
	}
	if _, err := q.Load(); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("a load afterwards: %v", err)
	}
	if err := <-h; !errors.Is(err, store.ErrUnknown) || len(h) != 0 {
		t.Errorf("health: %v and %d more", err, len(h))
	}
	if err := db.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if len(h) != 0 {
		t.Errorf("health after the end: %v", <-h)
	}
}

// TestLogFails: after a sync or a write of the log that failed nothing is acknowledged any more, and what was is there after a
// restart.
func TestLogFails(t *testing.T) {
	for name, prepare := range map[string]func(o *Options, armed *atomic.Bool, db **DB) error{
		"sync": func(o *Options, armed *atomic.Bool, _ **DB) error {
			o.hooks.syncLog = func(f *os.File) error {
				if armed.Load() {
					return syscall.EIO
				}
				return syncData(f)
			}
			return syscall.EIO
		},
		"sync without space": func(o *Options, armed *atomic.Bool, _ **DB) error {
			o.hooks.syncLog = func(f *os.File) error {
				if armed.Load() {
					return syscall.ENOSPC
				}
				return syncData(f)
			}
			return syscall.ENOSPC
		},
		"write": func(o *Options, armed *atomic.Bool, db **DB) error {
			o.BeforeSync = func(int) {
				if armed.Load() {
					f := *field[*os.File]((*db).front.logs[(*db).front.active.Load()], "f")
					f.Close()
				}
			}
			return fs.ErrClosed
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, h := t.TempDir(), newHealth()
			o := logged
			o.Health = h.report
			var armed atomic.Bool
			var db *DB
			cause := prepare(&o, &armed, &db)
			db = mustOpen(t, dir, o)
			q := storetest.Queue(t, db, "q")
			storetest.Commit(t, q, storetest.Put(storetest.Waiting(1, 0, "a")))
			storetest.Load(t, q)
			storetest.Commit(t, q, storetest.Put(storetest.Waiting(2, 0, "b")), storetest.Delete(storetest.Waiting(1, 0, "a")))
			armed.Store(true)
			err := storetest.Submit(q, storetest.Put(storetest.Waiting(3, 0, "c")))
			if !errors.Is(err, store.ErrUnknown) || errors.Is(err, store.ErrFull) || !errors.Is(err, cause) {
				t.Fatalf("the log fails: %v", err)
			}
			wantEnded(t, db, q, h, cause)
			q = storetest.Queue(t, mustOpen(t, dir, logged), "q")
			got := storetest.Drain(t, q, page1)
			if len(got) == 0 || got[0].ID != 2 || len(got) > 1 && got[1].ID != 3 || len(got) > 2 {
				t.Errorf("after the restart: %v", got)
			}
		})
	}
}

// TestFileFailsBehindTheLog: when it is the file that fails, the log acknowledges nothing more either.
func TestFileFailsBehindTheLog(t *testing.T) {
	for name, fail := range map[string]func(q store.Queue) error{
		"round": func(q store.Queue) error { _, err := q.Load(); return err },
		"past the log": func(q store.Queue) error {
			return storetest.Submit(q, storetest.Put(storetest.Waiting(5, 0, strings.Repeat("x", 300<<10))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, d, h := t.TempDir(), &disk{}, newHealth()
			o := logged
			o.Health = h.report
			db := mustOpen(t, dir, d.options(o))
			q := storetest.Queue(t, db, "q")
			storetest.Commit(t, q, storetest.Put(storetest.Waiting(1, 0, "a")))
			if name == "past the log" {
				storetest.Load(t, q) // or it would be a round that fails
			}
			d.set(func(d *disk) { d.err, d.full = syscall.EIO, func(int64) bool { return true } })
			if err := fail(q); !errors.Is(err, store.ErrUnknown) || !errors.Is(err, syscall.EIO) {
				t.Errorf("the file fails: %v", err)
			}
			wantEnded(t, db, q, h, syscall.EIO)
			wantIDs(t, storetest.Queue(t, mustOpen(t, dir, logged), "q"), 1)
		})
	}
}

// TestLogFull: a round for which the disk has no room is made with the reserve given up; what finishes work goes on, what is new
// is refused.
func TestLogFull(t *testing.T) {
	dir, d, h := t.TempDir(), &disk{}, newHealth()
	o := d.options(Options{Health: h.report, ReserveBytes: 1 << 20})
	o.limits.regainEvery = time.Millisecond
	db := mustOpen(t, dir, o)
	q := storetest.Queue(t, db, "q")
	a, b := storetest.Waiting(1, 0, "a"), storetest.Waiting(2, 0, "b")
	storetest.Commit(t, q, storetest.Put(a), storetest.Put(b))
	d.fill(dir)
	wantIDs(t, q, 1, 2)
	if err := <-h; !errors.Is(err, store.ErrFull) {
		t.Fatalf("health: %v", err)
	}
	for id := range uint64(3) {
		if err := storetest.Submit(q, storetest.Put(storetest.Waiting(10+id, 0, "new"))); !errors.Is(err, store.ErrFull) {
			t.Errorf("a put while full: %v", err)
		}
	}
	storetest.Commit(t, q, storetest.Delete(a), store.Op{Kind: store.OpPutReply, Reply: &store.Reply{ID: 1, Subject: "s"}})
	storetest.Commit(t, q, storetest.Move(b, b.Place, store.Marks{Attempts: 1}))
	wantIDs(t, q, 2)
	wantIDs(t, storetest.Queue(t, mustOpen(t, copyFiles(t, dir), logged), "q"), 2)
	d.free()
	if err := <-h; err != nil {
		t.Fatalf("health: %v", err)
	}
	storetest.Commit(t, q, storetest.Put(storetest.Waiting(3, 0, "c")))
	wantIDs(t, q, 2, 3)
	db.Close()
	wantIDs(t, storetest.Queue(t, mustOpen(t, dir, logged), "q"), 2, 3)
}

// noSpace is a disk without any room, and a small log on which work can still be noted.
func noSpace(t *testing.T, dir string, h health, regain time.Duration) (*disk, *DB) {
	d := &disk{}
	o := d.options(Options{Health: h.report, ReserveBytes: -1, LogBytes: 1000})
	o.limits.directSize = 500
	o.limits.regainEvery = regain
	db := mustOpen(t, dir, o)
	d.set(func(d *disk) {
		d.err = syscall.ENOSPC
		d.full = func(int64) bool { return true }
		d.room = func(int64) bool { return false }
	})
	return d, db
}

// TestLogFullForAll: with no room for a round at all, everything is refused and nothing is waited for; what was acknowledged
// stays, and is there once there is space.
func TestLogFullForAll(t *testing.T) {
	dir, h := t.TempDir(), newHealth()
	d, db := noSpace(t, dir, h, time.Millisecond)
	q := storetest.Queue(t, db, "q")
	var told []uint64
	var refused error
	for id := uint64(1); refused == nil; id++ {
		if refused = storetest.Submit(q, storetest.Put(storetest.Waiting(id, 0, strings.Repeat("b", 200)))); refused == nil {
			told = append(told, id)
		}
	}
	if !errors.Is(refused, store.ErrFull) || len(told) < 3 {
		t.Fatalf("after %d items: %v", len(told), refused)
	}
	if err := <-h; !errors.Is(err, store.ErrFull) {
		t.Fatalf("health: %v", err)
	}
	if err := storetest.Submit(q, storetest.Delete(storetest.Waiting(1, 0, strings.Repeat("b", 200)))); !errors.Is(err, store.ErrFull) {
		t.Errorf("a delete without any space: %v", err)
	}
	read := make(chan string)
	for range 3 { // readers wait: the file alone would give out what is finished
		go func() {
			s, err := q.Load()
			read <- fmt.Sprint(s.Counts.Ready >= len(told), err)
		}()
	}
	wantIDs(t, storetest.Queue(t, mustOpen(t, copyFiles(t, dir), logged), "q"), told...)
	d.free()
	if err := <-h; err != nil {
		t.Fatalf("health: %v", err)
	}
	storetest.Commit(t, q, storetest.Put(storetest.Waiting(100, 0, "c"))) // at once
	wantIDs(t, q, append(told, 100)...)
	for range 3 {
		if got := <-read; got != "true <nil>" {
			t.Errorf("a reader that had to wait: %s", got)
		}
	}
	if len(h) != 0 {
		t.Errorf("health: %v", <-h)
	}
}

// TestLogFullEnds: when the writer says that there is space again, the round that found none does not wait for its own time, and
// what comes meanwhile is not refused.
func TestLogFullEnds(t *testing.T) {
	dir, h := t.TempDir(), newHealth()
	d, db := noSpace(t, dir, h, time.Hour)
	q := storetest.Queue(t, db, "q")
	storetest.Commit(t, q, storetest.Put(storetest.Waiting(1, 0, "a")))
	read := make(chan error)
	go func() { _, err := q.Load(); read <- err }()
	<-h
	refused := storetest.Submit(q, storetest.Put(storetest.Waiting(2, 0, "b")))
	if !errors.Is(refused, store.ErrFull) {
		t.Fatalf("a put while full: %v", refused)
	}
	d.free()
	db.front.full.Store(false) // as the writer does in an hour
	storetest.Commit(t, q, storetest.Put(storetest.Waiting(3, 0, "c")))
	if err := <-read; err != nil {
		t.Error(err)
	}
}

// TestLogCloseFull: to end while the disk is full loses nothing, and does not wait for space.
func TestLogCloseFull(t *testing.T) {
	for _, tried := range []bool{false, true} {
		dir, h := t.TempDir(), newHealth()
		_, db := noSpace(t, dir, h, time.Millisecond)
		q := storetest.Queue(t, db, "q")
		storetest.Commit(t, q, storetest.Put(storetest.Waiting(1, 0, "a")))
		storetest.Commit(t, q, storetest.Put(storetest.Waiting(2, 0, "b")), storetest.Delete(storetest.Waiting(1, 0, "a")))
		read := make(chan error, 1)
		if tried {
			go func() { _, err := q.Load(); read <- err }()
			<-h // the round has found no room
		} else {
			read <- store.ErrClosed
		}
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-read; !errors.Is(err, store.ErrClosed) {
			t.Errorf("a reader that waited for space: %v", err)
		}
		wantIDs(t, storetest.Queue(t, mustOpen(t, dir, logged), "q"), 2)
	}
}

// TestRest: what is appended last reaches the file although nothing follows it.
func TestRest(t *testing.T) {
	o := logged
	o.limits.restAfter = time.Millisecond
	committed := make(chan struct{}, 100)
	o.BeforeSync = func(int) { committed <- struct{}{} }
	db := mustOpen(t, t.TempDir(), o)
	q := storetest.Queue(t, db, "q")
	for range 2 {
		for len(committed) > 0 {
			<-committed
		}
		storetest.Commit(t, q, storetest.Put(storetest.Waiting(1, 0, "b")))
		<-committed // the append
		<-committed // the round
	}
}
