package queue

import (
	"errors"
	"fmt"
	"time"

	"stint/store"
)

// check walks everything that must hold between two steps.
func check(w *world) error {
	q := w.q
	if q.broken {
		return nil // its state is not used again
	}
	for _, f := range []func() error{
		func() error { return checkItems(q) },
		func() error { return checkReady(q) },
		func() error { return checkLeases(q) },
		func() error { return checkRegistrations(q) },
		func() error { return checkReplies(q, w) },
		func() error { return checkCounts(q, w) },
		func() error { return checkHopes(q) },
		func() error { return checkBounds(q) },
	} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

// checkHopes: what hopes to be answered before it is written is listed by age, nothing of it is on disk, and it is in memory.
func checkHopes(q *Queue) error {
	bytes, last := 0, time.Time{}
	listed := map[*item]bool{}
	for _, it := range q.hopes.All() {
		bytes += it.size
		switch {
		case listed[it] || it.arrived.Before(last):
			return fmt.Errorf("item %x hopes twice, or out of turn", it.id())
		case it.hopes && (it.dirty || it.inflight || it.written() || it.dedupDue || it.spill || it.failed):
			return fmt.Errorf("item %x hopes not to be written, and is or has to be", it.id())
		case it.hopes && (it.phase == waiting || it.phase == leased) && q.items[it.id()] != it:
			return fmt.Errorf("item %x hopes and is not in memory", it.id())
		}
		listed[it], last = true, it.arrived
	}
	for id, it := range q.items {
		if it.hopes && !listed[it] {
			return fmt.Errorf("item %x hopes and is not listed", id)
		}
	}
	if bytes != q.hopes.bytes {
		return fmt.Errorf("%d bytes hope, %d are counted", bytes, q.hopes.bytes)
	}
	return nil
}

// checkItems: each item in memory is in one state, and that state has what it needs.
func checkItems(q *Queue) error {
	bytes, leasedNow := 0, 0
	listed := map[*item]bool{}
	for _, it := range q.dirty {
		if listed[it] || !it.dirty {
			return fmt.Errorf("item %x is on the list for the next batch twice or without its mark", it.id())
		}
		listed[it] = true
	}
	inBatch := map[*item]bool{}
	if q.underway != nil {
		for _, c := range q.underway.changes {
			inBatch[c.it] = true
		}
	}
	for id, it := range q.items {
		bytes += it.size
		switch {
		case id != it.id() || !it.counted:
			return fmt.Errorf("item %x is kept as %x", it.id(), id)
		case it.dirty != listed[it]:
			return fmt.Errorf("item %x is marked for the next batch but not listed", id)
		case it.inflight != inBatch[it]:
			return fmt.Errorf("item %x: inflight is %v, but in the batch under way it is %v", id, it.inflight, inBatch[it])
		case (it.phase == leased) != (it.lease != nil):
			return fmt.Errorf("item %x: phase %d, but lease %v", id, it.phase, it.lease)
		case it.size != it.rec.Size():
			return fmt.Errorf("item %x: size %d is counted as %d", id, it.rec.Size(), it.size)
		case (it.phase == parked || it.phase == gone) && !it.dirty && !it.inflight:
			return fmt.Errorf("item %x: phase %d, and nothing will take it out of memory", id, it.phase)
		case (it.phase == gone || it.phase == replying) != (it.rec.Place.Area == store.Nowhere):
			return fmt.Errorf("item %x: phase %d at %v", id, it.phase, it.rec.Place)
		case (it.phase == waiting || it.phase == leased) && it.rec.Place.Area != store.Ready:
			return fmt.Errorf("item %x: phase %d at %v", id, it.phase, it.rec.Place)
		case it.phase != waiting && it.spill:
			return fmt.Errorf("item %x is spilled and has phase %d", id, it.phase)
		case it.failed && it.written():
			return fmt.Errorf("item %x failed to be written, and is written", id)
		case it.stored != it.rec.Place && !it.dirty && !it.hopes && !it.failed && it.phase != replying:
			return fmt.Errorf("item %x stands at %v, shall stand at %v, and will not be moved", id, it.stored, it.rec.Place)
		}
		if it.phase == leased {
			leasedNow++
		}
	}
	if bytes != q.memBytes || leasedNow != q.stats.Leased {
		return fmt.Errorf("%d bytes and %d leased are counted as %d and %d", bytes, leasedNow, q.memBytes, q.stats.Leased)
	}
	return nil
}

// checkReady: every waiting item in memory is in the list once, in order.
func checkReady(q *Queue) error {
	l := &q.ready
	seen, stale := map[*item]bool{}, 0
	add := func(it *item) error {
		switch {
		case it.phase != waiting:
			stale++
		case seen[it] || q.items[it.id()] != it:
			return fmt.Errorf("item %x is in the ready list twice, or is not in memory", it.id())
		default:
			seen[it] = true
		}
		return nil
	}
	for i, it := range l.ring.All() {
		if err := add(it); err != nil {
			return err
		}
		if i > 0 && !less(l.ring.All()[i-1], it) {
			return fmt.Errorf("item %x is out of order in the ready list", it.id())
		}
	}
	for i, it := range l.back {
		if err := add(it); err != nil {
			return err
		}
		if i > 0 && less(it, l.back[(i-1)/2]) {
			return fmt.Errorf("the heap of returned items is out of order at %x", it.id())
		}
	}
	for id, it := range q.items {
		if it.phase == waiting && !seen[it] {
			return fmt.Errorf("item %x waits but is not in the ready list", id)
		}
	}
	if l.stale != stale || l.len() != len(seen) {
		return fmt.Errorf("the ready list has %d items and %d stale ones, counted as %d and %d", len(seen), stale, l.len(), l.stale)
	}
	return nil
}

// checkLeases: current and late leases, the heap of deadlines and the list by age agree.
func checkLeases(q *Queue) error {
	for i, l := range q.ends.h {
		if l.isIn(inLine) || l.at != i || i > 0 && l.deadline.Before(q.ends.h[(i-1)/2].deadline) {
			return fmt.Errorf("the heap of deadlines is broken at %d", i)
		}
		if l.it == nil && q.late[l.key] != l {
			return fmt.Errorf("lease %v has a deadline, but is neither current nor late", l.key)
		}
	}
	var ahead *lease
	for l := q.ends.line.head; l != nil; ahead, l = l, l.links[inLine].newer {
		if !l.isIn(inLine) || l.at >= 0 || l.links[inLine].older != ahead || ahead != nil && l.deadline.Before(ahead.deadline) {
			return fmt.Errorf("the line of deadlines is broken at lease %v", l.key)
		}
		if l.it == nil && q.late[l.key] != l {
			return fmt.Errorf("lease %v is in line, but is neither current nor late", l.key)
		}
	}
	if q.ends.line.tail != ahead {
		return errors.New("the line of deadlines has another end")
	}
	for id, it := range q.items {
		if l := it.lease; l != nil && (l.it != it || !q.ends.has(l) || l.key != leaseKey{id, it.rec.Deliveries}) {
			return fmt.Errorf("lease %v of item %x (delivery %d) has index %d in the deadlines", l.key, id, it.rec.Deliveries, l.at)
		}
	}
	for k, l := range q.late {
		if l.key != k || l.it != nil || l.isIn(byAge) || l.reg.removed && !q.ends.has(l) {
			return fmt.Errorf("late lease %v is kept as %v", l.key, k)
		}
	}
	var before *lease
	for l := q.byAge.head; l != nil; before, l = l, l.links[byAge].newer {
		if !l.isIn(byAge) || l.it == nil || l.links[byAge].older != before || before != nil && l.started.Before(before.started) {
			return fmt.Errorf("the list by age is broken at %v", l.key)
		}
	}
	if q.byAge.tail != before {
		return fmt.Errorf("the list by age does not end where it should")
	}
	return nil
}

// checkRegistrations: slots in use are leases, and who has room is in turn, so that nobody is forgotten.
func checkRegistrations(q *Queue) error {
	absent, current, late := 0, 0, 0
	one := func(r *registration) error {
		n := 0
		for l, prev := r.leases, (*lease)(nil); l != nil; prev, l = l, l.next {
			if l.reg != r || l.prev != prev {
				return fmt.Errorf("the leases of %s are broken at %v", r.subject, l.key)
			}
			if n++; l.it == nil {
				late++
			} else {
				current++
			}
		}
		if n != r.held {
			return fmt.Errorf("%s holds %d, counted as %d", r.subject, n, r.held)
		}
		return nil
	}
	inTurn := map[*registration]bool{}
	for _, r := range q.room.turn[q.room.head:] {
		if inTurn[r] || !r.queued {
			return fmt.Errorf("%s is in turn twice or without its mark", r.subject)
		}
		inTurn[r] = true
	}
	for s, r := range q.regs {
		if err := one(r); err != nil {
			return err
		}
		if r.absent {
			absent++
		}
		if r.removed || s != r.subject || r.queued != inTurn[r] || r.hasRoom() && !r.queued {
			return fmt.Errorf("%s: removed %v, in turn %v (marked %v), has room %v", s, r.removed, inTurn[r], r.queued, r.hasRoom())
		}
	}
	for s, r := range q.leaving {
		if err := one(r); err != nil {
			return err
		}
		if !r.removed || r.held == 0 || q.regs[s] != nil {
			return fmt.Errorf("%s is leaving: removed %v, holds %d", s, r.removed, r.held)
		}
	}
	if absent != q.absent || current != q.stats.Leased || late != len(q.late) {
		return fmt.Errorf("%d absent, %d leased, %d late are counted as %d, %d, %d", absent, current, late, q.absent, q.stats.Leased, len(q.late))
	}
	return checkIdle(q)
}

// checkIdle: nothing waits in memory while somebody has room.
func checkIdle(q *Queue) error {
	if q.stopping {
		return nil
	}
	for id, it := range q.items {
		for s, r := range q.regs {
			if it.phase == waiting && r.hasRoom() {
				return fmt.Errorf("item %x waits while %s has room", id, s)
			}
		}
	}
	return nil
}

// checkReplies: what is on record, or will be after the batches under way and to come, is what is in memory.
func checkReplies(q *Queue, w *world) error {
	want := map[uint64]bool{}
	for id := range w.m.replies {
		want[id] = true
	}
	if q.underway != nil {
		for i := range q.underway.Ops {
			switch op := &q.underway.Ops[i]; op.Kind {
			case store.OpPutReply:
				want[op.Reply.ID] = true
			case store.OpDeleteReply:
				delete(want, op.ID)
			}
		}
	}
	for _, id := range q.replyDrops {
		delete(want, id)
	}
	waiting := 0
	for _, r := range q.replyPuts {
		delete(want, r.id)
		waiting++
	}
	known := 0
	for id, r := range q.replies {
		if want[id] {
			known++
		} else if r.state != putting {
			return fmt.Errorf("reply %x in state %d is not on record", id, r.state)
		}
	}
	if known != len(want) || len(q.replies) > known+waiting {
		return fmt.Errorf("%d replies are on record, %d of them and %d others in memory", len(want), known, len(q.replies)-known)
	}
	return checkKept(q)
}

func checkKept(q *Queue) error {
	live := 0
	seen := map[*reply]bool{}
	for _, r := range q.kept {
		if seen[r] {
			return fmt.Errorf("reply %x is among the kept ones twice", r.id)
		}
		if seen[r] = true; r.state == kept {
			live++
		}
	}
	if live != q.keptLive || live > q.opt.MaxReplies {
		return fmt.Errorf("%d kept replies are counted as %d, the limit is %d", live, q.keptLive, q.opt.MaxReplies)
	}
	for _, r := range q.sent {
		if r.state != sent || q.replies[r.id] != r {
			return fmt.Errorf("reply %x is among the sent ones in state %d", r.id, r.state)
		}
	}
	return nil
}

// standing is an item as the counters should see it.
type standing struct {
	place store.Place
	size  int
}

// standings works out where every item stands: what is stored, then what the batch under way changes, then what memory
// says. The last is how it shall be once all is written.
func standings(q *Queue, m *model) map[uint64]standing {
	all := map[uint64]standing{}
	for id, r := range m.items {
		all[id] = standing{r.Place, r.Size()}
	}
	if q.underway != nil {
		for i := range q.underway.Ops {
			switch op := &q.underway.Ops[i]; op.Kind {
			case store.OpPut:
				all[op.Record.ID] = standing{op.Record.Place, op.Record.Size()}
			case store.OpMove:
				all[op.ID] = standing{op.To, op.Size}
			case store.OpDelete, store.OpSetAside:
				delete(all, op.ID)
			}
		}
	}
	for i := range q.extra {
		if q.extra[i].Kind == store.OpSetAside {
			delete(all, q.extra[i].ID)
		}
	}
	for _, it := range q.dirty {
		if it.spill && !it.written() {
			all[it.id()] = standing{it.rec.Place, it.size}
		}
	}
	for id, it := range q.items {
		all[id] = standing{it.rec.Place, it.size}
	}
	return all
}

// checkCounts: the counters agree with the items, and whatever is in Ready and not in memory is beyond the cursor.
func checkCounts(q *Queue, w *world) error {
	var c store.Counts
	spilled := 0
	for id, s := range standings(q, w.m) {
		switch s.place.Area {
		case store.Ready:
			c.Ready++
			if q.items[id] == nil {
				spilled++
				if !q.beyond(store.Cursor{Priority: s.place.Priority, ID: id}) {
					return fmt.Errorf("item %x is neither in memory nor beyond the cursor %x", id, q.cursor.ID)
				}
			}
		case store.Delayed:
			c.Delayed++
		case store.Dead:
			c.Dead++
		default:
			continue
		}
		c.Bytes += int64(s.size)
	}
	g := q.counts
	if len(w.m.spoilt) > 0 {
		g.Bytes = c.Bytes // the size of a record that cannot be read is not known
	}
	if g.Ready != c.Ready || g.Delayed != c.Delayed || g.Dead != c.Dead || g.Bytes != c.Bytes || spilled != q.spilled {
		return fmt.Errorf("counted are %+v with %d spilled, there are %+v with %d spilled", q.counts, q.spilled, c, spilled)
	}
	if q.underway == nil && len(q.extra) == 0 && q.counts.Dedup < len(w.m.dedup) {
		return fmt.Errorf("%d message ids are counted, %d are stored", q.counts.Dedup, len(w.m.dedup))
	}
	if q.total() > q.opt.MaxItems || q.counts.Bytes > q.opt.MaxBytes {
		return fmt.Errorf("%+v is more than the limits", q.counts)
	}
	return nil
}

// checkBounds: nothing grows beyond its limit. What is read as due or expired may exceed the window by a page each.
func checkBounds(q *Queue) error {
	moving := 0
	for _, it := range q.items {
		if it.phase == gone || it.phase == parked || it.phase == replying {
			moving++
		}
	}
	page := min(q.opt.WindowItems, 256)
	switch {
	case len(q.items)-moving > q.opt.WindowItems+page:
		return fmt.Errorf("%d items in memory, window_items is %d", len(q.items), q.opt.WindowItems)
	case len(q.regs) > q.opt.MaxProcessors:
		return fmt.Errorf("%d processors, max_processors is %d", len(q.regs), q.opt.MaxProcessors)
	case len(q.room.turn)-q.room.head > 64+4*len(q.regs):
		return fmt.Errorf("%d entries in turn for %d processors", len(q.room.turn)-q.room.head, len(q.regs))
	case q.ready.ring.Len()+len(q.ready.back) > 2*len(q.items)+2048:
		return fmt.Errorf("the ready list has %d entries for %d items", q.ready.ring.Len()+len(q.ready.back), len(q.items))
	case len(q.kept) > 2*q.keptLive+64+q.opt.MaxReplies:
		return fmt.Errorf("%d entries for %d kept replies", len(q.kept), q.keptLive)
	case len(q.recent) > len(q.dirty)+underwayItems(q)+len(q.items):
		return fmt.Errorf("%d message ids are remembered beyond what is being written", len(q.recent))
	case len(q.aside) > settingAside(q):
		return fmt.Errorf("%d damaged records are remembered, %d are being set aside", len(q.aside), settingAside(q))
	case len(q.dedupAges) > q.counts.Dedup:
		return fmt.Errorf("%d groups of %d message ids", len(q.dedupAges), q.counts.Dedup)
	}
	return nil
}

func underwayItems(q *Queue) int {
	if q.underway == nil {
		return 0
	}
	return len(q.underway.changes)
}

func settingAside(q *Queue) int {
	n := 0
	ops := q.extra
	if q.underway != nil {
		ops = append(q.underway.Ops[:len(q.underway.Ops):len(q.underway.Ops)], ops...)
	}
	for i := range ops {
		if ops[i].Kind == store.OpSetAside {
			n++
		}
	}
	return n
}

// has says whether a lease is among them.
func (d *deadlines) has(l *lease) bool { return l.isIn(inLine) || l.at >= 0 }

// len counts them.
func (d *deadlines) len() int {
	n := len(d.h)
	for l := d.line.head; l != nil; l = l.links[inLine].newer {
		n++
	}
	return n
}
