package queue

import (
	"errors"
	"hash/fnv"
	"time"

	"stint/store"
	"stint/wire"
)

// send takes an item in, or says why not.
func (q *Queue) send(e *Sent) {
	ids := 0
	if e.MsgID != "" {
		ids = 1
	}
	if err := q.refuses(1, e.Size(), ids); err != nil {
		q.stats.Refused++
		q.refuse(e.AcceptedReply, e.Reply, err)
		return
	}
	w := waiter{to: e.AcceptedReply}
	if e.MsgID != "" && q.duplicate(e, w) {
		return
	}
	it := q.newItem(e)
	if w.to != "" {
		it.sender[0] = w
		it.accepts = it.sender[:]
	}
	q.take(it)
}

// take takes in an item that has just been made.
func (q *Queue) take(it *item) {
	q.stats.Accepted++
	q.counts.Ready++
	q.counts.Bytes += int64(it.size)
	if it.rec.MsgID != "" {
		q.recent[it.rec.MsgID] = it
		it.dedupDue = true
	}
	if q.spilled > 0 || q.windowRoom() == 0 {
		it.spill = true
		q.spilled++
		q.arrive(it)
		return
	}
	q.arrive(it)
	q.hold(it)
	q.cursor = store.Cursor{Priority: it.rec.Priority, ID: it.id()}
	q.ready.push(it)
}

// refuses says what keeps so many items out, of so many bytes and with so many message ids in all; nil if nothing.
func (q *Queue) refuses(items, size, ids int) *wire.Error {
	a := q.opt.Address
	switch {
	case q.stopping:
		return wire.Errorf(wire.CodeShuttingDown, "queue %s is shutting down: send the item again when the broker is back", a)
	case q.broken:
		return wire.Errorf(wire.CodeStoreFailed, "queue %s: the disk failed and the broker stops, the item is not stored: send it again when the broker is back", a)
	case q.down != nil:
		return q.storeError(q.down)
	case q.total()+items > q.opt.MaxItems:
		return wire.Errorf(wire.CodeQueueFull, "queue %s holds %d items (%d of them dead letters), the limit max_items: wait until some are processed, or raise it", a, q.total(), q.counts.Dead)
	case q.counts.Bytes+int64(size) > q.opt.MaxBytes:
		return wire.Errorf(wire.CodeQueueFull, "queue %s holds %d bytes and this send has %d, the limit max_bytes is %d: wait until some are processed, or raise it", a, q.counts.Bytes, size, q.opt.MaxBytes)
	case ids > 0 && q.counts.Dedup+len(q.recent)+ids > q.opt.MaxDedup:
		return wire.Errorf(wire.CodeQueueFull, "queue %s remembers %d message ids, the limit max_dedup: send without Nats-Msg-Id, or wait until some are older than dedup_window", a, q.counts.Dedup)
	}
	return nil
}

// Size is what the item counts against limits in bytes (store.Item.Size).
func (e *Sent) Size() int {
	it := store.Item{Reply: e.Reply, MsgID: e.MsgID, Header: e.Header, Body: e.Body}
	return it.Size()
}

func (q *Queue) total() int { return q.counts.Ready + q.counts.Delayed + q.counts.Dead }

// storeError is what a sender is told when the store does not take its item.
func (q *Queue) storeError(err error) *wire.Error {
	a := q.opt.Address
	switch {
	case errors.Is(err, store.ErrUnknown):
		return wire.Errorf(wire.CodeUnconfirmed, "queue %s: the disk failed while the item was being written, so it may be stored or not: send it again with the same Nats-Msg-Id once the broker is back", a)
	case errors.Is(err, store.ErrFull):
		return wire.Errorf(wire.CodeDiskFull, "queue %s: the disk is full, the item is not stored: free some space and send it again", a)
	case errors.Is(err, store.ErrClosed):
		return wire.Errorf(wire.CodeShuttingDown, "queue %s is shutting down, the item is not stored: send it again when the broker is back", a)
	}
	return wire.Errorf(wire.CodeStoreFailed, "queue %s: the item could not be stored: %v", a, err)
}

// refuse tells both subjects, or the one if they are the same.
func (q *Queue) refuse(accept, reply string, err *wire.Error) {
	q.sayTo(accept, err)
	if reply != accept {
		q.sayTo(reply, err)
	}
}

func (q *Queue) newItem(e *Sent) *item {
	q.next++
	it := &item{rec: store.Record{
		Item: store.Item{
			ID: q.next, Accepted: millis(q.now), Timeout: e.Timeout.Milliseconds(), MaxAttempts: e.MaxAttempts,
			Progress: e.Progress, Reply: e.Reply, MsgID: e.MsgID, Header: e.Header, Body: e.Body,
		},
		Marks: store.Marks{Epoch: q.epoch},
	}, replyTo: e.Reply}
	if e.TTL > 0 {
		it.rec.Expires = millis(q.now.Add(e.TTL))
	}
	it.size = it.rec.Size()
	it.rec.Place = readyPlace(it)
	return it
}

// duplicate deals with an item whose message id was seen before; false: it was not.
//
// The accept notice names the first item, and is said only once that one is on disk. The reply goes to the first
// send's reply subject; a duplicate that names another one hears there that it is a duplicate, for it would wait for
// ever otherwise. w waits for the accept notice.
func (q *Queue) duplicate(e *Sent, w waiter) bool {
	first := q.recent[e.MsgID]
	if first == nil && (e.Known == nil || e.Known.Expires <= millis(q.now)) {
		return false
	}
	q.stats.Duplicates++
	var id, hash uint64
	if first != nil {
		id, hash = first.id(), replyHash(first.rec.Reply)
		switch {
		case !w.waits():
		case len(first.accepts) >= maxAccepts:
			q.tellWaiter(w, wire.Errorf(wire.CodeBusy, "queue %s: item %s with this Nats-Msg-Id is being written: send it again, more slowly", q.opt.Address, wire.FormatID(first.id())))
		default:
			w.again = true
			first.accepts = append(first.accepts, w)
			q.touch(first)
		}
	} else {
		id, hash = e.Known.ID, e.Known.ReplyHash
		q.sayDuplicate(w, id)
	}
	if e.Reply != "" && replyHash(e.Reply) != hash {
		q.sayTo(e.Reply, wire.Errorf(wire.CodeDuplicate, "queue %s accepted this Nats-Msg-Id before, as item %s: the reply goes to the reply subject of the first send", q.opt.Address, wire.FormatID(id)))
	}
	return true
}

func replyHash(subject string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(subject))
	return h.Sum64()
}

// insertFailed deals with an item that could not be written. accepts are those who wait for its accept notice.
func (q *Queue) insertFailed(it *item, accepts []waiter, cause error) {
	it.accepts = append(accepts, it.accepts...)
	it.stored = store.Place{}
	if it.phase == gone {
		// It was settled meanwhile, which is as good as written.
		q.settledUnwritten(it)
		return
	}
	err := q.storeError(cause)
	if it.phase == leased { // its message id stays: if it is answered, it was accepted
		it.failed, it.err = true, err
		return
	}
	switch {
	case it.spill:
		q.spilled--
	case it.phase == waiting:
		q.ready.lost()
	}
	q.giveUp(it, err)
}

// settledUnwritten ends an item that was settled while its insert was under way and failed.
func (q *Queue) settledUnwritten(it *item) {
	if !q.leavesUnwritten(it) {
		q.touch(it)
		return
	}
	q.finishUnwritten(it)
}

// giveUp tells the sender that its item is not queued, and drops it.
func (q *Queue) giveUp(it *item, err *wire.Error) {
	q.stats.Refused++
	q.count(it, it.rec.Place.Area, store.Nowhere)
	it.rec.Place = store.Place{}
	it.phase, it.final, it.own = gone, nil, final{}
	if it.dedupDue {
		delete(q.recent, it.rec.MsgID)
		it.dedupDue = false
	}
	q.tell(it, it.accepts, err)
	it.accepts = nil
	q.forget(it)
}

// tell tells those who wait for the accept notice and the reply of an item.
func (q *Queue) tell(it *item, accepts []waiter, err *wire.Error) {
	for _, w := range accepts {
		if w.batch != nil || w.to != it.rec.Reply {
			q.tellWaiter(w, err)
		}
	}
	q.sayTo(it.rec.Reply, err)
}

// stored takes note of a change in what the store can do.
func (q *Queue) stored(err error) {
	if errors.Is(err, store.ErrUnknown) {
		q.breakDown(err, nil)
		return
	}
	q.setDown(err)
	if err == nil {
		q.retryAt = time.Time{}
	}
}

// setDown stops or resumes the intake. Items that gathered for the next batch and cannot be written are given back to
// their senders, unless a processor has them.
func (q *Queue) setDown(err error) {
	q.down = err
	if err == nil {
		return
	}
	q.dashHopes()
	for _, it := range q.dirty {
		if !it.written() && it.rec.Place.Area != store.Nowhere && !it.failed {
			q.insertFailed(it, nil, err)
		}
	}
}

// breakDown ends everything: the outcome of a write is unknown, so nothing more may be said of what was to be written,
// except that it is so. b is the batch whose outcome it is; nil if that is not known yet or another queue's.
func (q *Queue) breakDown(err error, b *Batch) {
	first := !q.broken
	q.broken, q.down = true, err
	e := q.storeError(err)
	if b != nil {
		for i := range b.changes {
			c := &b.changes[i]
			q.leaveOpen(c.it, append(c.accepts, c.it.accepts...), c.put || c.dedup, e)
		}
		q.leaveRestOpen(b.regs, b.replies, e)
	}
	if !first {
		return
	}
	q.dashHopes()
	for _, it := range q.dirty {
		done := it.phase == gone && it.final == nil && len(it.accepts) == 0
		if !it.inflight && !it.failed && it.phase != replying && !done {
			q.leaveOpen(it, it.accepts, !it.written(), e)
		}
	}
	for _, it := range q.items {
		if it.failed {
			q.leaveOpen(it, it.accepts, true, e)
		}
		if it.phase == replying {
			q.leaveBatchOpen(it.accepts, e)
		}
	}
	q.leaveRestOpen(q.regChanges, q.replyPuts, e)
}

// leaveOpen tells who waits for word of an item; the reply subject too if its sender knows nothing of it yet.
func (q *Queue) leaveOpen(it *item, accepts []waiter, unknown bool, e *wire.Error) {
	if unknown {
		q.tell(it, accepts, e)
		return
	}
	for _, w := range accepts {
		q.tellWaiter(w, e)
	}
}

// leaveBatchOpen lets a batch have its notice though one of its items has its reply on the way and will not be heard of
// again. An item sent alone needs none: it has the reply.
func (q *Queue) leaveBatchOpen(accepts []waiter, e *wire.Error) {
	for _, w := range accepts {
		if w.batch != nil {
			q.tellWaiter(w, e)
		}
	}
}

func (q *Queue) leaveRestOpen(regs []regChange, replies []*reply, e *wire.Error) {
	for _, r := range replies {
		for _, w := range r.accepts {
			q.tellWaiter(w, e)
		}
	}
	for _, rc := range regs {
		q.sayTo(rc.reply, e)
	}
}
