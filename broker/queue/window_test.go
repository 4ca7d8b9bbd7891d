package queue

import (
	"fmt"
	"testing"
	"time"

	"stint/store"
)

func TestTheBacklogStaysOnDiskAndComesBackInOrder(t *testing.T) {
	w := testWorld(t, Config{WindowItems: 4})
	for n := range 50 {
		w.send(fmt.Sprintf("s%02d", n))
		if len(w.q.items) > 4 {
			t.Fatalf("%d items are in memory", len(w.q.items))
		}
	}
	w.register("p1", 1)
	w.said = nil
	for n := range 50 {
		s := fmt.Sprintf("s%02d", n)
		w.advance(time.Millisecond)
		w.answer(s, 1, "")
		next := fmt.Sprintf("p1: work s%02d #1", n+1)
		if n == 49 {
			w.want("r.s49: final ")
		} else {
			w.want(next, "r."+s+": final ")
		}
	}
}

func TestTheWindowIsBoundedInBytes(t *testing.T) {
	w := testWorld(t, Config{WindowBytes: 20})
	for n := range 9 {
		w.send(fmt.Sprintf("s%d", n))
	}
	if len(w.q.items) != 4 || w.q.memBytes < 20 || w.q.spilled != 5 {
		t.Errorf("%d items and %d bytes in memory, %d beyond", len(w.q.items), w.q.memBytes, w.q.spilled)
	}
}

func TestAWindowOfOneItemStillMoves(t *testing.T) {
	w := testWorld(t, Config{WindowItems: 1})
	w.send("s1")
	w.send("s2")
	w.register("p1", 5)
	w.answer("s1", 1, "")
	w.want("a.s1: accepted s1", "a.s2: accepted s2", "p1: work s1 #1", "reg.p1: ok", "r.s1: final ", "p1: work s2 #1")
}

func TestWhenAllOfTheWindowIsLeasedNothingMoreIsGivenOut(t *testing.T) {
	w := testWorld(t, Config{WindowItems: 2})
	w.register("p1", 9)
	for _, s := range []string{"s1", "s2", "s3"} {
		w.send(s)
	}
	w.want("reg.p1: ok", "p1: work s1 #1", "a.s1: accepted s1", "p1: work s2 #1", "a.s2: accepted s2", "a.s3: accepted s3")
	w.answer("s2", 1, "")
	w.want("r.s2: final ", "p1: work s3 #1")
}

func TestADamagedRecordIsSetAsideOnce(t *testing.T) {
	w := testWorld(t, Config{WindowItems: 2})
	for _, s := range []string{"s1", "s2", "s3", "s4"} {
		w.send(s, ttl(time.Second))
	}
	w.m.spoilt[w.id("s3")] = true
	w.auto = false
	w.advance(2 * time.Second) // found as expired, perhaps again and again until that is committed
	w.register("p1", 1)
	w.auto = true
	w.commit(nil)
	w.do(Tick{})
	if c := w.counts(); c.Damaged != 1 || c.Ready != 0 || w.q.spilled != 0 || !w.m.aside[w.id("s3")] {
		t.Errorf("%+v is counted, %d spilled", c, w.q.spilled)
	}
}

func TestADamagedRecordDoesNotStopTheRest(t *testing.T) {
	w := testWorld(t, Config{WindowItems: 2})
	for _, s := range []string{"s1", "s2", "s3", "s4"} {
		w.send(s)
	}
	w.m.spoilt[w.id("s3")] = true
	w.said = nil
	w.register("p1", 4)
	w.answer("s1", 1, "")
	w.answer("s2", 1, "")
	w.want("p1: work s1 #1", "p1: work s2 #1", "reg.p1: ok", "r.s1: final ", "p1: work s4 #1", "r.s2: final ")
}

func TestAWrongCounterIsCorrected(t *testing.T) {
	m := newModel()
	snap := m.load()
	snap.Counts.Ready = 3
	q := New(Options{Config: Config{Address: "q"}.WithDefaults(true), Persistent: true}, snap, start)
	var out Out
	q.Step(start, Tick{}, &out)
	q.Step(start, &Paged{Kind: ReadReady}, &out)
	if q.spilled != 0 || q.counts.Ready != 0 || len(out.Notes) != 1 {
		t.Errorf("%d spilled, %+v, notes %v", q.spilled, q.counts, out.Notes)
	}
}

// The list of what waits is tidied when a thousand entries are stale.
func TestManyItemsThatLeaveTheListOtherwise(t *testing.T) {
	w := testWorld(t, Config{MaxItems: 10_000})
	w.auto = false
	w.do(&Unregistered{Processor: "nobody"})
	var evs []Event
	for n := range 3000 {
		evs = append(evs, &Sent{Body: []byte{byte(n)}})
	}
	var out Out
	for _, ev := range evs {
		w.q.Step(w.now, ev, &out)
	}
	w.q.Step(w.now, Stored{Err: store.ErrFull}, &out)
	w.q.Step(w.now, Stored{}, &out)
	w.q.Step(w.now, evs[0], &out)
	if n := w.q.ready.ring.Len(); n != 1 || w.q.ready.len() != 1 {
		t.Errorf("%d entries, %d of them wait; want 1", n, w.q.ready.len())
	}
}

func TestTidyingKeepsWhatWaitsInOrder(t *testing.T) {
	var l readyList
	var all []*item
	for n := range uint64(1501) {
		it := &item{}
		it.rec.ID = n*7%1501 + 1 // each once, in no order
		all = append(all, it)
		l.giveBack(it)
	}
	for _, it := range all {
		if it.rec.ID%5 != 0 {
			l.lost()
			it.phase = gone
		}
	}
	l.push(&item{rec: store.Record{Item: store.Item{ID: 9999}}})
	if n := len(l.back); n > 310 {
		t.Errorf("%d entries are left of 300", n)
	}
	for n := uint64(5); n <= 1500; n += 5 {
		it := l.peek()
		if it == nil || it.id() != n {
			t.Fatalf("%v comes in place of %d", it, n)
		}
		l.pop(it)
	}
	if it := l.peek(); it == nil || it.id() != 9999 || l.len() != 1 {
		t.Errorf("%d are left", l.len())
	}
}
