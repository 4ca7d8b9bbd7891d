package queue

import (
	"bytes"
	"container/heap"
	"strings"
	"time"

	"stint/internal/fifo"
	"stint/store"
	"stint/wire"
)

// phase says where an item in memory is.
type phase uint8

const (
	waiting  phase = iota // in the ready list
	leased                // a processor has it
	parked                // delayed or dead: leaves memory once that is committed
	replying              // never written, its final is with the bus
	gone                  // settled: leaves memory once its record is removed
)

// item is one item in memory. rec.Place is where its record shall stand, stored where the last batch put it.
type item struct {
	rec      store.Record
	size     int
	phase    phase
	spill    bool // beyond the window: dropped as soon as it is written
	counted  bool // in q.items and the window's sums
	dirty    bool // in q.dirty
	hopes    bool // in q.hopes and nowhere else
	inflight bool // in the batch under way
	changed  bool // marks differ from what is stored
	failed   bool // its insert failed while it was leased: the outcome decides

	stored      store.Place // as of the last batch taken
	leaseStored bool        // a lease record exists, or will with the batch under way
	leaseDue    bool        // a lease record shall be written
	dedupDue    bool        // its message id has to be remembered

	arrived time.Time // zero: it was read back
	shared  bool      // its body and reply are parts of the memory of a whole batch; see part
	accepts []waiter  // who waits for the accept notice
	sender  [1]waiter // memory of accepts, which usually has one
	replyTo string    // where replies go now: a conversation may have moved it
	lease   *lease
	final   *final // nil, or own
	own     final
	err     *wire.Error // failed: what to tell the sender
}

// final is the one final message of an item, on its way to disk.
type final struct {
	subject string
	header  wire.Header
	body    []byte
}

func (it *item) id() uint64 { return it.rec.ID }

// written says that the writer has the item's record, or had it and keeps it.
func (it *item) written() bool { return it.stored.Area != store.Nowhere }

// part gives an item of a batch memory of its own. One that stays long would keep that of the whole message, of which the
// rest may be done with.
func (it *item) part() {
	if !it.shared {
		return
	}
	it.shared = false
	it.rec.Body = bytes.Clone(it.rec.Body)
	own := strings.Clone(it.rec.Reply)
	if it.replyTo == it.rec.Reply {
		it.replyTo = own
	}
	it.rec.Reply = own
}

// touch puts it on the list for the next batch.
func (q *Queue) touch(it *item) {
	if !it.dirty {
		it.dirty, it.hopes = true, false
		q.dirty = append(q.dirty, it)
		q.dirtyBytes += it.size
	}
}

// hold counts it in the window.
func (q *Queue) hold(it *item) {
	q.items[it.id()] = it
	q.memBytes += it.size
	it.counted = true
}

// forget drops it from memory.
func (q *Queue) forget(it *item) {
	if it.counted {
		it.counted = false
		delete(q.items, it.id())
		q.memBytes -= it.size
	}
}

// windowRoom is how many more items memory may hold.
func (q *Queue) windowRoom() int {
	if q.memBytes >= q.opt.WindowBytes {
		return 0
	}
	return max(0, q.opt.WindowItems-len(q.items))
}

// count moves it in the counters from one area to another.
func (q *Queue) count(it *item, from, to store.Area) {
	add := func(a store.Area, n int) {
		switch a {
		case store.Ready:
			q.counts.Ready += n
		case store.Delayed:
			q.counts.Delayed += n
		case store.Dead:
			q.counts.Dead += n
		case store.Nowhere:
			q.counts.Bytes -= int64(n * it.size)
		}
	}
	if from != to {
		add(from, -1)
		add(to, 1)
	}
}

// move changes where it shall stand.
func (q *Queue) move(it *item, to store.Place) {
	q.count(it, it.rec.Place.Area, to.Area)
	it.rec.Place = to
	q.touch(it)
}

func readyPlace(it *item) store.Place {
	return store.Place{Area: store.Ready, Priority: it.rec.Priority}
}

// readyList holds the items in memory that wait, in the order of priority and id. New items come in that order and go
// to a ring; items that return go to a heap; the lesser head is next. Items that left otherwise stay as stale entries
// until they are met or are too many.
type readyList struct {
	ring  fifo.List[*item]
	back  itemHeap
	stale int
}

func (l *readyList) len() int { return l.ring.Len() + len(l.back) - l.stale }

func (l *readyList) push(it *item) {
	l.tidy()
	l.ring.Push(it)
}

func (l *readyList) giveBack(it *item) {
	l.tidy()
	heap.Push(&l.back, it)
}

// peek returns the next item, nil if none waits.
func (l *readyList) peek() *item {
	for l.ring.Len() > 0 && l.ring.First().phase != waiting {
		l.ring.Pop()
		l.stale--
	}
	for len(l.back) > 0 && l.back[0].phase != waiting {
		heap.Pop(&l.back)
		l.stale--
	}
	switch {
	case len(l.back) == 0 && l.ring.Len() == 0:
		return nil
	case len(l.back) == 0:
		return l.ring.First()
	case l.ring.Len() == 0 || less(l.back[0], l.ring.First()):
		return l.back[0]
	}
	return l.ring.First()
}

// pop removes what peek returned.
func (l *readyList) pop(it *item) {
	if len(l.back) > 0 && l.back[0] == it {
		heap.Pop(&l.back)
		return
	}
	l.ring.Pop()
}

// lost notes that an item in the list waits no longer, or will not when the step ends.
func (l *readyList) lost() { l.stale++ }

// tidy drops the stale entries when they are too many.
func (l *readyList) tidy() {
	if l.stale < 1024 || l.stale*2 < l.ring.Len()+len(l.back) {
		return
	}
	for range l.ring.Len() {
		if it := l.ring.Pop(); it.phase == waiting {
			l.ring.Push(it)
		}
	}
	back := l.back[:0]
	for _, it := range l.back {
		if it.phase == waiting {
			back = append(back, it)
		}
	}
	clear(l.back[len(back):])
	l.back = back
	heap.Init(&l.back)
	l.stale = 0
}

func less(a, b *item) bool {
	if a.rec.Priority != b.rec.Priority {
		return a.rec.Priority < b.rec.Priority
	}
	return a.rec.ID < b.rec.ID
}

type itemHeap []*item

func (h itemHeap) Len() int           { return len(h) }
func (h itemHeap) Less(i, j int) bool { return less(h[i], h[j]) }
func (h itemHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *itemHeap) Push(x any)        { *h = append(*h, x.(*item)) }
func (h *itemHeap) Pop() any {
	old := *h
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return it
}

func millis(t time.Time) int64 { return t.UnixMilli() }
