package queue

import (
	"time"

	"stint/store"
	"stint/wire"
)

// leaseKey is the fence: an item and the number of its delivery.
type leaseKey struct {
	item    uint64
	attempt uint32
}

// lease is one delivery of an item to a processor. It is current while the item is leased under it; afterwards, if the
// processor may still be busy with the item, it is late: it keeps a slot of the registration until the processor
// answers, registers again or is gone.
type lease struct {
	key      leaseKey
	it       *item // nil once the lease is late
	reg      *registration
	started  time.Time
	deadline time.Time
	timeout  time.Duration
	at       int // index in the heap of q.ends; -1: it is not there

	talkN  uint32 // number of the last turn given to the sender
	turnTo string // where the sender's turn is to go; empty: none awaited
	turns  int

	message uint64 // number of the message of several items that it went in; 0: it went alone

	links      [2]links // in q.byAge and in the line of q.ends
	beforeGap  bool     // the broker was away since: an answer may be lost
	prev, next *lease   // registration's leases
}

// dispatch gives out work while items wait and registrations have room.
func (q *Queue) dispatch() {
	if q.stopping || q.broken || q.ready.peek() == nil {
		return
	}
	for {
		r := q.room.first()
		if r == nil {
			return
		}
		it := q.ready.peek()
		if it == nil {
			return
		}
		q.ready.pop(it)
		if q.expired(it) {
			it.phase = gone
			q.expire(it)
			continue
		}
		q.room.rotate(r)
		q.give(it, r)
	}
}

// give leases it to r.
func (q *Queue) give(it *item, r *registration) {
	it.rec.Deliveries++
	if it.rec.Deliveries > 1 {
		q.stats.Redelivered++
	}
	l := q.startLease(it, r, q.timeoutOf(it))
	q.byAge.push(l)
	if r.batch > 0 {
		q.giveInBatch(it, l)
		return
	}
	q.say(Msg{Kind: Work, To: r.subject, Item: it.id(), N: l.key.attempt, Header: it.rec.Header, Body: it.rec.Body})
}

// giveInBatch adds work to the message that gathers for its processor, if that has not left and has room. Nothing waits for
// a message to fill: it leaves with all else that this round of steps says.
func (q *Queue) giveInBatch(it *item, l *lease) {
	r, w := l.reg, (*WorkBatch)(nil)
	if r.at < len(q.out.Work) && q.out.Work[r.at].number == r.message {
		w = &q.out.Work[r.at]
	}
	size := wire.FrameSize(workKeySize, it.rec.Header, it.rec.Body)
	if w == nil || len(w.Items) >= r.batch || q.opt.MaxMessage > 0 && w.size+size > q.opt.MaxMessage {
		q.messages++
		r.message, r.at = q.messages, len(q.out.Work)
		w = q.out.startWork()
		w.To, w.number = r.subject, r.message
	}
	l.message = r.message
	w.size += size
	w.Items = append(w.Items, Given{Item: it.id(), Attempt: l.key.attempt, Header: it.rec.Header, Body: it.rec.Body})
}

// workKeySize is the longest key of work: an id in base 36, a point and an attempt.
const workKeySize = 13 + 1 + 10

func (q *Queue) timeoutOf(it *item) time.Duration {
	if it.rec.Timeout > 0 {
		return time.Duration(it.rec.Timeout) * time.Millisecond
	}
	return q.opt.ProcessTimeout
}

func (q *Queue) startLease(it *item, r *registration, timeout time.Duration) *lease {
	l := &lease{
		key: leaseKey{it.id(), it.rec.Deliveries}, it: it, reg: r, at: -1,
		started: q.now, timeout: timeout, deadline: q.now.Add(timeout),
	}
	it.phase, it.lease = leased, l
	r.take(l)
	q.ends.push(l)
	q.stats.Leased++
	return l
}

// extend lets the process timeout of a current lease start anew.
func (q *Queue) extend(l *lease) { q.ends.move(l, q.now.Add(l.timeout)) }

// endLease ends a current lease and frees its slot.
func (q *Queue) endLease(l *lease) {
	q.detach(l)
	q.ends.remove(l)
	q.release(l)
}

// detach parts a current lease from its item; its slot stays taken.
func (q *Queue) detach(l *lease) {
	q.byAge.remove(l)
	l.it.lease, l.it.leaseDue = nil, false
	l.it, l.turnTo = nil, ""
	q.stats.Leased--
}

// release frees the slot of a lease.
func (q *Queue) release(l *lease) {
	l.reg.put(l)
	q.room.offer(l.reg)
	if l.reg.removed && l.reg.held == 0 {
		delete(q.leaving, l.reg.subject)
	}
}

// makeLate keeps the slot of a lease that has lost its item.
func (q *Queue) makeLate(l *lease) { q.late[l.key] = l }

// endLate frees the slot of a late lease.
func (q *Queue) endLate(l *lease) {
	delete(q.late, l.key)
	q.ends.remove(l)
	q.release(l)
}

// restoreLease takes up a lease that was on disk when the broker started: the processor may still be at work.
func (q *Queue) restoreLease(lr *store.LeasedRecord) {
	it := q.load(lr.Record)
	it.rec.Deliveries = lr.Lease.Attempt
	it.leaseStored = true
	q.spilled--
	r := q.regs[lr.Lease.Processor]
	if r == nil {
		r = q.leaving[lr.Lease.Processor]
	}
	if r == nil {
		r = &registration{subject: lr.Lease.Processor, removed: true}
		q.leaving[r.subject] = r
	}
	q.startLease(it, r, time.Duration(lr.Lease.Timeout)*time.Millisecond).beforeGap = true
}

// reconnected takes note that the broker was cut off. To its processors and senders that is as if it had been started again.
func (q *Queue) reconnected(link uint64) {
	q.link = link
	for _, regs := range [...]map[string]*registration{q.regs, q.leaving} {
		for _, r := range regs {
			r.withheld = false
			r.each(func(l *lease) {
				if l.it == nil {
					q.endLate(l)
				} else {
					l.beforeGap = true
				}
			})
			q.room.offer(r)
		}
	}
	q.graceEnd = q.now.Add(reconnectGrace)
	q.flushing = 0
	for _, r := range q.sent {
		r.again = true
		q.keep(r)
	}
	clear(q.sent)
	q.sent = q.sent[:0]
}

// endGrace ends the leases from before the gap of processors that have not come back.
func (q *Queue) endGrace() {
	if q.graceEnd.IsZero() || q.now.Before(q.graceEnd) {
		return
	}
	q.graceEnd = time.Time{}
	for _, r := range q.regs {
		if r.absent {
			r.each(q.lost)
		}
	}
}

// load makes an item in memory from a record read from the store.
func (q *Queue) load(rec store.Record) *item {
	it := &item{rec: rec, size: rec.Size(), stored: rec.Place, replyTo: rec.Reply}
	// A broker that ended may have had the item out once without a trace; that delivery keeps its number.
	if rec.Epoch < q.epoch {
		it.rec.Deliveries += q.epoch - rec.Epoch
		it.rec.Epoch = q.epoch
	}
	q.hold(it)
	return it
}

// leaseList is a list of leases in which any one costs nothing to come or go. A lease can be in one list of each kind.
type leaseList struct {
	kind       listKind
	head, tail *lease // oldest first
}

type listKind uint8

const (
	byAge  listKind = iota // q.byAge
	inLine                 // deadlines
)

// links are a lease's neighbours in a list.
type links struct {
	older, newer *lease
	in           bool
}

func (l *lease) isIn(k listKind) bool { return l.links[k].in }

func (s *leaseList) push(l *lease) {
	l.links[s.kind] = links{older: s.tail, in: true}
	if s.tail != nil {
		s.tail.links[s.kind].newer = l
	} else {
		s.head = l
	}
	s.tail = l
}

func (s *leaseList) remove(l *lease) {
	x := l.links[s.kind]
	if !x.in {
		return
	}
	if x.older != nil {
		x.older.links[s.kind].newer = x.newer
	} else {
		s.head = x.newer
	}
	if x.newer != nil {
		x.newer.links[s.kind].older = x.older
	} else {
		s.tail = x.older
	}
	l.links[s.kind] = links{}
}
