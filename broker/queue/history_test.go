package queue

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"stint/store"
	"stint/wire"
)

// history is what the senders and processors of a random world have seen. It judges the broker from outside: it knows
// what was published and nothing of the rules.
type history struct {
	w     *world
	sends map[string]*sending // by name
	ids   map[uint64]*sending
	// batches are the sends of several items: by name, the names of the items.
	batches map[string][]string
	joined  map[uint64]int // by message of work: how many items of it have been looked at
	given   []handed       // what processors got, oldest first
	turns   []Msg          // turns of conversations that senders got
	onWay   []Msg          // with the server, but not yet for certain with the sender
	safe    int            // how many of them are covered by the flush under way
	epoch   int            // restarts and lost connections so far

	finals  map[uint64]bool // published by this broker
	lastNew uint64          // highest item that was delivered for the first time by this broker
	turn    int             // counts dispatches
	lastTo  map[string]int  // processor: turn of its last dispatch
	roomAt  map[string]int  // processor: turn since when it has had room
}

type handed struct {
	name, processor string
	attempt         uint32
}

// sending is one send and what came back.
type sending struct {
	name              string
	id                uint64
	epoch             int
	msgID             string
	at                time.Time // when it was sent
	accepted          int
	dup               bool // accepted as an item that was there before
	atAccept, atReply []wire.Code
	finals            []string
	replies           map[string]bool // bodies that processors completed it with
	given             bool
	lost              bool // its record was spoilt
	missed            bool // nobody was there when a notice came
}

func newHistory(w *world) *history {
	h := &history{w: w, sends: map[string]*sending{}, ids: map[uint64]*sending{}, batches: map[string][]string{}}
	h.reset()
	w.onMsg = h.published
	w.onStep = h.stepped
	return h
}

func (h *history) reset() {
	h.finals, h.lastNew, h.turn = map[uint64]bool{}, 0, 0
	h.lastTo, h.roomAt = map[string]int{}, map[string]int{}
	h.joined = map[uint64]int{}
}

func (h *history) fail(format string, args ...any) {
	h.w.t.Helper()
	h.w.t.Fatalf(format, args...)
}

// stepped checks, after each step, what it said about dispatching.
func (h *history) stepped(out *Out) {
	q := h.w.q
	for _, m := range h.newWork(out) {
		if r := q.regs[m.To]; r == nil || r.withheld || r.absent || r.held > r.capacity {
			h.fail("work for %s, which is %+v", m.To, r)
		}
		h.inTurn(m.To)
		h.inOrder(m.Item)
	}
	for s, r := range q.regs {
		if _, had := h.roomAt[s]; !r.hasRoom() {
			delete(h.roomAt, s)
		} else if !had {
			h.roomAt[s] = h.turn
		}
	}
	for s := range h.roomAt {
		if q.regs[s] == nil {
			delete(h.roomAt, s)
		}
	}
}

// inOrder: items are given out for the first time in the order in which they were taken in. What goes to several processors
// in one round may leave in another order.
func (h *history) inOrder(item uint64) {
	s := h.ids[item]
	if s == nil || s.given {
		return
	}
	if item < h.lastNew {
		h.fail("%s is given out for the first time after a newer item", s.name)
	}
	s.given, h.lastNew = true, item
}

// newWork is the work that the last step gave out, in that order: the one of the items.
func (h *history) newWork(out *Out) []Msg {
	var work []Msg
	for _, m := range out.Msgs {
		if m.Kind == Work && !strings.HasSuffix(m.To, ".turn") {
			work = append(work, m)
		}
	}
	for i := range out.Work {
		b := &out.Work[i]
		if r := h.w.q.regs[b.To]; r != nil && len(b.Items) > max(r.batch, h.joined[b.number]) {
			h.fail("%s gets %d items in one message, it takes %d", b.To, len(b.Items), r.batch)
		}
		for _, g := range b.Items[h.joined[b.number]:] {
			work = append(work, Msg{To: b.To, Item: g.Item})
		}
		h.joined[b.number] = len(b.Items)
	}
	slices.SortFunc(work, func(a, b Msg) int { return cmp.Compare(a.Item, b.Item) })
	return work
}

// published takes note of everything the broker publishes.
func (h *history) published(m *Msg, heard bool) {
	if m.Kind == Work {
		if !strings.HasSuffix(m.To, ".turn") {
			h.dispatched(m, heard)
		}
		return
	}
	if m.Kind == Final {
		marked := len(m.Header[wire.HeaderRedelivered]) > 0
		if heard && h.finals[m.Item] && (!marked || h.epoch == 0) {
			h.fail("a second final of %s", h.w.name(m.Item))
		}
		if heard {
			h.finals[m.Item] = true
		}
		if at := h.w.m.items[m.Item].Place.Area; h.w.opt.Persistent && at != store.Nowhere && at != store.Dead {
			h.fail("the final of %s left while its item is still on record", h.w.name(m.Item))
		}
	}
	if m.Kind == Notice && strings.HasPrefix(m.To, "a.") {
		h.checkAccepted(m)
	}
	if heard {
		h.onWay = append(h.onWay, *m)
	} else if m.Kind == Notice {
		_, name := addressee(m.To)
		for _, s := range h.membersOf(name) {
			s.missed = true
		}
	}
}

// addressee is what a message is, and the name of the send that it is for.
func addressee(to string) (kind, name string) {
	subject, key, _ := SplitReply(to)
	kind, name, _ = strings.Cut(subject, ".")
	if key != "" {
		name = key
	}
	return kind, name
}

// membersOf are the sends that a name stands for.
func (h *history) membersOf(name string) []*sending {
	if s := h.sends[name]; s != nil {
		return []*sending{s}
	}
	var all []*sending
	for _, n := range h.batches[name] {
		all = append(all, h.sends[n])
	}
	return all
}

// checkAccepted: accepted is said of what is on disk or completed, of nothing else.
func (h *history) checkAccepted(m *Msg) {
	st, _ := wire.ParseStatus(m.Body)
	if st.Status != "accepted" {
		return
	}
	if b, ok := wire.ParseBatchAccepted(m.Body); ok {
		_, name := addressee(m.To)
		for i, s := range h.membersOf(name) {
			if v := verdictOn(&b, s.name); v == "" {
				h.checkSafe(b.First + uint64(i))
			}
		}
		return
	}
	id, _ := wire.ParseID(st.ID)
	h.checkSafe(id)
}

// verdictOn is what the notice of a batch says of one item: "" for accepted, "duplicate <id>", or the code of an error.
func verdictOn(b *wire.BatchAccepted, key string) string {
	for _, d := range b.Duplicates {
		if d.Key == key {
			return "duplicate " + d.ID
		}
	}
	for _, r := range b.Refused {
		if slices.Contains(r.Keys, key) {
			return string(r.Code)
		}
	}
	return ""
}

func (h *history) checkSafe(id uint64) {
	if h.ids[id] == nil {
		h.fail("item %x is called accepted, and nobody sent it", id)
	}
	if !h.w.m.ever[id] && !h.finals[id] && len(h.ids[id].replies) == 0 {
		if _, kept := h.w.m.replies[id]; !kept {
			h.fail("%s is called accepted, but it is neither on disk nor completed", h.w.name(id))
		}
	}
}

func (h *history) dispatched(m *Msg, heard bool) {
	s := h.ids[m.Item]
	switch {
	case s == nil:
		h.fail("work of item %x, which nobody sent", m.Item)
	case string(m.Body) != s.name:
		h.fail("%s arrives as %q", s.name, m.Body)
	case len(s.finals) > 0 || h.finals[m.Item]:
		h.fail("%s is delivered after its final", s.name)
	case definite(s.atAccept) || definite(s.atReply) || s.dup:
		h.fail("%s is delivered, though its sender heard %v %v", s.name, s.atAccept, s.atReply)
	}
	if heard {
		h.given = append(h.given, handed{s.name, m.To, m.N})
		if len(h.given) > 400 {
			h.given = slices.Delete(h.given, 0, 200)
		}
	}
}

// inTurn: whoever has had room since to was last served comes before it.
func (h *history) inTurn(to string) {
	last, before := h.lastTo[to]
	for s, since := range h.roomAt {
		if r := h.w.q.regs[s]; s != to && before && r != nil && r.hasRoom() && since < last && h.lastTo[s] < last {
			h.fail("%s gets work again before %s has had its turn", to, s)
		}
	}
	h.turn++
	h.lastTo[to] = h.turn
}

// hear lets the first n messages on the way arrive for certain.
func (h *history) hear(n int) {
	for i := range h.onWay[:n] {
		h.heard(&h.onWay[i])
	}
	h.onWay = append([]Msg(nil), h.onWay[n:]...)
	h.safe = max(0, h.safe-n)
}

func (h *history) heard(m *Msg) {
	kind, name := addressee(m.To)
	if h.batches[name] != nil {
		h.heardBatch(kind, name, m)
		return
	}
	s := h.sends[name]
	st, isStatus := wire.ParseStatus(m.Body)
	switch {
	case kind == "reg" || kind == "talk":
	case kind == "a" && st.Status == "accepted":
		s.accepted++
		id, _ := wire.ParseID(st.ID)
		s.dup = h.ids[id] != s
	case kind == "a" && isStatus:
		s.atAccept = append(s.atAccept, wire.Code(st.Code))
	case m.Kind == Final:
		h.heardFinal(s, m)
	case m.Kind == Turn:
		h.turns = append(h.turns, *m)
	case isStatus:
		s.atReply = append(s.atReply, wire.Code(st.Code))
	}
	if s != nil {
		h.consistent(s)
	}
}

// heardBatch is word of all items of a batch.
func (h *history) heardBatch(kind, name string, m *Msg) {
	st, _ := wire.ParseStatus(m.Body)
	b, isNotice := wire.ParseBatchAccepted(m.Body)
	members := h.membersOf(name)
	if isNotice && b.Count != len(members) {
		h.fail("the notice of %s is about %d items, %d were sent", name, b.Count, len(members))
	}
	for i, s := range members {
		verdict := st.Code
		if isNotice {
			verdict = verdictOn(&b, s.name)
		}
		switch {
		case verdict == "":
			s.accepted++
			s.dup = h.ids[b.First+uint64(i)] != s
		case strings.HasPrefix(verdict, "duplicate "):
			id, _ := wire.ParseID(verdict[len("duplicate "):])
			s.accepted++
			s.dup = h.ids[id] != s
		case kind == "a":
			s.atAccept = append(s.atAccept, wire.Code(verdict))
		default:
			s.atReply = append(s.atReply, wire.Code(verdict))
		}
		h.consistent(s)
	}
}

// consistent: a send is accepted or refused, once.
func (h *history) consistent(s *sending) {
	if refused := len(s.atAccept) > 0; refused && s.accepted > 0 || s.accepted > 1 || len(s.atAccept) > 1 || len(s.atReply) > 1 {
		h.fail("%s: accepted %d times, heard the errors %v and %v", s.name, s.accepted, s.atAccept, s.atReply)
	}
	if s.accepted > 0 && !s.dup && len(s.atReply) > 0 || definite(s.atReply) && len(s.finals) > 0 {
		h.fail("%s: accepted %d times, and heard %v; finals %v", s.name, s.accepted, s.atReply, s.finals)
	}
}

func (h *history) heardFinal(s *sending, m *Msg) {
	body := string(m.Body)
	st, isError := wire.ParseStatus(m.Body)
	if !isError && !s.replies[body] {
		h.fail("%s got the reply %q, which no processor gave", s.name, body)
	}
	if isError && st.Code != string(wire.CodeDead) && st.Code != string(wire.CodeExpired) {
		h.fail("%s ended as %s", s.name, body)
	}
	if again := len(m.Header[wire.HeaderRedelivered]) > 0; len(s.finals) > 0 && (!again || s.finals[0] != body) {
		h.fail("%s got %q after %q (marked as repeated: %v)", s.name, body, s.finals, again)
	}
	s.finals = append(s.finals, body)
}

// twice looks for items that were both accepted though they had one message id within the window.
func (h *history) twice() error {
	last := map[string]*sending{}
	for n := 1; n <= len(h.sends); n++ {
		s := h.sends[fmt.Sprintf("s%d", n)]
		if s.msgID == "" || s.accepted == 0 || s.dup {
			continue
		}
		if first := last[s.msgID]; first != nil && s.at.Before(first.at.Add(h.w.opt.DedupWindow)) {
			return fmt.Errorf("%s and %s with the message id %s are both accepted", first.name, s.name, s.msgID)
		}
		last[s.msgID] = s
	}
	return nil
}

// definite says that an error promises that the item is not queued.
func definite(codes []wire.Code) bool {
	return slices.ContainsFunc(codes, func(c wire.Code) bool {
		return c != wire.CodeUnconfirmed && c != wire.CodeDuplicate
	})
}

// crashed: the broker ends; of what it published last, only so much reaches the senders. Whatever was said to be
// accepted must be on disk, or its final heard.
func (h *history) crashed(arrived int) {
	h.hear(arrived)
	h.onWay, h.safe = nil, 0
	h.epoch++
	h.reset()
	for _, s := range h.sends {
		_, item := h.w.m.items[s.id]
		_, reply := h.w.m.replies[s.id]
		if s.accepted > 0 && !s.dup && !s.lost && !item && !reply && len(s.finals) == 0 {
			h.fail("%s was accepted and is lost", s.name)
		}
	}
}

// judge is the verdict at the end, when everything has been healed and has come to rest.
func (h *history) judge() error {
	for _, s := range h.sends {
		refused := len(s.atAccept) > 0 || len(s.atReply) > 0
		switch {
		case s.lost || s.missed:
		case s.accepted > 0 && !s.dup && len(s.finals) == 0:
			return fmt.Errorf("%s was accepted and got no final", s.name)
		case s.dup && (len(s.finals) > 0 || !slices.Equal(s.atReply, []wire.Code{wire.CodeDuplicate})) && s.epoch == h.epoch:
			return fmt.Errorf("%s is a duplicate, but heard %v, finals %v", s.name, s.atReply, s.finals)
		case s.accepted == 0 && !refused && s.epoch == h.epoch:
			return fmt.Errorf("%s was never answered", s.name)
		case s.epoch == h.epoch && refused && s.accepted == 0 && (len(s.atAccept) == 0 || len(s.atReply) == 0):
			return fmt.Errorf("%s was refused on one subject only: %v, %v", s.name, s.atAccept, s.atReply)
		}
	}
	return h.twice()
}
