package storetest

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"stint/store"
)

// model is a queue as the contract describes it, with none of an engine's cares.
type model struct {
	items   map[uint64]store.Record
	expiry  map[uint64]int64
	leases  map[uint64]store.Lease
	replies map[uint64]store.Reply
	regs    map[string]store.Registration
	dedup   map[string]store.Dedup
	aside   int
	lastID  uint64
}

func newModel() *model {
	return &model{
		items: map[uint64]store.Record{}, expiry: map[uint64]int64{}, leases: map[uint64]store.Lease{},
		replies: map[uint64]store.Reply{}, regs: map[string]store.Registration{}, dedup: map[string]store.Dedup{},
	}
}

// testModel compares an engine with the model over random histories of batches and reopenings.
func testModel(t *testing.T, s suite) {
	if s.caps.Checks > 0 {
		old := flag.Lookup("rapid.checks").Value.String()
		flag.Set("rapid.checks", strconv.Itoa(s.caps.Checks))
		defer flag.Set("rapid.checks", old)
	}
	rapid.Check(t, func(rt *rapid.T) {
		dir := t.TempDir()
		db := s.open(t, dir)
		defer func() { db.Close() }()
		names := []string{"a", "b"}
		models := []*model{newModel(), newModel()}
		queues := make([]store.Queue, 2)
		for i, n := range names {
			queues[i] = Queue(t, db, n)
		}
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			if s.caps.Survives && rapid.IntRange(0, 9).Draw(rt, "reopen") == 0 {
				if err := db.Close(); err != nil {
					rt.Fatal(err)
				}
				db = s.open(t, dir)
				for i, n := range names {
					queues[i] = Queue(t, db, n)
				}
			}
			i := rapid.IntRange(0, 1).Draw(rt, "queue")
			var ops []store.Op
			for range rapid.IntRange(1, 12).Draw(rt, "ops") {
				ops = append(ops, models[i].draw(rt))
			}
			if err := Submit(queues[i], ops...); err != nil {
				rt.Fatalf("batch: %v", err)
			}
			for i := range queues {
				models[i].check(rt, queues[i])
			}
		}
	})
}

// draw makes a random operation and applies it to the model.
func (m *model) draw(t *rapid.T) store.Op {
	id := m.drawID(t)
	r, known := m.items[id]
	kind := store.OpKind(rapid.IntRange(int(store.OpPut), int(store.OpPruneDedup)).Draw(t, "kind"))
	if len(m.items) < 3 {
		kind = store.OpPut
	}
	switch {
	case kind == store.OpPut:
		return m.put(t)
	case kind <= store.OpUnexpire && known:
		return m.change(t, kind, r)
	case kind == store.OpPutLease && known && r.Place.Area == store.Ready:
		l := store.Lease{ID: id, Attempt: rapid.Uint32().Draw(t, "attempt"), Processor: "p", Timeout: 5}
		m.leases[id] = l
		return store.Op{Kind: kind, Lease: l}
	case kind == store.OpDeleteLease:
		delete(m.leases, id)
		return store.Op{Kind: kind, ID: id}
	}
	return m.side(t, id)
}

func (m *model) drawID(t *rapid.T) uint64 {
	if len(m.items) == 0 {
		return 1
	}
	return rapid.SampledFrom(slices.Sorted(maps.Keys(m.items))).Draw(t, "id")
}

func (m *model) put(t *rapid.T) store.Op {
	m.lastID += rapid.Uint64Range(1, 300).Draw(t, "gap")
	r := store.Record{Place: drawPlace(t), Item: store.Item{
		ID: m.lastID, Priority: rapid.Byte().Draw(t, "priority"), Accepted: rapid.Int64().Draw(t, "accepted"),
		Expires: rapid.SampledFrom([]int64{0, 0, 5, 10, 20}).Draw(t, "expires"), Timeout: rapid.Int64().Draw(t, "timeout"),
		MaxAttempts: rapid.Uint32().Draw(t, "max"), Progress: rapid.Bool().Draw(t, "progress"),
		Reply: rapid.StringN(0, 5, -1).Draw(t, "reply"), MsgID: rapid.StringN(0, 5, -1).Draw(t, "msgid"),
		Header: rapid.MapOfN(rapid.StringN(0, 3, -1), rapid.SliceOfN(rapid.StringN(0, 3, -1), 1, 2), 0, 2).Draw(t, "header"),
		Body:   rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "body"),
	}}
	m.items[r.ID] = r
	if r.Expires != 0 {
		m.expiry[r.ID] = r.Expires
	}
	return Put(r)
}

func drawPlace(t *rapid.T) store.Place {
	switch area := store.Area(rapid.IntRange(1, 3).Draw(t, "area")); area {
	case store.Ready:
		return store.Place{Area: area, Priority: rapid.SampledFrom([]byte{0, 1, 255}).Draw(t, "priority")}
	case store.Delayed:
		return store.Place{Area: area, Due: rapid.Int64Range(-3, 30).Draw(t, "due")}
	default:
		return store.Place{Area: area}
	}
}

// change makes an operation on an item that is there.
func (m *model) change(t *rapid.T, kind store.OpKind, r store.Record) store.Op {
	op := store.Op{Kind: kind, ID: r.ID, From: r.Place, Expires: m.expiry[r.ID], Size: r.Size()}
	_, op.Leased = m.leases[r.ID]
	switch kind {
	case store.OpMove:
		op.To = drawPlace(t)
		op.Leased = op.Leased && (op.To.Area != store.Ready || rapid.Bool().Draw(t, "leased"))
		op.Marks = store.Marks{Epoch: 3, Deliveries: rapid.Uint32().Draw(t, "n"), Code: "c", Reason: "r"}
		r.Marks, r.Place = op.Marks, op.To
		m.items[r.ID] = r
		if op.Leased {
			delete(m.leases, r.ID)
		}
		return op
	case store.OpUnexpire:
		delete(m.expiry, r.ID)
		return op
	case store.OpSetAside:
		// An engine cannot know the expiry of a damaged item, so its index may keep it; of a good one it does not.
		op = store.Op{Kind: store.OpDelete, ID: r.ID, From: r.Place, Expires: m.expiry[r.ID], Size: r.Size(), Leased: op.Leased}
	}
	delete(m.items, r.ID)
	delete(m.leases, r.ID)
	delete(m.expiry, r.ID)
	return op
}

// side makes an operation on what is not an item.
func (m *model) side(t *rapid.T, id uint64) store.Op {
	name := rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "name")
	at := rapid.Int64Range(0, 20).Draw(t, "at")
	switch rapid.IntRange(0, 5).Draw(t, "side") {
	case 0:
		r := store.Reply{ID: id, Subject: name, Expires: at, Body: []byte(name)}
		m.replies[id] = r
		return store.Op{Kind: store.OpPutReply, Reply: &r}
	case 1:
		delete(m.replies, id)
		return store.Op{Kind: store.OpDeleteReply, ID: id}
	case 2:
		r := store.Registration{Processor: name, Capacity: int(at), Seen: at}
		m.regs[name] = r
		return store.Op{Kind: store.OpPutRegistration, Registration: r}
	case 3:
		delete(m.regs, name)
		return store.Op{Kind: store.OpDeleteRegistration, Registration: store.Registration{Processor: name}}
	case 4:
		d := store.Dedup{MsgID: name, ID: id, Expires: at, ReplyHash: math.MaxUint64 - id}
		m.dedup[name] = d
		return store.Op{Kind: store.OpPutDedup, Dedup: d}
	default:
		maps.DeleteFunc(m.dedup, func(_ string, d store.Dedup) bool { return d.Expires < at })
		return store.Op{Kind: store.OpPruneDedup, Expires: at}
	}
}

// in returns the items of an area as delivery orders them.
func (m *model) in(area store.Area) []store.Record {
	rs := slices.Collect(maps.Values(m.items))
	rs = slices.DeleteFunc(rs, func(r store.Record) bool { return r.Place.Area != area })
	slices.SortFunc(rs, func(a, b store.Record) int {
		return cmp.Or(cmp.Compare(a.Place.Priority, b.Place.Priority), cmp.Compare(a.Place.Due, b.Place.Due),
			cmp.Compare(a.ID, b.ID))
	})
	return rs
}

func (m *model) counts() store.Counts {
	c := store.Counts{
		Ready: len(m.in(store.Ready)), Delayed: len(m.in(store.Delayed)), Dead: len(m.in(store.Dead)),
		Replies: len(m.replies), Damaged: m.aside, Dedup: len(m.dedup),
	}
	for _, r := range m.items {
		c.Bytes += int64(r.Size())
	}
	return c
}

// check compares all that can be read.
func (m *model) check(t *rapid.T, q store.Queue) {
	snap, err := q.Load()
	if err != nil {
		t.Fatal(err)
	}
	want := store.Snapshot{Epoch: snap.Epoch, Counts: m.counts()}
	for _, k := range slices.Sorted(maps.Keys(m.regs)) {
		want.Registrations = append(want.Registrations, m.regs[k])
	}
	for _, k := range slices.Sorted(maps.Keys(m.leases)) {
		want.Leases = append(want.Leases, store.LeasedRecord{Lease: m.leases[k], Record: m.items[k]})
	}
	for _, k := range slices.Sorted(maps.Keys(m.replies)) {
		r := m.replies[k]
		want.Replies = append(want.Replies, store.ReplyHead{ID: r.ID, Subject: r.Subject, Expires: r.Expires})
	}
	if due := m.in(store.Delayed); len(due) > 0 {
		want.NextDue = due[0].Place.Due
	}
	if e := m.expiring(math.MaxInt64); len(e) > 0 {
		want.NextExpiry = m.expiry[e[0].ID]
	}
	rsame(t, "snapshot", snap, want)
	limit := store.Limit{Records: rapid.IntRange(1, 6).Draw(t, "records"), Bytes: rapid.IntRange(1, 5000).Draw(t, "bytes")}
	rsame(t, "ready", drain(t, q, limit), m.in(store.Ready))
	now := rapid.Int64Range(-4, 31).Draw(t, "now")
	m.checkTimed(t, now, limit, q)
	for _, name := range []string{"x", "y", "z"} {
		got, ok, err := q.Dedup(name)
		d, known := m.dedup[name]
		if err != nil || ok != known || got != d {
			t.Fatalf("dedup %q: %v %v %v, want %v %v", name, got, ok, err, d, known)
		}
	}
}

func (m *model) checkTimed(t *rapid.T, now int64, limit store.Limit, q store.Queue) {
	due := m.in(store.Delayed)
	all := len(due)
	due = slices.DeleteFunc(due, func(r store.Record) bool { return r.Place.Due > now })
	p, err := q.Due(now, store.Limit{})
	checkPage(t, "due", p, err, due, all)
	expiring := m.expiring(now)
	p, err = q.Expired(now, store.Limit{})
	checkPage(t, "expired", p, err, expiring, len(m.expiry))
	p, err = q.Due(now, limit)
	checkPage(t, "some due", p, err, due[:min(len(due), len(p.Records))], all)
	if !p.More && len(p.Records) != len(due) || p.More && len(p.Records) == 0 {
		t.Fatalf("%d of %d due, more: %v", len(p.Records), len(due), p.More)
	}
}

// expiring returns the items in the index whose time has come.
func (m *model) expiring(now int64) (rs []store.Record) {
	for id, at := range m.expiry {
		if at <= now {
			rs = append(rs, m.items[id])
		}
	}
	slices.SortFunc(rs, func(a, b store.Record) int {
		return cmp.Or(cmp.Compare(m.expiry[a.ID], m.expiry[b.ID]), cmp.Compare(a.ID, b.ID))
	})
	return rs
}

func checkPage(t *rapid.T, what string, p store.Page, err error, want []store.Record, all int) {
	if err != nil || len(p.Damaged) > 0 {
		t.Fatalf("%s: %v, damaged %v", what, err, p.Damaged)
	}
	rsame(t, what, p.Records, want)
	if (p.Next != 0) != (len(want) < all) && p.Next != 0 {
		t.Fatalf("%s: next %d with %d of %d read", what, p.Next, len(want), all)
	}
}

func drain(t *rapid.T, q store.Queue, limit store.Limit) (all []store.Record) {
	var at store.Cursor
	for {
		p, err := q.Ready(at, limit)
		if err != nil || len(p.Damaged) > 0 || p.More && len(p.Records) == 0 {
			t.Fatalf("ready: %v, %+v", err, p)
		}
		if limit.Records > 0 && len(p.Records) > limit.Records {
			t.Fatalf("%d records, the limit is %d", len(p.Records), limit.Records)
		}
		all = append(all, p.Records...)
		if !p.More {
			return all
		}
		last := p.Records[len(p.Records)-1]
		at = store.Cursor{Priority: last.Place.Priority, ID: last.ID}
	}
}

func rsame(t *rapid.T, what string, got, want any) {
	if d := diff(got, want); d != "" {
		t.Fatal(fmt.Sprintf("%s (-want +got):\n%s", what, d))
	}
}
