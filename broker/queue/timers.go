package queue

import (
	"fmt"
	"math"

	"stint/internal/defect"
	"stint/store"
	"stint/wire"
)

// timers does what has become due.
func (q *Queue) timers() {
	q.endTimedOut()
	q.endGrace()
	q.writeOldLeases()
	q.readDue()
	q.flush()
	q.probe()
	q.prune()
	q.retryAbsent()
	q.dropAbsent()
}

func (q *Queue) endTimedOut() {
	for l := q.ends.first(); l != nil && !l.deadline.After(q.now) && !defect.NoLeaseTimer; l = q.ends.first() {
		q.ends.remove(l)
		if l.it != nil {
			q.timedOut(l)
		}
		if l.reg.removed || l.beforeGap {
			q.endLate(l)
		} else {
			l.reg.withheld = true
		}
	}
}

// timedOut gives an item whose processor was silent for the process timeout to another. The slot stays taken: the
// processor is perhaps still at work on it.
func (q *Queue) timedOut(l *lease) {
	q.stats.TimedOut++
	it := l.it
	q.detach(l)
	q.makeLate(l)
	q.attempted(it, 0, fmt.Sprintf("no answer within the process timeout of %d ms", l.timeout.Milliseconds()))
}

// writeOldLeases marks leases for writing that have outlived leaseWriteAfter.
func (q *Queue) writeOldLeases() {
	if !q.opt.Persistent {
		return
	}
	for l := q.byAge.head; l != nil && q.now.Sub(l.started) >= leaseWriteAfter; l = q.byAge.head {
		q.byAge.remove(l)
		l.it.part()
		l.it.leaseDue = true
		q.touch(l.it)
	}
}

// readDue asks for delayed items whose time has come, and for items that have expired.
func (q *Queue) readDue() {
	now := millis(q.now)
	if q.ending {
		now = math.MaxInt64 // no time is left to wait for
	}
	if q.nextDue != 0 && q.nextDue <= now && !q.dueBusy && (!q.stopping || q.ending) {
		if room := q.windowRoom(); room > 0 {
			q.dueBusy = true
			q.out.Reads = append(q.out.Reads, Read{Kind: ReadDue, Now: now, Limit: readLimit(min(room, 256))})
		}
	}
	if q.nextExpiry != 0 && q.nextExpiry <= now && !q.expiryBusy && !q.ending {
		q.expiryBusy = true
		q.out.Reads = append(q.out.Reads, Read{Kind: ReadExpired, Now: now, Limit: readLimit(256)})
	}
}

func readLimit(n int) store.Limit { return store.Limit{Records: min(n, pageRecords), Bytes: pageBytes} }

// page asks for the next part of the backlog when the window has room for it.
func (q *Queue) page() {
	room := q.windowRoom()
	if q.spilled == 0 || q.paging || q.pageWait || room == 0 || q.broken {
		return
	}
	if q.ready.len() >= max(1, q.opt.WindowItems/2) || (q.ready.len() > 0 && room < min(pageRecords, q.opt.WindowItems/4)) {
		return
	}
	q.paging = true
	q.out.Reads = append(q.out.Reads, Read{Kind: ReadReady, After: q.cursor, Limit: readLimit(room)})
}

// paged takes in what was read.
func (q *Queue) paged(e *Paged) {
	for i := range e.Page.Damaged {
		q.setAside(&e.Page.Damaged[i])
	}
	switch e.Kind {
	case ReadReady:
		q.pagedReady(&e.Page)
	case ReadDue:
		q.pagedDue(&e.Page)
	case ReadExpired:
		q.pagedExpired(&e.Page)
	}
}

func (q *Queue) pagedReady(p *store.Page) {
	q.paging = false
	for i := range p.Records {
		rec := &p.Records[i]
		q.advance(rec.Priority, rec.ID)
		if q.items[rec.ID] != nil {
			continue
		}
		q.spilled--
		if it := q.load(*rec); q.expired(it) {
			q.expire(it)
		} else {
			q.ready.push(it)
		}
	}
	for i := range p.Damaged {
		q.advance(p.Damaged[i].Place.Priority, p.Damaged[i].ID)
	}
	q.pageWait = !p.More && q.spilled > 0
	if q.pageWait && q.underway == nil && len(q.dirty) == 0 {
		q.note("the queue's counter of waiting items was wrong and has been corrected", 0, fmt.Sprint(q.spilled))
		q.counts.Ready -= q.spilled
		q.spilled, q.pageWait = 0, false
	}
}

func (q *Queue) advance(priority uint8, id uint64) {
	c := store.Cursor{Priority: priority, ID: id}
	if q.beyond(c) {
		q.cursor = c
	}
}

// beyond says that a position in Ready has not been in memory yet.
func (q *Queue) beyond(c store.Cursor) bool {
	return c.Priority > q.cursor.Priority || c.Priority == q.cursor.Priority && c.ID > q.cursor.ID
}

// pagedDue makes delayed items available whose time has come. dueBusy stays until that is committed: until then a
// read would find them again.
func (q *Queue) pagedDue(p *store.Page) {
	q.nextDue = p.Next
	for i := range p.Records {
		if q.items[p.Records[i].ID] != nil {
			continue
		}
		it := q.load(p.Records[i])
		if q.expired(it) {
			q.expire(it)
			continue
		}
		q.move(it, readyPlace(it))
		q.ready.giveBack(it)
	}
	q.dueBusy = len(p.Records)+len(p.Damaged) > 0
}

// pagedExpired settles items that have waited too long. One that a processor has is only taken out of the index; if it
// comes back it expires then.
func (q *Queue) pagedExpired(p *store.Page) {
	q.nextExpiry = p.Next
	for i := range p.Records {
		rec := &p.Records[i]
		it := q.items[rec.ID]
		switch {
		case it == nil:
			if rec.Place.Area == store.Ready && q.beyond(store.Cursor{Priority: rec.Priority, ID: rec.ID}) {
				q.spilled--
			}
			if rec.Place.Area != store.Dead {
				q.expire(q.load(*rec))
				continue
			}
		case it.phase == waiting:
			q.ready.lost()
			q.expire(it)
			continue
		case it.phase == parked && it.rec.Place.Area == store.Delayed:
			q.expire(it)
			continue
		}
		q.extra = append(q.extra, store.Op{Kind: store.OpUnexpire, ID: rec.ID, Expires: rec.Expires})
	}
	q.expiryBusy = len(p.Records)+len(p.Damaged) > 0
}

// setAside moves a damaged record out of the way and reports it. Until that is committed other reads find it as well,
// and an item that was read while it was whole needs its record no more.
func (q *Queue) setAside(d *store.Damage) {
	if q.aside[d.ID] || q.items[d.ID] != nil {
		return
	}
	q.aside[d.ID] = true
	if d.Place.Area == store.Ready && q.beyond(store.Cursor{Priority: d.Place.Priority, ID: d.ID}) {
		q.spilled--
	}
	q.extra = append(q.extra, store.Op{Kind: store.OpSetAside, ID: d.ID, From: d.Place})
	q.counts.Damaged++
	switch d.Place.Area {
	case store.Ready:
		q.counts.Ready--
	case store.Delayed:
		q.counts.Delayed--
	case store.Dead:
		q.counts.Dead--
	}
	q.note("a damaged record was set aside, its item is not delivered", d.ID, d.Err.Error())
}

// dedupAge counts message ids on record that expire within one second.
type dedupAge struct {
	expires int64 // Unix milliseconds, rounded up to the second
	n       int
}

// prunedAtOnce is how many message ids one store.OpPruneDedup forgets.
const prunedAtOnce = 1000

// remembered counts a message id that is now on record.
func (q *Queue) remembered() {
	q.counts.Dedup++
	expires := (millis(q.now.Add(q.opt.DedupWindow))/1000 + 1) * 1000
	if n := len(q.dedupAges); n > 0 && q.dedupAges[n-1].expires >= expires {
		q.dedupAges[n-1].n++
		return
	}
	q.dedupAges = append(q.dedupAges, dedupAge{expires, 1})
}

// prune lets the store forget message ids that are older than the window, a bounded number with each batch.
func (q *Queue) prune() {
	if len(q.dedupAges) == 0 || q.dedupAges[0].expires > millis(q.now) || q.underway != nil || q.broken {
		return
	}
	a := &q.dedupAges[0]
	n := min(a.n, prunedAtOnce)
	a.n -= n
	q.counts.Dedup -= n
	q.extra = append(q.extra, store.Op{Kind: store.OpPruneDedup, Expires: a.expires})
	if a.n == 0 {
		q.dedupAges = q.dedupAges[1:]
	}
}

// leave marks the leases of everything that is still out for writing. A queue in memory ends with the process: all of
// its senders are told, see dismiss.
func (q *Queue) leave() {
	if !q.opt.Persistent {
		q.ending = true
		for l := q.byAge.head; l != nil; l = q.byAge.head {
			it := l.it
			q.endLease(l)
			it.phase = gone
			q.endUnavailable(it)
		}
		return
	}
	for l := q.byAge.head; l != nil; l = q.byAge.head {
		q.byAge.remove(l)
		l.it.leaseDue = true
		q.touch(l.it)
	}
}

// dismiss tells the senders of all that waits in a queue that ends. What is beyond the window follows as it is read.
func (q *Queue) dismiss() {
	for it := q.ready.peek(); it != nil && q.ending; it = q.ready.peek() {
		q.ready.pop(it)
		it.phase = gone
		q.endUnavailable(it)
	}
}

func (q *Queue) endUnavailable(it *item) {
	q.settle(it, q.errorFinal(it, wire.Errorf(wire.CodeUnavailable,
		"item %s ended with the broker: queue %s is in memory; send it again when the broker is back, or give the queue a persistor", wire.FormatID(it.id()), q.opt.Address)))
}
