package queue

import (
	"time"
	"unique"

	"stint/store"
	"stint/wire"
)

// registration is a processor that takes work. held counts its slots in use: current leases and late ones.
type registration struct {
	subject  string // that of name
	capacity int
	batch    int // how many items it takes in one message; 0: work comes in messages of its own
	held     int
	leases   *lease
	withheld bool // timed out: no work until it answers or registers again
	absent   bool // nobody is subscribed at its subject
	removed  bool
	queued   bool // in the room list

	// What follows is seldom looked at. With many queues each line of memory that an item touches is in no cache.
	seen  int64     // Unix milliseconds of the last register
	since time.Time // it is absent

	message uint64 // number of the last message of several items
	at      int    // where it gathers in Out.Work, while it does

	name unique.Handle[string] // keeps the one copy of the subject that all queues share
}

func (r *registration) hasRoom() bool {
	return r.held < r.capacity && !r.withheld && !r.absent && !r.removed
}

func (r *registration) take(l *lease) {
	r.held++
	l.next = r.leases
	if r.leases != nil {
		r.leases.prev = l
	}
	r.leases = l
}

func (r *registration) put(l *lease) {
	r.held--
	if l.prev != nil {
		l.prev.next = l.next
	} else {
		r.leases = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	}
	l.prev, l.next = nil, nil
}

// each calls f with each lease; f may end the one it is given.
func (r *registration) each(f func(*lease)) {
	for l := r.leases; l != nil; {
		next := l.next
		f(l)
		l = next
	}
}

// roomList is the turn of the registrations that have room. One that fills up or is withheld is skipped when its turn
// comes and offered again when it has room.
type roomList struct {
	turn []*registration
	head int
	live int // entries that tidy left
}

func (t *roomList) first() *registration {
	for t.head < len(t.turn) {
		r := t.turn[t.head]
		if r.hasRoom() {
			return r
		}
		t.drop()
		r.queued = false
	}
	return nil
}

func (t *roomList) drop() {
	t.turn[t.head] = nil
	t.head++
	if t.head == len(t.turn) || t.head >= 64 && t.head*2 >= len(t.turn) {
		n := copy(t.turn, t.turn[t.head:])
		clear(t.turn[n:])
		t.turn, t.head = t.turn[:n], 0
	}
}

// rotate moves r, the first, to the end.
func (t *roomList) rotate(r *registration) {
	t.drop()
	t.turn = append(t.turn, r)
}

// offer puts r at the end if it has room and is not in the list.
func (t *roomList) offer(r *registration) {
	if !r.queued && r.hasRoom() {
		if n := len(t.turn) - t.head; n >= 64 && n > 2*t.live {
			t.tidy()
		}
		r.queued = true
		t.turn = append(t.turn, r)
	}
}

// tidy drops who has no room. Behind one that has room and gets no work they would gather without end.
func (t *roomList) tidy() {
	live := t.turn[:0]
	for _, r := range t.turn[t.head:] {
		if r.queued = r.hasRoom(); r.queued {
			live = append(live, r)
		}
	}
	clear(t.turn[len(live):])
	t.turn, t.head, t.live = live, 0, len(live)
}

// regChange is a registration to be written or removed, and what to say then.
type regChange struct {
	op    store.Op
	reply string
}

// addRegistration adds a processor. Its subject is in memory once, however many queues it is registered at.
func (q *Queue) addRegistration(subject string, capacity int, seen int64) *registration {
	name := unique.Make(subject)
	r := &registration{subject: name.Value(), capacity: capacity, seen: seen, name: name}
	q.regs[r.subject] = r
	q.room.offer(r)
	return r
}

func (q *Queue) register(e *Registered) {
	if q.stopping || q.broken {
		q.sayTo(e.Reply, wire.Errorf(wire.CodeShuttingDown, "the broker is shutting down: register again when it is back"))
		return
	}
	r := q.regs[e.Processor]
	if r == nil {
		if len(q.regs) >= q.opt.MaxProcessors && !q.evictAbsent() {
			q.sayTo(e.Reply, wire.Errorf(wire.CodeQueueFull, "queue %s has %d processors registered, the limit max_processors: unregister some", q.opt.Address, len(q.regs)))
			return
		}
		r = q.revive(e.Processor)
	}
	r.capacity, r.batch, r.seen = e.Capacity, e.Batch, millis(q.now)
	r.withheld = false
	q.setAbsent(r, false)
	r.each(func(l *lease) {
		if l.it == nil {
			q.endLate(l)
		}
	})
	q.room.offer(r)
	q.regChanges = append(q.regChanges, regChange{
		op: store.Op{
			Kind:         store.OpPutRegistration,
			Registration: store.Registration{Processor: r.subject, Capacity: r.capacity, Batch: r.batch, Seen: r.seen},
		},
		reply: e.Reply,
	})
}

// revive returns the registration of a processor that is not registered: the one it had, if it still holds work from
// before it left (else it would have two sets of slots), or a new one.
func (q *Queue) revive(subject string) *registration {
	r := q.leaving[subject]
	if r == nil {
		return q.addRegistration(subject, 0, 0)
	}
	delete(q.leaving, subject)
	r.removed = false
	q.regs[subject] = r
	return r
}

func (q *Queue) setAbsent(r *registration, absent bool) {
	if r.absent == absent || r.removed {
		return
	}
	r.absent = absent
	if absent {
		q.absent++
		r.since = q.now
		if q.nextDrop.IsZero() {
			q.nextDrop = q.now.Add(q.opt.RegistrationTTL)
		}
	} else {
		q.absent--
	}
}

func (q *Queue) unregister(e *Unregistered) {
	if r := q.regs[e.Processor]; r != nil {
		q.removeRegistration(r)
	}
	q.regChanges = append(q.regChanges, regChange{
		op:    store.Op{Kind: store.OpDeleteRegistration, Registration: store.Registration{Processor: e.Processor}},
		reply: e.Reply,
	})
}

// removeRegistration takes r out; the work it holds may still be answered. Its late leases kept slots that no longer
// matter.
func (q *Queue) removeRegistration(r *registration) {
	r.removed = true
	delete(q.regs, r.subject)
	r.each(func(l *lease) {
		if l.it == nil {
			q.endLate(l)
		}
	})
	if r.absent {
		q.absent--
		r.absent = false
	}
	if r.held > 0 {
		q.leaving[r.subject] = r
	}
}

// evictAbsent makes room for a registration by removing the one that has been absent longest.
func (q *Queue) evictAbsent() bool {
	var old *registration
	for _, r := range q.regs {
		if r.absent && (old == nil || r.since.Before(old.since)) {
			old = r
		}
	}
	if old == nil {
		return false
	}
	q.dropRegistration(old)
	return true
}

func (q *Queue) dropRegistration(r *registration) {
	q.removeRegistration(r)
	q.regChanges = append(q.regChanges, regChange{
		op: store.Op{Kind: store.OpDeleteRegistration, Registration: store.Registration{Processor: r.subject}},
	})
}

// presence takes note of a processor's subscription coming or going.
func (q *Queue) presence(e Presence) {
	r := q.regs[e.Processor]
	if r == nil {
		r = q.leaving[e.Processor]
	}
	switch {
	case r == nil:
	case e.Present && r.absent:
		q.setAbsent(r, false)
		q.room.offer(r)
	case !e.Present && r.removed:
		q.lose(r)
	case !e.Present:
		q.lose(r)
	}
}

// dropAbsent removes registrations that have been absent for RegistrationTTL.
func (q *Queue) dropAbsent() {
	if q.nextDrop.IsZero() || q.now.Before(q.nextDrop) {
		return
	}
	q.nextDrop = time.Time{}
	for _, r := range q.regs {
		if !r.absent {
			continue
		}
		if at := r.since.Add(q.opt.RegistrationTTL); !at.After(q.now) {
			q.dropRegistration(r)
		} else if q.nextDrop.IsZero() || at.Before(q.nextDrop) {
			q.nextDrop = at
		}
	}
}

// lose ends everything a processor holds whose subscription is gone.
func (q *Queue) lose(r *registration) {
	q.setAbsent(r, true)
	r.withheld = false // who subscribes there next is not the one that was silent
	r.each(q.lost)
}

// nextAbsentRetry is when a processor that cannot be watched is tried again.
func (q *Queue) nextAbsentRetry() time.Time {
	var t time.Time
	if q.absent == 0 || q.ready.len() == 0 {
		return t
	}
	for _, r := range q.regs {
		if r.absent && (t.IsZero() || r.since.Before(t)) {
			t = r.since
		}
	}
	if !t.IsZero() {
		t = t.Add(absentRetry)
	}
	return t
}

func (q *Queue) retryAbsent() {
	if q.opt.Watched || q.absent == 0 || q.ready.len() == 0 {
		return
	}
	for _, r := range q.regs {
		if r.absent && q.now.Sub(r.since) >= absentRetry {
			q.setAbsent(r, false)
			q.room.offer(r)
		}
	}
}

// sayTo sends an error, or nothing where there is nobody to tell.
func (q *Queue) sayTo(subject string, err *wire.Error) {
	if subject != "" {
		q.say(Msg{To: subject, Header: err.Header(), Body: err.Body()})
	}
}
