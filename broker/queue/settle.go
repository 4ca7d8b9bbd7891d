package queue

import (
	"slices"
	"time"

	"stint/store"
	"stint/wire"
)

// replyState says what is known of a reply on record.
type replyState uint8

const (
	putting replyState = iota // its record is being written, or its final is with the bus
	sent                      // delivered; the record goes after settleDelay
	kept                      // nobody listened: waits for the sender
	loading                   // somebody listens again: being read back
	dropped                   // no longer on record
)

// reply is a final on record.
type reply struct {
	id      uint64
	subject string
	expires int64
	state   replyState
	at      time.Time // sent: when
	again   bool      // it may have been sent before a gap
	listed  bool      // in q.kept
	rec     *store.Reply
	accepts []waiter
}

// settle ends an item with its final message; f's subject is empty if nobody wants one.
func (q *Queue) settle(it *item, f final) {
	it.phase, it.failed = gone, false
	q.count(it, it.rec.Place.Area, store.Nowhere)
	it.rec.Place = store.Place{}
	if f.subject != "" {
		it.own = f
		it.final = &it.own
	}
	switch {
	case !it.written() && q.leavesUnwritten(it):
		q.finishUnwritten(it)
	case !q.opt.Persistent:
		q.touch(it)
		q.finishUnwritten(it)
	default:
		q.touch(it)
	}
}

// leavesUnwritten says whether the final of an item that was never written may leave before anything is on disk. Not with an outside
// server: it may end between the reply and the accept notice, where the embedded one ends with the broker. And not where a message
// id has to be on record, or the item could be accepted twice.
func (q *Queue) leavesUnwritten(it *item) bool {
	return !it.dedupDue && (q.opt.Watched || !q.opt.Persistent)
}

// finishUnwritten lets the final of an item leave without a commit: nothing of it is on disk. The accept notices
// follow once the final has left.
func (q *Queue) finishUnwritten(it *item) {
	if it.final == nil {
		q.sayAccepted(it)
		q.forgetDone(it)
		return
	}
	it.phase = replying
	q.say(Msg{Kind: Final, To: it.final.subject, Item: it.id(), Header: it.final.header, Body: it.final.body})
}

func (q *Queue) sayAccepted(it *item) {
	q.out.Msgs, q.out.text = acceptNotices(q.out.Msgs, q.out.text, it.id(), it.accepts)
	q.out.Msgs = batchNotices(q.out.Msgs, it.id(), it.accepts)
	it.accepts = nil
}

// forgetDone drops a settled item unless a change of it is still to be written.
func (q *Queue) forgetDone(it *item) {
	it.phase = gone
	if !it.inflight && (!it.dirty || !it.written()) {
		q.forget(it)
	}
}

// finalSettled takes note of what became of a final.
func (q *Queue) finalSettled(item uint64, o Outcome) {
	if o.Delivered && o.Link < q.link { // word of it is older than word of the new connection
		o.Delivered, o.Unsure = false, true
	}
	if it := q.items[item]; it != nil && it.phase == replying {
		if o.Delivered {
			q.sayAccepted(it)
		} else {
			q.keepUnwritten(it, o.Unsure)
		}
		it.final, it.own = nil, final{}
		q.forgetDone(it)
		return
	}
	r := q.replies[item]
	switch {
	case r == nil || r.state == sent || r.state == kept:
	case o.Delivered:
		r.state, r.at, r.rec = sent, q.now, nil
		q.sent = append(q.sent, r)
	default:
		r.again = r.again || o.Unsure
		q.keep(r)
	}
}

// keepUnwritten writes the reply of an item that was never written, for its sender is away, or may not have got it.
func (q *Queue) keepUnwritten(it *item, unsure bool) {
	r := q.newReply(it)
	r.again = unsure
	r.accepts = slices.Clone(it.accepts) // which may be a part of the item, and the reply outlives it
	it.accepts = nil
	q.replyPuts = append(q.replyPuts, r)
}

func (q *Queue) newReply(it *item) *reply {
	f := it.final
	r := &reply{id: it.id(), subject: f.subject, expires: millis(q.now.Add(q.opt.ReplyTTL))}
	r.rec = &store.Reply{ID: r.id, Subject: r.subject, Expires: r.expires, Header: f.header, Body: f.body}
	return r
}

func (r *reply) final() Msg {
	return Msg{Kind: Final, To: r.subject, Item: r.id, Header: r.rec.Header, Body: r.rec.Body}
}

// keep holds a reply on record for a sender that is away; only its subject stays in memory.
func (q *Queue) keep(r *reply) {
	r.state, r.rec = kept, nil
	if q.keptLive == 0 {
		q.nextProbe = q.now.Add(probeEvery)
	}
	q.list(r)
	for q.keptLive > q.opt.MaxReplies {
		if old := q.oldestKept(); old != nil {
			q.note("a kept reply was dropped: more than max_replies senders are away", old.id, old.subject)
			q.dropKept(old)
			q.stats.DroppedReplies++
		}
	}
}

// list puts a kept reply in the list. One that was there before and came to be loaded still is.
func (q *Queue) list(r *reply) {
	q.keptLive++
	if !r.listed {
		r.listed = true
		q.kept = append(q.kept, r)
	}
}

func (q *Queue) oldestKept() *reply {
	for len(q.kept) > 0 && q.kept[0].state != kept {
		q.kept[0].listed = false
		q.kept[0] = nil
		q.kept = q.kept[1:]
		q.probeAt = max(0, q.probeAt-1)
	}
	if len(q.kept) == 0 {
		return nil
	}
	return q.kept[0]
}

func (q *Queue) dropKept(r *reply) {
	q.leaveKept(r, dropped)
	q.dropReply(r)
}

func (q *Queue) leaveKept(r *reply, to replyState) {
	r.state = to
	q.keptLive--
}

// dropReply removes a reply from the record.
func (q *Queue) dropReply(r *reply) {
	r.state = dropped
	delete(q.replies, r.id)
	q.replyDrops = append(q.replyDrops, r.id)
}

func (q *Queue) restoreReply(h store.ReplyHead) {
	r := &reply{id: h.ID, subject: h.Subject, expires: h.Expires, again: true}
	q.replies[r.id] = r
	r.state = kept
	q.list(r)
	q.nextProbe = q.now
}

// probe looks whether senders that were away are back, some at a time, and drops what has been kept long enough.
func (q *Queue) probe() {
	if q.keptLive == 0 || q.now.Before(q.nextProbe) {
		return
	}
	q.nextProbe = q.now.Add(probeEvery)
	q.oldestKept()
	for n := min(probesAtOnce, len(q.kept)); n > 0; n-- {
		if q.probeAt >= len(q.kept) {
			q.probeAt = 0
		}
		r := q.kept[q.probeAt]
		q.probeAt++
		switch {
		case r.state != kept:
		case r.expires <= millis(q.now):
			q.note("a kept reply was dropped: its sender did not come back within reply_ttl", r.id, r.subject)
			q.stats.DroppedReplies++
			q.dropKept(r)
		default:
			q.out.Probes = append(q.out.Probes, Probe{Item: r.id, Subject: r.subject})
		}
	}
	if len(q.kept) > 64 && q.keptLive*2 < len(q.kept) {
		q.compactKept()
	}
}

func (q *Queue) compactKept() {
	live := q.kept[:0]
	for _, r := range q.kept {
		if r.listed = r.state == kept; r.listed {
			live = append(live, r)
		}
	}
	clear(q.kept[len(live):])
	q.kept, q.probeAt = live, 0
}

func (q *Queue) listening(id uint64) {
	if r := q.replies[id]; r != nil && r.state == kept {
		q.leaveKept(r, loading)
		q.out.Reads = append(q.out.Reads, Read{Kind: ReadReply, Item: id})
	}
}

func (q *Queue) loaded(e *Loaded) {
	r := q.replies[e.Item]
	if r == nil || r.state != loading {
		return
	}
	if !e.Found {
		q.note("a kept reply could not be read back and was dropped", e.Item, r.subject)
		q.stats.DroppedReplies++
		q.dropReply(r)
		return
	}
	r.state = putting
	r.rec = &e.Reply
	if r.again {
		h := make(wire.Header, len(r.rec.Header)+1)
		for k, v := range r.rec.Header {
			h[k] = v
		}
		h[wire.HeaderRedelivered] = []string{"true"}
		r.rec.Header = h
	}
	q.say(r.final())
}

// flush asks the server for a sign once replies have been with it for settleDelay; then their records can go.
func (q *Queue) flush() {
	if q.flushing != 0 || len(q.sent) == 0 || q.now.Sub(q.sent[0].at) < settleDelay {
		return
	}
	q.flushSeq++
	q.flushing = q.flushSeq
	q.flushedTo = q.now.Add(-settleDelay)
	q.out.Flush = q.flushing
}

func (q *Queue) flushed(token uint64) {
	if token != q.flushing {
		return
	}
	q.flushing = 0
	n := 0
	for n < len(q.sent) && !q.sent[n].at.After(q.flushedTo) {
		q.dropReply(q.sent[n])
		n++
	}
	m := copy(q.sent, q.sent[n:])
	clear(q.sent[m:])
	q.sent = q.sent[:m]
}
