package bolt

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"stint/store"
	"stint/store/storetest"
)

// group is one batch of a queue, as a round holds it.
type group struct {
	q   store.Queue
	ops []store.Op
}

// replay brings groups into the file in one round, as the writer does, which must be idle. It returns how many bytes of
// values were put.
func replay(t testing.TB, db *DB, groups ...group) (written int64) {
	t.Helper()
	var contents [][]byte
	var scratch [2 * maxPlaceKey]byte
	for _, g := range groups {
		contents = append(contents, appendPart(nil, g.q.(*Queue), g.ops, &scratch))
	}
	r := &round{each: func(yield func([]byte) error) error {
		for _, c := range contents {
			if err := yield(c); err != nil {
				return err
			}
		}
		return nil
	}}
	err := db.writer.transact(func(t *txn) error {
		if err := r.apply(t); err != nil {
			return err
		}
		written = t.bytes
		return t.flush()
	})
	if err != nil {
		t.Fatal(err)
	}
	return written
}

// TestReplaySame: a round makes the same of a queue as its batches one by one, in a queue that is empty and in one that is not.
func TestReplaySame(t *testing.T) {
	db := mustOpen(t, t.TempDir(), small)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		once, each := storetest.Queue(t, db, fmt.Sprint("once", n)), storetest.Queue(t, db, fmt.Sprint("each", n))
		w := &drawer{roll: func(n int) int { return rapid.IntRange(0, n-1).Draw(rt, "roll") }}
		for range 2 {
			var groups []group
			for range 1 + w.roll(8) {
				ops := w.batch()
				storetest.Commit(t, each, ops...)
				groups = append(groups, group{once, ops})
			}
			replay(t, db, groups...)
			if d := diffSeen(mustLook(t, each), mustLook(t, once)); d != "" {
				rt.Fatalf("(-one by one +in a round)\n%s", d)
			}
		}
	})
}

// cancelCase is a history within one round, with what stood in the file before.
type cancelCase struct {
	name   string
	before []store.Op
	ops    []store.Op
	spared bool // nothing is written
}

func cancelCases() []cancelCase {
	ready, later, dead := storetest.Waiting(1, 0, "body"), storetest.Delayed(1, 5, "body"), storetest.Waiting(1, 0, "body")
	dead.Place = store.Place{Area: store.Dead}
	expires := ready
	expires.Expires = 9
	lease := store.Op{Kind: store.OpPutLease, Lease: store.Lease{ID: 1, Attempt: 1, Processor: "p"}}
	unlease, unexpire := store.Op{Kind: store.OpDeleteLease, ID: 1}, store.Op{Kind: store.OpUnexpire, ID: 1, Expires: 9}
	put, del := storetest.Put(ready), storetest.Delete(ready)
	leased := del
	leased.Leased = true
	unexpired := storetest.Delete(expires)
	unexpired.Expires = 0
	away, nowhere := store.Op{Kind: store.OpSetAside, ID: 1, From: ready.Place}, store.Op{Kind: store.OpSetAside, ID: 1}
	reply := store.Op{Kind: store.OpPutReply, Reply: &store.Reply{ID: 1, Subject: "new"}}
	old := store.Op{Kind: store.OpPutReply, Reply: &store.Reply{ID: 1, Subject: "old"}}
	unreply := store.Op{Kind: store.OpDeleteReply, ID: 1}
	list := func(ops ...store.Op) []store.Op { return ops }
	move := storetest.Move(ready, later.Place, store.Marks{Attempts: 1})
	return []cancelCase{
		{"put, delete", nil, list(put, del), true},
		{"put, move, delete", nil, list(put, move, storetest.Delete(later)), true},
		{"put, move twice, delete", nil, list(put, move, storetest.Move(later, dead.Place, store.Marks{}), storetest.Delete(dead)), true},
		{"put, lease, delete", nil, list(put, lease, leased), true},
		{"put, lease, unlease, delete", nil, list(put, lease, unlease, del), true},
		{"put, delete, with expiry", nil, list(storetest.Put(expires), storetest.Delete(expires)), true},
		{"put, unexpire, delete", nil, list(storetest.Put(expires), unexpire, unexpired), true},
		{"reply, delete", nil, list(reply, unreply), true},
		{"reply over an old one, delete", list(old), list(reply, unreply), true},
		{"reply, delete, reply", nil, list(old, unreply, reply), false},
		{"put, set aside", nil, list(put, away), false},
		{"put, set aside, delete", nil, list(put, away, del), false},
		{"put, delete, set aside", nil, list(put, del, away), false},
		{"put, set aside nowhere, delete", nil, list(put, nowhere, del), false},
		{"put, delete from elsewhere", nil, list(put, storetest.Delete(later)), false},
		{"put, delete after a move", nil, list(put, move, del), false},
		{"put, move from elsewhere, delete", nil, list(put, storetest.Move(later, dead.Place, store.Marks{}), storetest.Delete(dead)), false},
		{"put, delete, put", nil, list(put, del, storetest.Put(later)), false},
		{"delete of what is in the file", list(put), list(del), true},
		{"move of what is in the file, delete", list(put), list(move, storetest.Delete(later)), false},
		{"lease of what is in the file, delete", list(put), list(lease, leased), false},
	}
}

// TestCancel: what is put and removed again in one round is not written, and the result is the same as if it were.
func TestCancel(t *testing.T) {
	db := mustOpen(t, t.TempDir(), small)
	for _, c := range cancelCases() {
		t.Run(c.name, func(t *testing.T) {
			// Another item, so that both queues exist; and another queue with the same id, which is not concerned.
			other := storetest.Put(storetest.Waiting(7, 0, "other"))
			once, each := storetest.Queue(t, db, "once "+c.name), storetest.Queue(t, db, "each "+c.name)
			beside := storetest.Queue(t, db, "beside "+c.name)
			for _, q := range []store.Queue{once, each, beside} {
				storetest.Commit(t, q, append(c.before, other)...)
			}
			storetest.Commit(t, each, c.ops...)
			want := mustLook(t, beside)
			unrelated := storetest.Put(storetest.Waiting(1, 0, "of the queue beside"))
			var groups []group
			for _, op := range c.ops {
				groups = append(groups, group{once, []store.Op{op}}, group{beside, nil})
			}
			if written := replay(t, db, groups...); (written == 0) != c.spared {
				t.Errorf("%d bytes were written", written)
			}
			if d := diffSeen(mustLook(t, each), mustLook(t, once)); d != "" {
				t.Errorf("(-one by one +in a round)\n%s", d)
			}
			if d := diffSeen(want, mustLook(t, beside)); d != "" {
				t.Errorf("the queue beside: %s", d)
			}
			if len(c.before) > 0 {
				return
			}
			replay(t, db, append([]group{{beside, []store.Op{unrelated}}}, groups...)...)
			wantIDs(t, beside, 1, 7)
		})
	}
}
