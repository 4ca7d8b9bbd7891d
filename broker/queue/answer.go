package queue

import (
	"maps"
	"math/rand/v2"
	"time"

	"stint/store"
	"stint/wire"
)

// answer deals with what came in on a lease subject.
func (q *Queue) answer(e *Answered) {
	it := q.items[e.Item]
	if it != nil && it.phase == leased && it.lease.key.attempt == e.Attempt {
		q.answerCurrent(it, it.lease, e)
		return
	}
	if l := q.late[leaseKey{e.Item, e.Attempt}]; l != nil && ends(e.Kind) {
		if e.Kind == wire.NoResponders {
			q.setAbsent(l.reg, true)
			q.unheard(l)
		} else {
			l.reg.withheld = false
		}
		q.endLate(l)
	}
	// A late answer still completes an item that nobody has settled; any other late answer changes nothing.
	if it == nil || e.Kind != wire.Done || e.Attempt == 0 || e.Attempt > it.rec.Deliveries {
		return
	}
	switch it.phase {
	case leased:
		l := it.lease
		q.detach(l)
		q.makeLate(l)
		q.done(it, e)
	case waiting, parked:
		if it.phase == waiting {
			q.ready.lost()
		}
		if it.rec.Place.Area != store.Dead {
			q.done(it, e)
		}
	}
}

// ends says that after an answer of this kind the processor no longer works on the item.
func ends(k wire.AnswerKind) bool {
	switch k {
	case wire.Working, wire.Progress, wire.Turn:
		return false
	}
	return true
}

func (q *Queue) answerCurrent(it *item, l *lease, e *Answered) {
	switch e.Kind {
	case wire.Working:
		q.extend(l)
	case wire.Progress:
		q.extend(l)
		if it.rec.Progress && it.replyTo != "" {
			q.say(Msg{To: it.replyTo, Header: e.Header, Body: e.Body})
		}
	case wire.Turn:
		q.turn(it, l, e)
	case wire.NoResponders:
		q.nobodyThere(l)
	case wire.Done:
		q.answered(it)
		q.endAnswered(l)
		q.done(it, e)
	case wire.Nak:
		q.endAnswered(l)
		q.nak(it, e.Delay)
	case wire.Term:
		q.endAnswered(l)
		q.bury(it, e.Reason)
	case wire.Failed:
		q.endAnswered(l)
		q.fail(it, e)
	}
}

// endAnswered ends a lease whose processor has spoken.
func (q *Queue) endAnswered(l *lease) {
	l.reg.withheld = false
	q.endLease(l)
}

// done completes the item with the processor's reply.
func (q *Queue) done(it *item, e *Answered) {
	q.stats.Completed++
	q.settle(it, final{subject: it.replyTo, header: replyHeader(it.rec.Header, e.Header), body: e.Body})
}

// replyHeader is the header of a reply: the processor's own, and what the sender sent along (trace context and the
// like) where the processor set nothing of that name.
func replyHeader(sent, answered wire.Header) wire.Header {
	passed := wire.PassedOn(sent)
	if len(passed) == 0 {
		return answered
	}
	h := make(wire.Header, len(passed)+len(answered))
	maps.Copy(h, passed)
	maps.Copy(h, answered)
	return h
}

// turn forwards a processor's turn of a conversation to the sender.
func (q *Queue) turn(it *item, l *lease, e *Answered) {
	q.extend(l)
	l.turns++
	if it.replyTo == "" {
		q.note("a processor began a conversation, but the sender named no reply subject", it.id(), l.reg.subject)
		return
	}
	q.maxTalk++
	l.talkN, l.turnTo = q.maxTalk, e.Reply
	q.say(Msg{Kind: Turn, To: it.replyTo, Item: it.id(), N: l.talkN, Header: e.Header, Body: e.Body})
}

// talked forwards the sender's turn to the processor.
func (q *Queue) talked(e *Talked) {
	it := q.items[e.Item]
	if it == nil || it.phase != leased || it.lease.turnTo == "" || it.lease.talkN != e.N {
		q.sayTo(e.Reply, wire.Errorf(wire.CodeUnavailable, "queue %s: this conversation is over, its item is finished or with another processor: wait for the reply on the reply subject of the send", q.opt.Address))
		return
	}
	l := it.lease
	q.extend(l)
	to := l.turnTo
	l.turnTo = ""
	if e.Reply != "" {
		it.replyTo = e.Reply
	}
	q.say(Msg{Kind: Work, To: to, Item: it.id(), N: l.key.attempt, Header: e.Header, Body: e.Body})
}

// nobodyThere ends the lease of an item that reached nobody. If the processor had spoken under this lease, it has gone
// away with the item. Otherwise it never had it, and only the registration is at fault; but what was given to it
// before and has not come back is lost with it, for the server reports in order.
func (q *Queue) nobodyThere(l *lease) {
	r, it := l.reg, l.it
	if l.turns > 0 {
		q.died(l)
		return
	}
	q.setAbsent(r, true)
	for older := l.next; older != nil; {
		next := older.next
		q.lost(older)
		older = next
	}
	q.unheard(l)
	q.endLease(l)
	q.giveBack(it)
}

// unheard gives back the items that went in one message with that of l, the first in it: nobody heard of them either.
func (q *Queue) unheard(l *lease) {
	if l.message == 0 {
		return
	}
	for m := l.prev; m != nil; {
		newer := m.prev
		switch it := m.it; {
		case m.message != l.message:
		case it == nil:
			q.endLate(m)
		default:
			q.endLease(m)
			q.giveBack(it)
		}
		m = newer
	}
}

// lost ends a lease, current or late, whose processor is gone.
func (q *Queue) lost(l *lease) {
	switch {
	case l.beforeGap && q.now.Before(q.graceEnd):
		// It is perhaps still reconnecting.
	case l.it == nil:
		q.endLate(l)
	default:
		q.died(l)
	}
}

// died ends the lease of an item whose processor has vanished.
func (q *Queue) died(l *lease) {
	it := l.it
	q.endLease(l)
	it.rec.Deaths++
	it.changed = true
	if int(it.rec.Deaths) >= q.opt.MaxDeaths {
		q.bury(it, "its processors vanished while they held it, the limit max_deaths")
		return
	}
	q.giveBack(it)
}

// giveBack makes the item available again, ahead of newer ones.
func (q *Queue) giveBack(it *item) {
	if it.failed {
		q.giveUp(it, it.err)
		return
	}
	if q.expired(it) {
		q.expire(it)
		return
	}
	it.phase = waiting
	it.part()
	q.ready.giveBack(it)
	if it.changed || it.leaseStored {
		q.touch(it)
	}
}

// nak gives the item out again. Its marks tell how often it came back without an outcome, as they outlive its stay in
// memory.
func (q *Queue) nak(it *item, delay time.Duration) {
	back := int(it.rec.Deliveries) - int(it.rec.Attempts) - int(it.rec.Deaths)
	if delay == 0 && back > freeNaks {
		delay = min(time.Second, 10*time.Millisecond<<min(back-freeNaks, 10))
	}
	q.again(it, delay)
}

// again gives the item out again after the delay.
func (q *Queue) again(it *item, delay time.Duration) {
	if delay <= 0 || it.failed || q.expired(it) {
		q.giveBack(it)
		return
	}
	it.phase = parked
	it.changed = true
	q.move(it, store.Place{Area: store.Delayed, Due: millis(q.now.Add(delay))})
}

// fail counts an attempt that a processor reported as failed.
func (q *Queue) fail(it *item, e *Answered) {
	q.stats.Failed++
	delay := q.backoff(it.rec.Attempts + 1)
	if e.HasDelay {
		delay = e.Delay
	}
	reason := e.Reason
	if reason == "" {
		reason = "a processor reported failure " + e.Code
	}
	q.attempted(it, delay, reason)
}

// attempted counts an attempt and gives the item out again, or buries it when the attempts are spent.
func (q *Queue) attempted(it *item, delay time.Duration, reason string) {
	it.rec.Attempts++
	it.changed = true
	limit := uint32(q.opt.MaxAttempts)
	if it.rec.MaxAttempts > 0 {
		limit = it.rec.MaxAttempts
	}
	if it.rec.Attempts >= limit {
		q.bury(it, reason)
		return
	}
	q.again(it, delay)
}

// backoff is the wait after the n-th counted attempt.
func (q *Queue) backoff(n uint32) time.Duration {
	b := q.opt.Backoff
	d := b.Base
	if !b.Fixed {
		d <<= min(n-1, 40)
		if d <= 0 || d>>min(n-1, 40) != b.Base || d > b.Max {
			d = b.Max
		}
	}
	if b.Jitter > 0 {
		q.opt.Random++
		r := rand.New(rand.NewPCG(q.opt.Random, uint64(n)))
		d += time.Duration((r.Float64()*2 - 1) * b.Jitter * float64(d))
	}
	return d
}

// bury makes the item a dead letter and tells the sender.
func (q *Queue) bury(it *item, reason string) {
	if it.failed {
		q.giveUp(it, it.err)
		return
	}
	q.stats.Dead++
	if reason == "" {
		reason = "a processor refused it for ever"
	}
	it.rec.Code, it.rec.Reason = string(wire.CodeDead), reason
	it.phase = parked
	it.changed = true
	err := wire.Errorf(wire.CodeDead, "item %s of queue %s is a dead letter after %d failed attempts: %s",
		wire.FormatID(it.id()), q.opt.Address, it.rec.Attempts, reason)
	it.own = q.errorFinal(it, err)
	it.final = &it.own
	q.note("dead letter", it.id(), reason)
	q.move(it, store.Place{Area: store.Dead})
}

func (q *Queue) errorFinal(it *item, err *wire.Error) final {
	h := err.Header()
	maps.Copy(h, wire.PassedOn(it.rec.Header))
	return final{subject: it.replyTo, header: h, body: err.Body()}
}

// expired says that the item has waited as long as its sender wanted.
func (q *Queue) expired(it *item) bool { return it.rec.Expires != 0 && it.rec.Expires <= millis(q.now) }

// expire settles an item that waited longer than its sender wanted.
func (q *Queue) expire(it *item) {
	q.stats.Expired++
	q.settle(it, q.errorFinal(it, wire.Errorf(wire.CodeExpired,
		"item %s of queue %s expired before a processor took it: give it more time with Nats-TTL, or the queue more processors", wire.FormatID(it.id()), q.opt.Address)))
}
