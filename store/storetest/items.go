package storetest

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"stint/store"
)

var everything = store.Limit{Records: 1000, Bytes: 1 << 30}

func testNames(t *testing.T, s suite) {
	db := s.db(t)
	Queue(t, db, "a")
	if _, err := db.Queue("a"); err == nil {
		t.Error("a queue can be had twice")
	}
	if _, err := db.Queue(""); err == nil {
		t.Error("a queue can be had without a name")
	}
	Queue(t, db, "b/c d\x00e")
}

// full is a record with every field set.
func full(id uint64) store.Record {
	return store.Record{
		Item: store.Item{
			ID: id, Priority: 7, Accepted: 1700000000123, Expires: 1800000000456, Timeout: 30000, MaxAttempts: 5,
			Progress: true, Reply: "_INBOX.abc.1", MsgID: "m-1",
			Header: map[string][]string{"A": {"1", "2"}, "B": {""}, "traceparent": {"00-x"}},
			Body:   []byte("\x00\xffbody"),
		},
		Marks: store.Marks{
			Epoch: 9, Deliveries: 4, Attempts: 3, Deaths: 2, Code: "dead", Reason: "failed three times",
		},
		Place: store.Place{Area: store.Ready, Priority: 7},
	}
}

func testFields(t *testing.T, s suite) {
	q := s.queue(t)
	r := full(1<<41 + 1)
	Commit(t, q, Put(r), Put(Waiting(1<<41+2, 200, "")))
	got := Drain(t, q, everything)
	want := Waiting(1<<41+2, 200, "")
	same(t, "records", got, []store.Record{r, want})

	at := store.Place{Area: store.Dead}
	m := store.Marks{Epoch: 10, Deliveries: 5, Attempts: 4, Code: "dead", Reason: strings.Repeat("x", 3000)}
	Commit(t, q, Move(r, at, m), Move(want, store.Place{Area: store.Delayed, Due: -5}, m))
	r.Place, r.Marks = at, m
	same(t, "expired", must(t)(q.Expired(r.Expires, everything)).Records, []store.Record{r})
	want.Place, want.Marks = store.Place{Area: store.Delayed, Due: -5}, m
	same(t, "due", must(t)(q.Due(0, everything)).Records, []store.Record{want})
}

// testReuse has what Record pointed to used for something else once the batch is done.
func testReuse(t *testing.T, s suite) {
	q := s.queue(t)
	r := full(1<<41 + 1)
	op := Put(r)
	Commit(t, q, op)
	*op.Record = Waiting(1<<41+2, 3, "another")
	same(t, "records", Drain(t, q, everything), []store.Record{r})
}

func testOrder(t *testing.T, s suite) {
	q := s.queue(t)
	Commit(t, q, Put(Waiting(5, 1, "")), Put(Waiting(3, 1, "")), Put(Waiting(9, 0, "")))
	Commit(t, q, Put(Waiting(4, 1, "")), Put(Waiting(1<<40, 255, "")), Put(Waiting(256, 1, "")))
	wantIDs(t, Drain(t, q, everything), 9, 3, 4, 5, 256, 1<<40)
	p := must(t)(q.Ready(store.Cursor{Priority: 1, ID: 4}, everything))
	wantIDs(t, p.Records, 5, 256, 1<<40)
	p = must(t)(q.Ready(store.Cursor{Priority: 1, ID: 200}, everything))
	wantIDs(t, p.Records, 256, 1<<40)
	p = must(t)(q.Ready(store.Cursor{Priority: 255, ID: 1<<64 - 1}, everything))
	wantIDs(t, p.Records)
}

func testPaging(t *testing.T, s suite) {
	q := s.queue(t)
	const n = 3000
	var ops []store.Op
	for id := uint64(1); id <= n; id++ {
		ops = append(ops, Put(Waiting(id, uint8(id%3), strings.Repeat("b", int(id%200)))))
	}
	Commit(t, q, ops...)
	got := ids(Drain(t, q, store.Limit{Records: 64, Bytes: 1 << 20}))
	if len(got) != n || !slices.IsSortedFunc(got, func(a, b uint64) int {
		if d := int(a%3) - int(b%3); d != 0 {
			return d
		}
		return int(a) - int(b)
	}) {
		t.Fatalf("%d items in this order: %v", len(got), got)
	}
}

func testLimits(t *testing.T, s suite) {
	q := s.queue(t)
	for id := uint64(1); id <= 4; id++ {
		Commit(t, q, Put(Waiting(id, 0, strings.Repeat("x", 100))))
	}
	for _, test := range []struct {
		limit store.Limit
		n     int
		more  bool
	}{
		{store.Limit{Records: 2, Bytes: 1000}, 2, true},
		{store.Limit{Records: 4, Bytes: 1000}, 4, false},
		{store.Limit{Records: 9, Bytes: 250}, 2, true},
		{store.Limit{Records: 9, Bytes: 300}, 3, true},
		{store.Limit{Records: 9, Bytes: 400}, 4, false},
		{store.Limit{Records: 9, Bytes: 1}, 1, true},
		{store.Limit{Bytes: 200}, 2, true},
		{store.Limit{Records: 1}, 1, true},
		{store.Limit{}, 4, false},
	} {
		p := must(t)(q.Ready(store.Cursor{}, test.limit))
		if len(p.Records) != test.n || p.More != test.more {
			t.Errorf("%+v: %d records, more %v; want %d, %v", test.limit, len(p.Records), p.More, test.n, test.more)
		}
	}
}

func testDue(t *testing.T, s suite) {
	q := s.queue(t)
	same(t, "next due of an empty queue", Load(t, q).NextDue, int64(0))
	Commit(t, q, Put(Delayed(1, 500, "a")), Put(Delayed(2, 300, "b")), Put(Delayed(3, 300, "c")), Put(Delayed(4, -10, "d")),
		Put(Waiting(5, 0, "e")))
	same(t, "next due", Load(t, q).NextDue, int64(-10))
	check := func(now int64, limit store.Limit, next int64, more bool, want ...uint64) {
		t.Helper()
		p := must(t)(q.Due(now, limit))
		wantIDs(t, p.Records, want...)
		if p.Next != next || p.More != more {
			t.Fatalf("at %d: next %d, more %v; want %d, %v", now, p.Next, p.More, next, more)
		}
	}
	check(-11, everything, -10, false)
	check(-10, everything, 300, false, 4)
	check(300, everything, 500, false, 4, 2, 3)
	check(300, store.Limit{Records: 2}, 300, true, 4, 2)
	check(499, everything, 500, false, 4, 2, 3)
	check(500, everything, 0, false, 4, 2, 3, 1)
}

func testExpired(t *testing.T, s suite) {
	q := s.queue(t)
	rs := []store.Record{Waiting(1, 3, "a"), Delayed(2, 9000, "b"), Waiting(3, 0, "c"), Waiting(4, 0, "d")}
	rs[0].Expires, rs[1].Expires, rs[2].Expires = 700, 600, 600
	for _, r := range rs {
		Commit(t, q, Put(r))
	}
	same(t, "next expiry", Load(t, q).NextExpiry, int64(600))
	p := must(t)(q.Expired(600, everything))
	same(t, "expired", p.Records, []store.Record{rs[1], rs[2]})
	same(t, "next", p.Next, int64(700))

	dead := store.Place{Area: store.Dead}
	Commit(t, q, Move(rs[1], dead, store.Marks{Code: "x"}), store.Op{Kind: store.OpUnexpire, ID: 3, Expires: 600})
	rs[1].Place, rs[1].Marks = dead, store.Marks{Code: "x"}
	p = must(t)(q.Expired(1000, everything))
	same(t, "after a move", p.Records, []store.Record{rs[1], rs[0]})
	same(t, "next", p.Next, int64(0))

	Commit(t, q, Delete(rs[1]), Move(rs[2], dead, store.Marks{}))
	wantIDs(t, must(t)(q.Expired(1000, everything)).Records, 1)
	same(t, "next expiry", Load(t, q).NextExpiry, int64(700))
}

func testMoves(t *testing.T, s suite) {
	q := s.queue(t)
	r := Waiting(1, 2, "body")
	Commit(t, q, Put(r), Put(Waiting(2, 2, "")))
	places := []store.Place{
		{Area: store.Delayed, Due: 50},
		{Area: store.Delayed, Due: 70},
		{Area: store.Ready, Priority: 2},
		{Area: store.Ready, Priority: 2}, // the same: only the marks change
		{Area: store.Dead},
		{Area: store.Ready, Priority: 1},
	}
	for i, to := range places {
		m := store.Marks{Attempts: uint32(i + 1)}
		Commit(t, q, Move(r, to, m))
		r.Place, r.Marks = to, m
	}
	same(t, "ready", Drain(t, q, everything), []store.Record{r, Waiting(2, 2, "")})
	same(t, "due", must(t)(q.Due(100, everything)).Records, []store.Record{})
	c := Load(t, q).Counts
	same(t, "counts", c, store.Counts{Ready: 2, Bytes: 4})
}

func testCounters(t *testing.T, s suite) {
	q := s.queue(t)
	a, b, c := full(1), Delayed(2, 5, "12345"), Waiting(3, 0, "123")
	Commit(t, q, Put(a), Put(b), Put(c))
	want := store.Counts{Ready: 2, Delayed: 1, Bytes: int64(a.Size() + 8)}
	same(t, "after puts", Load(t, q).Counts, want)
	dead := store.Place{Area: store.Dead}
	Commit(t, q, Move(a, dead, store.Marks{Reason: "r"}), Delete(c))
	want = store.Counts{Delayed: 1, Dead: 1, Bytes: int64(a.Size() + 5)}
	same(t, "after a move and a delete", Load(t, q).Counts, want)
	a.Place = dead
	Commit(t, q, Delete(a), Delete(b))
	same(t, "at the end", Load(t, q).Counts, store.Counts{})
}

// testAbsent: changes to what is not there do nothing.
func testAbsent(t *testing.T, s suite) {
	q := s.queue(t)
	r := Waiting(1, 0, "x")
	Commit(t, q, Put(r))
	gone := Waiting(2, 0, "yy")
	elsewhere := Delayed(1, 5, "x")
	Commit(t, q, Delete(gone), Delete(elsewhere), Move(gone, store.Place{Area: store.Dead}, store.Marks{}),
		store.Op{Kind: store.OpSetAside, ID: 2, From: gone.Place}, store.Op{Kind: store.OpSetAside, ID: 1},
		store.Op{Kind: store.OpUnexpire, ID: 1, Expires: 4}, store.Op{Kind: store.OpDeleteLease, ID: 1},
		store.Op{Kind: store.OpDeleteReply, ID: 1}, store.Op{Kind: store.OpPruneDedup, Expires: 1 << 50},
		store.Op{Kind: store.OpDeleteRegistration, Registration: store.Registration{Processor: "p"}})
	same(t, "counts", Load(t, q).Counts, store.Counts{Ready: 1, Bytes: 1})
	same(t, "ready", Drain(t, q, everything), []store.Record{r})
	same(t, "dead", Load(t, q).Counts.Dead, 0)
}

func testSetAside(t *testing.T, s suite) {
	q := s.queue(t)
	a, b := Waiting(1, 0, "abc"), Waiting(2, 0, "d")
	a.Expires = 50
	Commit(t, q, Put(a), Put(b), store.Op{Kind: store.OpPutLease, Lease: store.Lease{ID: 1, Attempt: 1, Processor: "p"}})
	Commit(t, q, store.Op{Kind: store.OpSetAside, ID: 1, From: a.Place})
	wantIDs(t, Drain(t, q, everything), 2)
	wantIDs(t, must(t)(q.Expired(100, everything)).Records)
	snap := Load(t, q)
	same(t, "counts", snap.Counts, store.Counts{Ready: 1, Bytes: 1, Damaged: 1})
	same(t, "leases", snap.Leases, []store.LeasedRecord{})
}

// testBatchOrder: operations act in order, within a batch and across batches.
func testBatchOrder(t *testing.T, s suite) {
	q := s.queue(t)
	r := Waiting(1, 0, "x")
	later := r
	later.Place = store.Place{Area: store.Delayed, Due: 9}
	Commit(t, q, Put(r), Move(r, later.Place, store.Marks{}), Delete(later), Put(Waiting(2, 0, "")))
	wantIDs(t, Drain(t, q, everything), 2)

	var order []int
	done := make(chan struct{})
	for i := range 100 {
		q.Submit(&store.Batch{
			Ops: []store.Op{Put(Waiting(uint64(100+i), 0, "")), Delete(Waiting(uint64(99+i), 0, ""))},
			Done: func(err error) {
				if err != nil {
					t.Errorf("batch %d: %v", i, err)
				}
				if order = append(order, i); len(order) == 100 {
					close(done)
				}
			},
		})
	}
	<-done
	if !slices.IsSorted(order) {
		t.Errorf("done in the order %v", order)
	}
	wantIDs(t, Drain(t, q, everything), 2, 199)
}

// testInvalid: a batch with an operation that cannot be stored leaves nothing behind, and harms no other.
func testInvalid(t *testing.T, s suite) {
	q := s.queue(t)
	good := Put(Waiting(1, 0, ""))
	for name, op := range map[string]store.Op{
		"unknown kind":    {Kind: 99},
		"no record":       {Kind: store.OpPut},
		"no id":           Put(Waiting(0, 0, "")),
		"nowhere":         Put(store.Record{Item: store.Item{ID: 5}}),
		"move to nowhere": {Kind: store.OpMove, ID: 1, From: store.Place{Area: store.Ready}},
		"no message id":   {Kind: store.OpPutDedup},
		"long message id": {Kind: store.OpPutDedup, Dedup: store.Dedup{MsgID: strings.Repeat("x", store.MaxKey+1)}},
		"no processor":    {Kind: store.OpPutRegistration},
		"no reply":        {Kind: store.OpPutReply},
	} {
		if err := Submit(q, good, op); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	same(t, "counts", Load(t, q).Counts, store.Counts{})
	Commit(t, q, good, store.Op{Kind: store.OpPutDedup, Dedup: store.Dedup{MsgID: strings.Repeat("x", store.MaxKey)}})
}

// testOwned: what was read may be changed by the one who read it.
func testOwned(t *testing.T, s suite) {
	q := s.queue(t)
	r := full(1)
	Commit(t, q, Put(r), store.Op{Kind: store.OpPutReply, Reply: &store.Reply{ID: 7, Body: []byte("abc")}})
	want := full(1)
	got := Drain(t, q, everything)[0]
	clear(got.Body)
	got.Header["A"][0] = "changed"
	got.Header["new"] = nil
	same(t, "record", Drain(t, q, everything)[0], want)
	reply, _, err := q.Reply(7)
	if err != nil {
		t.Fatal(err)
	}
	clear(reply.Body)
	reply, _, _ = q.Reply(7)
	same(t, "reply", string(reply.Body), "abc")
}
