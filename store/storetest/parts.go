package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"stint/store"
)

func testReplies(t *testing.T, s suite) {
	q := s.queue(t)
	reply := store.Reply{ID: 4, Subject: "_INBOX.x", Expires: 77, Header: map[string][]string{"H": {"v"}}, Body: []byte("r")}
	Commit(t, q, store.Op{Kind: store.OpPutReply, Reply: &store.Reply{ID: 9, Subject: "b"}},
		store.Op{Kind: store.OpPutReply, Reply: &store.Reply{ID: 4, Subject: "old"}},
		store.Op{Kind: store.OpPutReply, Reply: &reply})
	got, ok, err := q.Reply(4)
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	same(t, "reply", got, reply)
	if _, ok, err := q.Reply(5); ok || err != nil {
		t.Errorf("a reply that is not there: %v, %v", ok, err)
	}
	snap := Load(t, q)
	same(t, "heads", snap.Replies, []store.ReplyHead{{ID: 4, Subject: "_INBOX.x", Expires: 77}, {ID: 9, Subject: "b"}})
	same(t, "counts", snap.Counts, store.Counts{Replies: 2})
	Commit(t, q, store.Op{Kind: store.OpDeleteReply, ID: 4})
	if _, ok, _ := q.Reply(4); ok {
		t.Error("the deleted reply is still there")
	}
	same(t, "counts", Load(t, q).Counts, store.Counts{Replies: 1})
}

func testLeases(t *testing.T, s suite) {
	q := s.queue(t)
	a, b, c := Waiting(1, 200, "a"), Waiting(2, 0, "b"), Waiting(3, 9, "c")
	lease := func(id uint64, attempt uint32) store.Lease {
		return store.Lease{ID: id, Attempt: attempt, Processor: "p.1", Timeout: 3000}
	}
	put := func(l store.Lease) store.Op { return store.Op{Kind: store.OpPutLease, Lease: l} }
	Commit(t, q, Put(a), Put(b), Put(c), put(lease(1, 1)), put(lease(2, 1)), put(lease(3, 1)), put(lease(1, 8)))
	same(t, "leases", Load(t, q).Leases,
		[]store.LeasedRecord{{Lease: lease(1, 8), Record: a}, {Lease: lease(2, 1), Record: b}, {Lease: lease(3, 1), Record: c}})

	gone := Delete(b)
	gone.Leased = true
	moved := Move(c, store.Place{Area: store.Delayed, Due: 4}, store.Marks{})
	moved.Leased = true
	Commit(t, q, gone, moved, store.Op{Kind: store.OpDeleteLease, ID: 1})
	same(t, "leases", Load(t, q).Leases, []store.LeasedRecord{})

	m := store.Marks{Deliveries: 2}
	Commit(t, q, put(lease(1, 2)), Move(a, a.Place, m))
	a.Marks = m
	same(t, "a lease that stays", Load(t, q).Leases, []store.LeasedRecord{{Lease: lease(1, 2), Record: a}})
}

func testRegistrations(t *testing.T, s suite) {
	q := s.queue(t)
	put := func(p string, n int) store.Op {
		return store.Op{Kind: store.OpPutRegistration, Registration: store.Registration{Processor: p, Capacity: n, Batch: 3 * n, Seen: 5}}
	}
	Commit(t, q, put("b", 1), put("a", 2), put("b", 7))
	same(t, "registrations", Load(t, q).Registrations,
		[]store.Registration{{Processor: "a", Capacity: 2, Batch: 6, Seen: 5}, {Processor: "b", Capacity: 7, Batch: 21, Seen: 5}})
	Commit(t, q, store.Op{Kind: store.OpDeleteRegistration, Registration: store.Registration{Processor: "a"}})
	same(t, "registrations", Load(t, q).Registrations, []store.Registration{{Processor: "b", Capacity: 7, Batch: 21, Seen: 5}})
}

func testDedup(t *testing.T, s suite) {
	q := s.queue(t)
	put := func(d store.Dedup) store.Op { return store.Op{Kind: store.OpPutDedup, Dedup: d} }
	prune := func(before int64) store.Op { return store.Op{Kind: store.OpPruneDedup, Expires: before} }
	check := func(id string, want *store.Dedup) {
		t.Helper()
		got, ok, err := q.Dedup(id)
		if err != nil || ok != (want != nil) {
			t.Fatalf("%q: %v, %v", id, ok, err)
		}
		if ok {
			same(t, id, got, *want)
		}
	}
	a := store.Dedup{MsgID: "a", ID: 1 << 50, Expires: 100, ReplyHash: 1<<64 - 1}
	b := store.Dedup{MsgID: "b", ID: 2, Expires: 200}
	Commit(t, q, put(a), put(b))
	check("a", &a)
	check("", nil)
	check("c", nil)
	Commit(t, q, prune(100))
	check("a", &a)
	again := store.Dedup{MsgID: "a", ID: 3, Expires: 300}
	Commit(t, q, put(again), prune(201))
	check("a", &again)
	check("b", nil)
	same(t, "counts", Load(t, q).Counts, store.Counts{Dedup: 1})
	Commit(t, q, prune(301))
	check("a", nil)
	same(t, "counts", Load(t, q).Counts, store.Counts{})
}

func testPruneBound(t *testing.T, s suite) {
	q := s.queue(t)
	var ops []store.Op
	for i := range store.PruneMax + 5 {
		d := store.Dedup{MsgID: fmt.Sprintf("id-%d", i), ID: 1, Expires: int64(i)}
		ops = append(ops, store.Op{Kind: store.OpPutDedup, Dedup: d})
	}
	Commit(t, q, ops...)
	Commit(t, q, store.Op{Kind: store.OpPruneDedup, Expires: 1 << 40})
	same(t, "left after one", Load(t, q).Counts.Dedup, 5)
	if _, ok, _ := q.Dedup(fmt.Sprintf("id-%d", store.PruneMax)); !ok {
		t.Error("not the oldest were forgotten")
	}
}

func testEpoch(t *testing.T, s suite) {
	dir := t.TempDir()
	var last uint32
	for range 3 {
		db := s.open(t, dir)
		epoch := Load(t, Queue(t, db, "q")).Epoch
		if epoch == last || s.caps.Survives && epoch < last || epoch >= 1<<(64-store.EpochShift) {
			t.Errorf("epoch %d after %d", epoch, last)
		}
		last = epoch
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func testReopen(t *testing.T, s suite) {
	dir := t.TempDir()
	db := s.open(t, dir)
	q := Queue(t, db, "q")
	r := full(1)
	Commit(t, q, Put(r), Put(Delayed(2, 50, "d")), Put(Waiting(3, 9, "w")),
		store.Op{Kind: store.OpPutReply, Reply: &store.Reply{ID: 8, Subject: "s", Body: []byte("b")}},
		store.Op{Kind: store.OpPutLease, Lease: store.Lease{ID: 3, Attempt: 1, Processor: "p"}},
		store.Op{Kind: store.OpPutRegistration, Registration: store.Registration{Processor: "p", Capacity: 2}},
		store.Op{Kind: store.OpPutDedup, Dedup: store.Dedup{MsgID: "m", ID: 1, Expires: 10}})
	before := Load(t, q)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = s.open(t, dir)
	defer db.Close()
	q = Queue(t, db, "q")
	after := Load(t, q)
	after.Epoch = before.Epoch
	if !s.caps.Survives {
		same(t, "snapshot", after, store.Snapshot{Epoch: before.Epoch})
		return
	}
	same(t, "snapshot", after, before)
	same(t, "ready", Drain(t, q, everything), []store.Record{r, Waiting(3, 9, "w")})
	same(t, "due", must(t)(q.Due(50, everything)).Records, []store.Record{Delayed(2, 50, "d")})
	if _, ok, err := q.Dedup("m"); !ok || err != nil {
		t.Error("the message id is forgotten", err)
	}
}

func testManyQueues(t *testing.T, s suite) {
	db := s.db(t)
	const n = 60
	var qs []store.Queue
	for i := range n {
		q := Queue(t, db, fmt.Sprintf("queue-%d", i))
		Commit(t, q, Put(Waiting(uint64(i+1), 0, strings.Repeat("x", i))))
		qs = append(qs, q)
	}
	for i, q := range qs {
		wantIDs(t, Drain(t, q, everything), uint64(i+1))
		same(t, "counts", Load(t, q).Counts, store.Counts{Ready: 1, Bytes: int64(i)})
	}
}

// testConcurrent: queues of one database are used at the same time, each by its own goroutine.
func testConcurrent(t *testing.T, s suite) {
	db := s.db(t)
	const queues, rounds = 8, 30
	var wg sync.WaitGroup
	for i := range queues {
		q := Queue(t, db, fmt.Sprint(i))
		wg.Go(func() {
			for r := range uint64(rounds) {
				ops := []store.Op{Put(Waiting(2*r+1, 0, "a")), Put(Waiting(2*r+2, 0, "b"))}
				if r > 0 {
					ops = append(ops, Delete(Waiting(2*r-1, 0, "a")))
				}
				if err := Submit(q, ops...); err != nil {
					t.Error(err)
					return
				}
				p, err := q.Ready(store.Cursor{}, everything)
				if err != nil || len(p.Records) != int(r)+2 {
					t.Errorf("queue %d, round %d: %d items, %v", i, r, len(p.Records), err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// testReadsBesideWrites: a read sees whole batches only.
func testReadsBesideWrites(t *testing.T, s suite) {
	q := s.queue(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				p, err := q.Ready(store.Cursor{}, everything)
				if err != nil || len(p.Records)%2 != 0 {
					t.Errorf("a read saw half a batch: %d items, %v", len(p.Records), err)
					return
				}
			}
		})
	}
	for r := range uint64(40) {
		Commit(t, q, Put(Waiting(2*r+1, 0, "a")), Put(Waiting(2*r+2, 1, "b")))
	}
	close(stop)
	wg.Wait()
}

func testClose(t *testing.T, s suite) {
	db := s.open(t, t.TempDir())
	q := Queue(t, db, "q")
	Commit(t, q, Put(Waiting(1, 0, "")))
	for range 2 {
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := Submit(q, Put(Waiting(2, 0, ""))); !errors.Is(err, store.ErrClosed) {
		t.Errorf("a batch after Close: %v", err)
	}
	if _, err := db.Queue("r"); !errors.Is(err, store.ErrClosed) {
		t.Errorf("a queue after Close: %v", err)
	}
}

// testCloseUnderLoad: every batch has its outcome exactly once, and what was said to be stored is.
func testCloseUnderLoad(t *testing.T, s suite) {
	dir := t.TempDir()
	db := s.open(t, dir)
	const n = 8
	var mu sync.Mutex
	stored := map[string][]uint64{}
	var wg sync.WaitGroup
	started := make(chan struct{}, n)
	for i := range n {
		name := fmt.Sprint(i)
		q := Queue(t, db, name)
		wg.Go(func() {
			for id := uint64(1); ; id++ {
				calls := make(chan error, 2)
				q.Submit(&store.Batch{Ops: []store.Op{Put(Waiting(id, 0, ""))}, Done: func(err error) { calls <- err }})
				err := <-calls
				if id == 2 {
					started <- struct{}{}
				}
				if len(calls) > 0 {
					t.Error("Done was called twice")
				}
				if err != nil {
					if !errors.Is(err, store.ErrClosed) {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				stored[name] = append(stored[name], id)
				mu.Unlock()
			}
		})
	}
	for range n {
		<-started
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if !s.caps.Survives {
		return
	}
	db = s.open(t, dir)
	defer db.Close()
	for name, want := range stored {
		wantIDs(t, Drain(t, Queue(t, db, name), everything), want...)
	}
}
