package queue

import (
	"errors"
	"slices"
	"time"

	"stint/internal/defect"
	"stint/store"
	"stint/wire"
)

// change is what a batch does to an item, and what it was before, in case the batch fails.
type change struct {
	it         *item
	put        bool
	prev       store.Place
	prevLeased bool
	accepts    []waiter
	dedup      bool
	changed    bool
	reply      *reply
}

// pending says that something waits to be written.
func (q *Queue) pending() bool {
	return q.gathered() > 0
}

// gathered is how many changes wait to be written.
func (q *Queue) gathered() int {
	return q.decided() + q.hopes.Len()
}

// decided is how many of them do not hope.
func (q *Queue) decided() int {
	return len(q.dirty) + len(q.regChanges) + len(q.replyPuts) + len(q.replyDrops) + len(q.extra)
}

// Take gives what should be written next, nil if nothing is to be or a batch is under way. The caller submits it,
// steps [Committed] with the result, after which Ops are the queue's again, and on success publishes After and calls [Queue.Said].
// A batch without Ops counts as committed.
func (q *Queue) Take(now time.Time) *Batch {
	if q.underway != nil || q.broken || !q.pending() || now.Before(q.retryAt) || now.Before(q.gatherUntil()) {
		return nil
	}
	q.now = now
	q.endHopes()
	if q.decided() == 0 {
		return nil // all hope still
	}
	q.lastBytes = q.dirtyBytes
	b := &Batch{Ops: q.spare.ops, changes: q.spare.changes, records: slices.Grow(q.spare.records, len(q.dirty))}
	q.spare = memory{}
	if n := len(q.said); n > 0 {
		b.After, b.text = q.said[n-1].after, q.said[n-1].text
		q.said = q.said[:n-1]
	}
	b.Ops = slices.Grow(b.Ops, q.decided())
	q.takeItems(b)
	for _, rc := range q.regChanges {
		b.Ops = append(b.Ops, rc.op)
		if rc.reply != "" {
			b.After = append(b.After, Msg{To: rc.reply, Body: wire.OK()})
		}
	}
	for _, r := range q.replyPuts {
		b.Ops = append(b.Ops, store.Op{Kind: store.OpPutReply, ID: r.id, Reply: r.rec})
		b.After, b.text = acceptNotices(b.After, b.text, r.id, r.accepts)
		q.replies[r.id] = r
	}
	for _, id := range q.replyDrops {
		b.Ops = append(b.Ops, store.Op{Kind: store.OpDeleteReply, ID: id})
	}
	b.Ops = append(b.Ops, q.extra...)
	b.regs, b.replies, b.dropped, b.extra = q.regChanges, q.replyPuts, q.replyDrops, q.extra
	q.regChanges, q.replyPuts, q.replyDrops, q.extra = nil, nil, nil, nil
	if len(b.Ops)+len(b.After)+len(b.changes) == 0 {
		q.reuse(b)
		q.Said(b)
		return nil
	}
	q.lastTake = now
	q.underway = b
	return b
}

func (q *Queue) takeItems(b *Batch) {
	var finals []Msg
	for _, it := range q.dirty {
		it.dirty = false
		c := change{it: it, prev: it.stored, prevLeased: it.leaseStored, changed: it.changed}
		if it.failed {
			continue
		}
		n := len(b.Ops)
		q.opsOf(b, it, &c)
		if it.final != nil && it.phase != replying {
			c.reply = q.newReply(it)
			q.replies[it.id()] = c.reply
			b.Ops = append(b.Ops, store.Op{Kind: store.OpPutReply, ID: it.id(), Reply: c.reply.rec})
			finals = append(finals, c.reply.final())
		}
		if len(b.Ops) == n && (len(it.accepts) == 0 || it.phase == replying) {
			if !it.inflight && it.leaves() {
				q.forget(it)
			}
			continue
		}
		if it.phase != replying {
			c.accepts, it.accepts = it.accepts, nil
			b.After, b.text = acceptNotices(b.After, b.text, it.id(), c.accepts)
			if defect.EarlyAccept {
				b.After = batchNotices(b.After, it.id(), c.accepts)
			}
		}
		it.inflight, it.changed = true, false
		b.changes = append(b.changes, c)
	}
	clear(q.dirty)
	q.dirty, q.dirtyBytes = q.dirty[:0], 0
	b.After = append(b.After, finals...)
}

// opsOf adds what brings the record of an item from where it is to where it shall be. What was put and deleted between
// two batches cancels here.
func (q *Queue) opsOf(b *Batch, it *item, c *change) {
	to := it.rec.Place
	switch {
	case it.stored.Area == store.Nowhere && to.Area != store.Nowhere:
		b.records = append(b.records, it.rec) // there is room, or the operations before would point elsewhere
		rec := &b.records[len(b.records)-1]
		rec.Epoch = q.epoch
		b.Ops = append(b.Ops, store.Op{Kind: store.OpPut, Record: rec})
		c.put = true
	case it.stored.Area != store.Nowhere && to.Area == store.Nowhere:
		b.Ops = append(b.Ops, q.itemOp(store.OpDelete, it))
		it.leaseStored = false
	case it.stored != to || it.changed:
		if to.Area != store.Nowhere {
			b.Ops = append(b.Ops, q.itemOp(store.OpMove, it))
			it.leaseStored = false
		}
	case it.leaseStored && (it.lease == nil || it.lease.isIn(byAge)): // the one on record has ended
		b.Ops = append(b.Ops, store.Op{Kind: store.OpDeleteLease, ID: it.id()})
		it.leaseStored = false
	}
	it.stored = to
	if it.leaseDue && it.lease != nil && to.Area != store.Nowhere {
		l := it.lease
		b.Ops = append(b.Ops, store.Op{Kind: store.OpPutLease, Lease: store.Lease{
			ID: it.id(), Attempt: l.key.attempt, Processor: l.reg.subject, Timeout: l.timeout.Milliseconds(),
		}})
		it.leaseDue, it.leaseStored = false, true
	}
	if it.dedupDue {
		b.Ops = append(b.Ops, store.Op{Kind: store.OpPutDedup, Dedup: store.Dedup{
			MsgID: it.rec.MsgID, ID: it.id(), ReplyHash: replyHash(it.rec.Reply),
			Expires: millis(q.now.Add(q.opt.DedupWindow)),
		}})
		it.dedupDue, c.dedup = false, true
	}
}

func (q *Queue) itemOp(kind store.OpKind, it *item) store.Op {
	m := it.rec.Marks
	m.Epoch = q.epoch
	return store.Op{
		Kind: kind, ID: it.id(), From: it.stored, To: it.rec.Place, Marks: m,
		Expires: it.rec.Expires, Size: it.size, Leased: it.leaseStored,
	}
}

// memory is what batches are made of. An operation is a large value, and growing slices of them for each batch was a tenth of
// the broker's time.
type memory struct {
	ops     []store.Op
	changes []change
	records []store.Record
}

// saying is what is said after batches. There are two: one batch is often taken before what the last one allows is said.
type saying struct {
	after []Msg
	text  []byte
}

// maxSpare bounds the memory that is kept from one batch for the next, in operations or messages; maxSpareText in bytes.
const (
	maxSpare     = 4096
	maxSpareText = maxSpare * 64
)

// reuse keeps the memory of a batch that the store is done with.
func (q *Queue) reuse(b *Batch) {
	q.spare = memory{emptied(b.Ops), emptied(b.changes), emptied(b.records)}
}

// Said tells the queue that nothing of what was to be said after b is used any more: its memory goes into another batch.
func (q *Queue) Said(b *Batch) {
	if len(q.said) < cap(q.said) && cap(b.text) <= maxSpareText {
		q.said = append(q.said, saying{emptied(b.After), b.text[:0]})
	}
	b.After, b.text = nil, nil
}

// emptied is the memory of s for another use, unless it is too much to keep.
func emptied[T any](s []T) []T {
	if cap(s) > maxSpare {
		return nil
	}
	clear(s)
	return s[:0]
}

// committed takes note of the result of the batch under way.
func (q *Queue) committed(err error) {
	b := q.underway
	q.underway = nil
	q.pageWait, q.dueBusy, q.expiryBusy = false, false, false
	if b == nil {
		return
	}
	if len(b.Ops) > 0 {
		q.flow.wrote(q.lastBytes, q.now.Sub(q.lastTake))
		q.lastDone, q.lastSize = q.now, len(b.Ops)
	}
	if err != nil {
		q.uncommitted(b, err)
		return
	}
	for i := range b.changes {
		q.changeCommitted(&b.changes[i])
	}
	for _, r := range b.replies {
		q.out.Msgs = batchNotices(q.out.Msgs, r.id, r.accepts)
		r.accepts = nil
		q.keep(r)
	}
	for i := range b.extra {
		if b.extra[i].Kind == store.OpSetAside {
			delete(q.aside, b.extra[i].ID)
		}
	}
	q.reuse(b)
}

func (q *Queue) changeCommitted(c *change) {
	it := c.it
	it.inflight = false
	if !defect.EarlyAccept {
		q.out.Msgs = batchNotices(q.out.Msgs, it.id(), c.accepts)
	}
	if c.put && it.rec.Expires != 0 {
		q.nextExpiry = earlier(q.nextExpiry, it.rec.Expires)
	}
	if it.stored.Area == store.Delayed {
		q.nextDue = earlier(q.nextDue, it.stored.Due)
	}
	if c.dedup {
		delete(q.recent, it.rec.MsgID)
		q.remembered()
	}
	if c.reply != nil {
		it.final, it.own = nil, final{}
	}
	if !it.dirty && it.leaves() {
		q.forget(it)
	}
}

// leaves says that the item has no place in memory once it is written.
func (it *item) leaves() bool { return it.phase == gone || it.phase == parked || it.spill }

func earlier(a, b int64) int64 {
	if a == 0 || b < a {
		return b
	}
	return a
}

// uncommitted puts everything back as it was before the batch: items that were to be inserted are refused, all other
// changes wait for the next one.
func (q *Queue) uncommitted(b *Batch, err error) {
	if errors.Is(err, store.ErrUnknown) {
		q.breakDown(err, b)
		return
	}
	q.retryAt = q.now.Add(retryWrite)
	for i := range b.changes {
		q.changeFailed(&b.changes[i], err)
	}
	q.regChanges = append(b.regs, q.regChanges...)
	q.replyPuts = append(b.replies, q.replyPuts...)
	q.replyDrops = append(b.dropped, q.replyDrops...)
	q.extra = append(b.extra, q.extra...)
	q.setDown(err)
}

func (q *Queue) changeFailed(c *change, err error) {
	it := c.it
	it.inflight = false
	it.stored, it.leaseStored = c.prev, c.prevLeased
	it.dedupDue = it.dedupDue || c.dedup
	it.changed = it.changed || c.changed
	if c.reply != nil {
		delete(q.replies, it.id())
	}
	if c.put {
		q.insertFailed(it, c.accepts, err)
		return
	}
	it.accepts = append(c.accepts, it.accepts...)
	it.leaseDue = it.lease != nil && q.opt.Persistent && !it.lease.isIn(byAge)
	q.touch(it)
}
