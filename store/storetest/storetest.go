// Package storetest says what every engine of package store must do, as tests.
//
// [Run] is the suite: each engine calls it from a test of its own. It knows the contract and nothing else, so what passes
// here may be put under a broker. [Failing] wraps any engine and lets a test decide which batches fail, and
// when their outcome is told.
package storetest

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"stint/store"
)

// Caps are what an engine promises beyond the common contract.
type Caps struct {
	// Survives: what was committed is there when the database is opened again in the same directory.
	Survives bool
	// Checks is how many random histories the model test tries; 0: rapid's own number.
	Checks int
}

// Run runs the suite. open opens the engine's database in a directory; the suite closes it.
func Run(t *testing.T, open func(t *testing.T, dir string) store.DB, caps Caps) {
	s := suite{open: open, caps: caps}
	for _, test := range []struct {
		name string
		run  func(*testing.T, suite)
	}{
		{"names", testNames},
		{"fields", testFields},
		{"a record that is used again", testReuse},
		{"order", testOrder},
		{"paging", testPaging},
		{"limits", testLimits},
		{"due", testDue},
		{"expired", testExpired},
		{"moves", testMoves},
		{"counters", testCounters},
		{"absent", testAbsent},
		{"aside", testSetAside},
		{"batch order", testBatchOrder},
		{"invalid batch", testInvalid},
		{"owned", testOwned},
		{"replies", testReplies},
		{"leases", testLeases},
		{"registrations", testRegistrations},
		{"dedup", testDedup},
		{"prune is bounded", testPruneBound},
		{"epoch", testEpoch},
		{"reopen", testReopen},
		{"many queues", testManyQueues},
		{"concurrent queues", testConcurrent},
		{"reads beside writes", testReadsBesideWrites},
		{"close", testClose},
		{"close under load", testCloseUnderLoad},
		{"model", testModel},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, s) })
	}
}

type suite struct {
	open func(t *testing.T, dir string) store.DB
	caps Caps
}

// db opens a database that is closed when the test ends.
func (s suite) db(t *testing.T) store.DB {
	t.Helper()
	db := s.open(t, t.TempDir())
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return db
}

func (s suite) queue(t *testing.T) store.Queue {
	t.Helper()
	return Queue(t, s.db(t), "q")
}

// Queue returns a queue of the database or ends the test.
func Queue(t testing.TB, db store.DB, name string) store.Queue {
	t.Helper()
	q, err := db.Queue(name)
	if err != nil {
		t.Fatalf("queue %q: %v", name, err)
	}
	return q
}

// Submit hands a batch over and waits for its outcome.
func Submit(q store.Queue, ops ...store.Op) error {
	done := make(chan error, 1)
	q.Submit(&store.Batch{Ops: ops, Done: func(err error) { done <- err }})
	return <-done
}

// Commit is Submit for a batch that must succeed.
func Commit(t testing.TB, q store.Queue, ops ...store.Op) {
	t.Helper()
	if err := Submit(q, ops...); err != nil {
		t.Fatalf("commit: %v", err)
	}
}

// Load is Queue.Load for one that must succeed.
func Load(t testing.TB, q store.Queue) store.Snapshot {
	t.Helper()
	s, err := q.Load()
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return s
}

// Put is the operation that puts a record.
func Put(r store.Record) store.Op { return store.Op{Kind: store.OpPut, Record: &r} }

// Delete is the operation that removes a record as it stands.
func Delete(r store.Record) store.Op {
	return store.Op{Kind: store.OpDelete, ID: r.ID, From: r.Place, Expires: r.Expires, Size: r.Size()}
}

// Move is the operation that brings a record as it stands to another place.
func Move(r store.Record, to store.Place, m store.Marks) store.Op {
	return store.Op{Kind: store.OpMove, ID: r.ID, From: r.Place, To: to, Marks: m, Expires: r.Expires, Size: r.Size()}
}

// Waiting makes a record in Ready.
func Waiting(id uint64, priority uint8, body string) store.Record {
	return store.Record{
		Item:  store.Item{ID: id, Priority: priority, Accepted: 1000 + int64(id), Body: []byte(body)},
		Place: store.Place{Area: store.Ready, Priority: priority},
	}
}

// Delayed makes a record that is due at a time.
func Delayed(id uint64, due int64, body string) store.Record {
	r := Waiting(id, 0, body)
	r.Place = store.Place{Area: store.Delayed, Due: due}
	return r
}

// Drain reads the whole of Ready, page by page.
func Drain(t testing.TB, q store.Queue, limit store.Limit) []store.Record {
	t.Helper()
	var all []store.Record
	var at store.Cursor
	for {
		p := must(t)(q.Ready(at, limit))
		if len(p.Damaged) > 0 {
			t.Fatalf("damaged records: %v", p.Damaged)
		}
		all = append(all, p.Records...)
		if !p.More {
			return all
		}
		last := p.Records[len(p.Records)-1]
		at = store.Cursor{Priority: last.Place.Priority, ID: last.ID}
	}
}

func must(t testing.TB) func(store.Page, error) store.Page {
	return func(p store.Page, err error) store.Page {
		t.Helper()
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		return p
	}
}

func ids(rs []store.Record) []uint64 {
	out := make([]uint64, len(rs))
	for i := range rs {
		out[i] = rs[i].ID
	}
	return out
}

func wantIDs(t testing.TB, got []store.Record, want ...uint64) {
	t.Helper()
	if !slices.Equal(ids(got), want) {
		t.Fatalf("items %v, want %v", ids(got), want)
	}
}

// same compares, taking nil and empty for the same.
func same(t testing.TB, what string, got, want any) {
	t.Helper()
	if d := diff(got, want); d != "" {
		t.Fatalf("%s (-want +got):\n%s", what, d)
	}
}

func diff(got, want any) string { return cmp.Diff(want, got, cmpopts.EquateEmpty()) }
