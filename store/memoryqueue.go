package store

import (
	"maps"
	"slices"
	"sync"
)

// memoryQueue is one queue of [Memory]. Only the engine's goroutine writes; any goroutine reads.
type memoryQueue struct {
	db *Memory

	mu      sync.RWMutex // guards all below
	areas   [Dead + 1]ordered[*Record]
	expiry  ordered[Place]
	dedup   map[string]memoryDedup
	pruning ordered[string] // message ids by expiry
	seen    uint64          // counts entries of pruning
	leases  map[uint64]Lease
	replies map[uint64]*Reply
	regs    map[string]Registration
	counts  Counts
}

type memoryDedup struct {
	Dedup
	seq uint64
}

func newMemoryQueue(m *Memory) *memoryQueue {
	return &memoryQueue{
		db:      m,
		dedup:   make(map[string]memoryDedup),
		leases:  make(map[uint64]Lease),
		replies: make(map[uint64]*Reply),
		regs:    make(map[string]Registration),
	}
}

func placeKey(p Place, id uint64) sortKey {
	switch p.Area {
	case Ready:
		return sortKey{uint64(p.Priority), id}
	case Delayed:
		return sortKey{timeRank(p.Due), id}
	default:
		return sortKey{0, id}
	}
}

// Submit implements [Queue].
func (q *memoryQueue) Submit(b *Batch) {
	if !q.db.in.Put(memoryWork{q, b}) {
		go b.Done(ErrClosed)
	}
}

func (q *memoryQueue) apply(ops []Op) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range ops {
		q.applyOne(&ops[i])
	}
}

func (q *memoryQueue) applyOne(op *Op) {
	switch op.Kind {
	case OpPut:
		q.put(*op.Record)
	case OpMove:
		q.move(op)
	case OpDelete:
		if q.take(op.From, op.ID) != nil {
			q.expiry.remove(sortKey{timeRank(op.Expires), op.ID})
			q.counts.Bytes -= int64(op.Size)
		}
		q.unlease(op)
	case OpSetAside:
		q.setAside(op)
	case OpUnexpire:
		q.expiry.remove(sortKey{timeRank(op.Expires), op.ID})
	case OpPutLease:
		q.leases[op.Lease.ID] = op.Lease
	case OpDeleteLease:
		delete(q.leases, op.ID)
	case OpPutReply:
		q.replies[op.Reply.ID] = op.Reply
		q.counts.Replies = len(q.replies)
	case OpDeleteReply:
		delete(q.replies, op.ID)
		q.counts.Replies = len(q.replies)
	case OpPutRegistration:
		q.regs[op.Registration.Processor] = op.Registration
	case OpDeleteRegistration:
		delete(q.regs, op.Registration.Processor)
	case OpPutDedup:
		q.putDedup(op.Dedup)
	case OpPruneDedup:
		q.prune(op.Expires)
	}
}

func (q *memoryQueue) counter(a Area) *int {
	switch a {
	case Ready:
		return &q.counts.Ready
	case Delayed:
		return &q.counts.Delayed
	default:
		return &q.counts.Dead
	}
}

func (q *memoryQueue) put(r Record) {
	q.areas[r.Place.Area].set(placeKey(r.Place, r.ID), &r)
	*q.counter(r.Place.Area)++
	q.counts.Bytes += int64(r.Size())
	if r.Expires != 0 {
		q.expiry.set(sortKey{timeRank(r.Expires), r.ID}, r.Place)
	}
}

// take removes an item from its place; nil: it is not there.
func (q *memoryQueue) take(p Place, id uint64) *Record {
	if p.Area == Nowhere {
		return nil
	}
	r, ok := q.areas[p.Area].remove(placeKey(p, id))
	if !ok {
		return nil
	}
	*q.counter(p.Area)--
	return r
}

func (q *memoryQueue) move(op *Op) {
	r := q.take(op.From, op.ID)
	if r == nil {
		return
	}
	moved := &Record{Item: r.Item, Marks: op.Marks, Place: op.To}
	q.areas[op.To.Area].set(placeKey(op.To, op.ID), moved)
	*q.counter(op.To.Area)++
	k := sortKey{timeRank(op.Expires), op.ID}
	if _, ok := q.expiry.get(k); ok {
		q.expiry.set(k, op.To)
	}
	q.unlease(op)
}

func (q *memoryQueue) setAside(op *Op) {
	r := q.take(op.From, op.ID)
	if r == nil {
		return
	}
	q.counts.Bytes -= int64(r.Size())
	q.counts.Damaged++
	q.expiry.remove(sortKey{timeRank(r.Expires), r.ID})
	delete(q.leases, op.ID)
}

func (q *memoryQueue) unlease(op *Op) {
	if op.Leased {
		delete(q.leases, op.ID)
	}
}

func (q *memoryQueue) putDedup(d Dedup) {
	if old, ok := q.dedup[d.MsgID]; ok {
		q.pruning.remove(sortKey{timeRank(old.Expires), old.seq})
	}
	q.seen++
	q.dedup[d.MsgID] = memoryDedup{d, q.seen}
	q.pruning.set(sortKey{timeRank(d.Expires), q.seen}, d.MsgID)
	q.counts.Dedup = len(q.dedup)
}

func (q *memoryQueue) prune(before int64) {
	for range PruneMax {
		k, id, ok := q.pruning.first()
		if !ok || rankTime(k.rank) >= before {
			break
		}
		q.pruning.remove(k)
		delete(q.dedup, id)
	}
	q.counts.Dedup = len(q.dedup)
}

// Load implements [Queue].
func (q *memoryQueue) Load() (Snapshot, error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	s := Snapshot{Epoch: q.db.epoch, Counts: q.counts}
	if k, _, ok := q.areas[Delayed].first(); ok {
		s.NextDue = rankTime(k.rank)
	}
	if k, _, ok := q.expiry.first(); ok {
		s.NextExpiry = rankTime(k.rank)
	}
	for _, name := range slices.Sorted(maps.Keys(q.regs)) {
		s.Registrations = append(s.Registrations, q.regs[name])
	}
	for _, id := range slices.Sorted(maps.Keys(q.leases)) {
		if r := q.findReady(id); r != nil {
			s.Leases = append(s.Leases, LeasedRecord{q.leases[id], r.clone()})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(q.replies)) {
		r := q.replies[id]
		s.Replies = append(s.Replies, ReplyHead{r.ID, r.Subject, r.Expires})
	}
	return s, nil
}

// findReady looks for an item in every priority; only Load needs it.
func (q *memoryQueue) findReady(id uint64) *Record {
	for p := range uint64(256) {
		if r, ok := q.areas[Ready].get(sortKey{p, id}); ok {
			return r
		}
	}
	return nil
}

// Ready implements [Queue].
func (q *memoryQueue) Ready(after Cursor, limit Limit) (Page, error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	p := pager{limit: limit}
	start := sortKey{uint64(after.Priority), after.ID}
	q.areas[Ready].from(start, func(k sortKey, r *Record) bool {
		return k == start || p.add(r)
	})
	return p.page, nil
}

// Due implements [Queue].
func (q *memoryQueue) Due(now int64, limit Limit) (Page, error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	p := pager{limit: limit}
	q.areas[Delayed].from(sortKey{}, func(k sortKey, r *Record) bool {
		return p.addUntil(now, rankTime(k.rank), r)
	})
	return p.page, nil
}

// Expired implements [Queue].
func (q *memoryQueue) Expired(now int64, limit Limit) (Page, error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	p := pager{limit: limit}
	q.expiry.from(sortKey{}, func(k sortKey, at Place) bool {
		r, ok := q.areas[at.Area].get(placeKey(at, k.id))
		return !ok || p.addUntil(now, rankTime(k.rank), r)
	})
	return p.page, nil
}

// pager gathers a page within its limit.
type pager struct {
	page  Page
	limit Limit
	bytes int
}

func (p *pager) add(r *Record) bool {
	n := len(p.page.Records)
	size := r.Size()
	if n > 0 && (p.limit.Records > 0 && n >= p.limit.Records || p.limit.Bytes > 0 && p.bytes+size > p.limit.Bytes) {
		p.page.More = true
		return false
	}
	p.bytes += size
	p.page.Records = append(p.page.Records, r.clone())
	return true
}

// addUntil adds a record whose time has come, and notes the time of the first one that is left.
func (p *pager) addUntil(now, time int64, r *Record) bool {
	if time <= now && p.add(r) {
		return true
	}
	p.page.Next = time
	return false
}

// Reply implements [Queue].
func (q *memoryQueue) Reply(id uint64) (Reply, bool, error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	r, ok := q.replies[id]
	if !ok {
		return Reply{}, false, nil
	}
	out := *r
	out.Header, out.Body = cloneHeader(r.Header), slices.Clone(r.Body)
	return out, true, nil
}

// Dedup implements [Queue].
func (q *memoryQueue) Dedup(msgID string) (Dedup, bool, error) {
	q.mu.RLock()
	defer q.mu.RUnlock()
	d, ok := q.dedup[msgID]
	return d.Dedup, ok, nil
}

func (r *Record) clone() Record {
	out := *r
	out.Header, out.Body = cloneHeader(r.Header), slices.Clone(r.Body)
	return out
}

func cloneHeader(h map[string][]string) map[string][]string {
	if h == nil {
		return nil
	}
	out := make(map[string][]string, len(h))
	for k, vs := range h {
		out[k] = slices.Clone(vs)
	}
	return out
}
