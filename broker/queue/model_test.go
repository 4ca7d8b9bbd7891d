package queue

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"stint/store"
)

// model is a store as plain as can be: maps, and every read sorts them. It is stricter than the contract: a change to
// what is not there, which an engine would pass over, is a defect of the rules and is returned as an error.
type model struct {
	epoch   uint32
	items   map[uint64]store.Record
	leases  map[uint64]store.Lease
	replies map[uint64]store.Reply
	regs    map[string]store.Registration
	dedup   map[string]store.Dedup
	expiry  map[uint64]bool
	spoilt  map[uint64]bool // records that are read as damaged
	aside   map[uint64]bool
	ever    map[uint64]bool // every item that was put
}

func newModel() *model {
	return &model{
		epoch: 1, items: map[uint64]store.Record{}, leases: map[uint64]store.Lease{}, replies: map[uint64]store.Reply{},
		regs: map[string]store.Registration{}, dedup: map[string]store.Dedup{}, expiry: map[uint64]bool{},
		spoilt: map[uint64]bool{}, aside: map[uint64]bool{}, ever: map[uint64]bool{},
	}
}

func (m *model) apply(ops []store.Op) error {
	if err := (&store.Batch{Ops: ops}).Check(); err != nil {
		return err
	}
	for i := range ops {
		if err := m.applyOne(&ops[i]); err != nil {
			return fmt.Errorf("operation %d (kind %d) of %d on item %d: %w", i+1, ops[i].Kind, len(ops), ops[i].ID, err)
		}
	}
	return nil
}

func (m *model) applyOne(op *store.Op) error {
	switch op.Kind {
	case store.OpPut:
		return m.put(op)
	case store.OpMove:
		return m.move(op)
	case store.OpDelete:
		if err := m.check(op); err != nil {
			return err
		}
		m.drop(op.ID)
	case store.OpSetAside:
		if m.aside[op.ID] {
			return fmt.Errorf("set aside twice")
		}
		if at := m.items[op.ID].Place; at != op.From {
			return fmt.Errorf("set aside from %v, but it stands at %v", op.From, at)
		}
		m.drop(op.ID)
		m.aside[op.ID] = true
	case store.OpUnexpire:
		delete(m.expiry, op.ID)
	case store.OpPutLease:
		if m.items[op.Lease.ID].Place.Area != store.Ready {
			return fmt.Errorf("a lease of an item that is not in Ready")
		}
		m.leases[op.Lease.ID] = op.Lease
	default:
		return m.applyOther(op)
	}
	return nil
}

func (m *model) applyOther(op *store.Op) error {
	switch op.Kind {
	case store.OpDeleteLease:
		if _, ok := m.leases[op.ID]; !ok {
			return fmt.Errorf("no such lease")
		}
		delete(m.leases, op.ID)
	case store.OpPutReply:
		if _, ok := m.replies[op.Reply.ID]; ok {
			return fmt.Errorf("a second reply")
		}
		m.replies[op.Reply.ID] = *op.Reply
	case store.OpDeleteReply:
		if _, ok := m.replies[op.ID]; !ok {
			return fmt.Errorf("no such reply")
		}
		delete(m.replies, op.ID)
	case store.OpPutRegistration:
		m.regs[op.Registration.Processor] = op.Registration
	case store.OpDeleteRegistration:
		delete(m.regs, op.Registration.Processor)
	case store.OpPutDedup:
		m.dedup[op.Dedup.MsgID] = op.Dedup
	case store.OpPruneDedup:
		m.prune(op.Expires)
	}
	return nil
}

func (m *model) put(op *store.Op) error {
	if _, ok := m.items[op.Record.ID]; ok {
		return fmt.Errorf("put twice")
	}
	m.items[op.Record.ID], m.ever[op.Record.ID] = *op.Record, true
	if op.Record.Expires != 0 {
		m.expiry[op.Record.ID] = true
	}
	return nil
}

func (m *model) move(op *store.Op) error {
	if err := m.check(op); err != nil {
		return err
	}
	r := m.items[op.ID]
	o, n := r.Marks, op.Marks
	if n.Deliveries < o.Deliveries || n.Attempts < o.Attempts || n.Deaths < o.Deaths || n.Epoch != m.epoch {
		return fmt.Errorf("marks go back from %+v to %+v", o, n)
	}
	r.Marks, r.Place = op.Marks, op.To
	m.items[op.ID] = r
	delete(m.leases, op.ID)
	return nil
}

// check says whether op describes the item as it is.
func (m *model) check(op *store.Op) error {
	r, ok := m.items[op.ID]
	_, leased := m.leases[op.ID]
	switch {
	case !ok:
		return fmt.Errorf("no such item")
	case r.Place != op.From:
		return fmt.Errorf("it stands at %v, not at %v", r.Place, op.From)
	case r.Size() != op.Size || r.Expires != op.Expires:
		return fmt.Errorf("size %d, expires %d; the operation says %d, %d", r.Size(), r.Expires, op.Size, op.Expires)
	case leased && !op.Leased:
		return fmt.Errorf("it has a lease on record, which would stay")
	}
	return nil
}

func (m *model) drop(id uint64) {
	delete(m.items, id)
	delete(m.expiry, id)
	delete(m.leases, id)
}

func (m *model) prune(before int64) {
	var old []store.Dedup
	for _, d := range m.dedup {
		if d.Expires < before {
			old = append(old, d)
		}
	}
	slices.SortFunc(old, func(a, b store.Dedup) int {
		return cmp.Or(cmp.Compare(a.Expires, b.Expires), cmp.Compare(a.ID, b.ID))
	})
	for _, d := range old[:min(len(old), store.PruneMax)] {
		delete(m.dedup, d.MsgID)
	}
}

func (m *model) counts() store.Counts {
	c := store.Counts{Replies: len(m.replies), Damaged: len(m.aside), Dedup: len(m.dedup)}
	for _, r := range m.items {
		c.Bytes += int64(r.Size())
		switch r.Place.Area {
		case store.Ready:
			c.Ready++
		case store.Delayed:
			c.Delayed++
		case store.Dead:
			c.Dead++
		}
	}
	return c
}

// load is what a queue starts from.
func (m *model) load() store.Snapshot {
	s := store.Snapshot{Epoch: m.epoch, Counts: m.counts()}
	for _, id := range slices.Sorted(maps.Keys(m.items)) {
		r := m.items[id]
		if r.Place.Area == store.Delayed {
			s.NextDue = earlier(s.NextDue, r.Place.Due)
		}
		if m.expiry[id] {
			s.NextExpiry = earlier(s.NextExpiry, r.Expires)
		}
		if l, ok := m.leases[id]; ok && !m.spoilt[id] {
			s.Leases = append(s.Leases, store.LeasedRecord{Lease: l, Record: r})
		}
	}
	for _, p := range slices.Sorted(maps.Keys(m.regs)) {
		s.Registrations = append(s.Registrations, m.regs[p])
	}
	for _, id := range slices.Sorted(maps.Keys(m.replies)) {
		r := m.replies[id]
		s.Replies = append(s.Replies, store.ReplyHead{ID: r.ID, Subject: r.Subject, Expires: r.Expires})
	}
	return s
}

// read answers a Read of items.
func (m *model) read(r Read) store.Page {
	key := func(rec store.Record) (bool, int64) { return rec.Place.Area == store.Ready, int64(rec.Priority) }
	until := int64(1) << 62
	switch r.Kind {
	case ReadDue:
		until = r.Now
		key = func(rec store.Record) (bool, int64) { return rec.Place.Area == store.Delayed, rec.Place.Due }
	case ReadExpired:
		until = r.Now
		key = func(rec store.Record) (bool, int64) { return m.expiry[rec.ID], rec.Expires }
	}
	var found []store.Record
	for _, rec := range m.items {
		ok, rank := key(rec)
		after := cmp.Or(cmp.Compare(rank, int64(r.After.Priority)), cmp.Compare(rec.ID, r.After.ID)) > 0
		if ok && (r.Kind != ReadReady || after) {
			found = append(found, rec)
		}
	}
	slices.SortFunc(found, func(a, b store.Record) int {
		_, x := key(a)
		_, y := key(b)
		return cmp.Or(cmp.Compare(x, y), cmp.Compare(a.ID, b.ID))
	})
	return m.cut(found, r, func(rec store.Record) int64 { _, rank := key(rec); return rank }, until)
}

// cut makes a page of what was found, within the limit and the time.
func (m *model) cut(found []store.Record, r Read, rank func(store.Record) int64, until int64) store.Page {
	var p store.Page
	n, bytes := 0, 0
	for _, rec := range found {
		late := rank(rec) > until
		over := n > 0 && (n >= r.Limit.Records || bytes+rec.Size() > r.Limit.Bytes)
		if late || over {
			p.More = over && !late
			if r.Kind != ReadReady {
				p.Next = rank(rec)
			}
			return p
		}
		n++
		bytes += rec.Size()
		if m.spoilt[rec.ID] {
			p.Damaged = append(p.Damaged, store.Damage{ID: rec.ID, Place: rec.Place, What: "item", Err: store.ErrDamaged})
			continue
		}
		p.Records = append(p.Records, rec)
	}
	return p
}
