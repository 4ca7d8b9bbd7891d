package queue

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"stint/store"
	"stint/wire"
)

// world plays everything around the rules, in the way of the broker's actor: it performs what steps ask for, hands
// batches to a model of the store, and stands for the subjects of senders and processors. It keeps a transcript.
//
// While auto is on, commits and word from the bus come at once; otherwise when the test says so.
type world struct {
	t   tb
	opt Options
	m   *model
	q   *Queue
	now time.Time
	out Out

	auto  bool
	batch *Batch          // under way
	inbox []Event         // word from the bus on its way
	away  map[string]bool // subjects nobody is subscribed at
	async bool            // an outside server: whether a final was heard is known later
	asked []Msg           // finals of which it is not known yet
	// gathered are finals that leave in one message.
	gathered []Msg
	flush    uint64   // token of a flush under way
	full     bool     // the store has no room for new items
	said     []string // transcript since the last want
	names    map[uint64]string
	onMsg    func(m *Msg, heard bool)
	onStep   func(out *Out)
	onTake   func() // when a step has given out ids, before anything it says is looked at
}

// tb is what testing.T and rapid.T have in common.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
}

var start = time.UnixMilli(1_700_000_000_000)

func newWorld(t tb, c Config, with ...func(*Options)) *world {
	c.Address = "q"
	w := &world{t: t, m: newModel(), now: start, auto: true, away: map[string]bool{}, names: map[uint64]string{}}
	w.opt = Options{Persistent: true, Watched: true, Random: 1}
	w.opt.Config = c
	for _, f := range with {
		f(&w.opt)
	}
	w.opt.Config = w.opt.WithDefaults(w.opt.Persistent)
	w.start()
	return w
}

func (w *world) start() {
	w.q = New(w.opt, w.m.load(), w.now)
	w.do(Tick{})
}

// restart ends the broker without a word, and starts another on what is stored.
func (w *world) restart() {
	w.m.epoch++
	w.out, w.batch, w.inbox, w.asked, w.gathered, w.flush = Out{}, nil, nil, nil, nil, 0
	w.start()
}

func (w *world) step(ev Event) {
	out := Out{Work: w.out.Work} // work joins messages that have not left
	before := w.q.next
	w.q.Step(w.now, ev, &out)
	if w.q.next > before {
		w.nameItems(before, ev)
		if w.onTake != nil {
			w.onTake()
		}
	}
	w.out.Work = out.Work
	if w.onStep != nil {
		w.onStep(&out)
	}
	w.out.Msgs = append(w.out.Msgs, out.Msgs...)
	w.out.Reads = append(w.out.Reads, out.Reads...)
	w.out.Probes = append(w.out.Probes, out.Probes...)
	w.out.Notes = append(w.out.Notes, out.Notes...)
	w.out.Flush = max(w.out.Flush, out.Flush)
	if err := check(w); err != nil {
		w.t.Fatalf("after %s: %v", describe(ev), err)
	}
}

func (w *world) nameItems(before uint64, ev Event) {
	switch e := ev.(type) {
	case *Sent:
		w.names[w.q.next] = string(e.Body)
	case *SentBatch:
		for i := range e.Items {
			w.names[before+1+uint64(i)] = string(e.Items[i].Body)
		}
	}
}

// do steps events in one round and does what follows from them.
func (w *world) do(evs ...Event) {
	w.t.Helper()
	for _, ev := range evs {
		w.step(ev)
	}
	w.finish()
	for n := 0; w.auto && (w.batch != nil || len(w.inbox) > 0 || len(w.asked) > 0); n++ {
		if n > 10_000 {
			w.t.Fatalf("the queue does not come to rest")
		}
		w.word()
		if w.batch != nil {
			w.commit(nil)
		}
	}
}

// word lets the oldest word of the bus arrive.
func (w *world) word() {
	if len(w.inbox) > 0 {
		ev := w.inbox[0]
		w.inbox = w.inbox[1:]
		w.step(ev)
		w.finish()
	}
	if len(w.asked) > 0 {
		m := w.asked[0]
		w.asked = w.asked[1:]
		w.step(Settled{Item: m.Item, Outcome: Outcome{Delivered: w.deliver(&m), Link: w.q.Link()}})
		w.finish()
	}
}

func (w *world) finish() {
	for {
		w.perform()
		if w.batch != nil {
			return
		}
		b := w.q.Take(w.now)
		if err := check(w); err != nil {
			w.t.Fatalf("after Take: %v", err)
		}
		if b == nil {
			return
		}
		w.batch = b
		if len(b.Ops) > 0 {
			return
		}
		w.ended(nil)
	}
}

func (w *world) perform() {
	for {
		o := &w.out
		switch {
		case len(o.Work) > 0:
			for i := range o.Work {
				w.publishWork(&o.Work[i])
			}
			o.WorkDone()
		case len(o.Msgs) > 0:
			m := o.Msgs[0]
			o.Msgs = o.Msgs[1:]
			w.publish(&m)
		case len(w.gathered) > 0:
			w.sendGathered()
		case len(o.Reads) > 0:
			r := o.Reads[0]
			o.Reads = o.Reads[1:]
			w.read(r)
		case len(o.Probes) > 0:
			p := o.Probes[0]
			o.Probes = o.Probes[1:]
			if subject, _, _ := SplitReply(p.Subject); !w.away[subject] {
				w.step(Listening{Item: p.Item})
			}
		default:
			for _, n := range o.Notes {
				w.t.Logf("note: %s (%s, %s)", n.Text, w.name(n.Item), n.Info)
			}
			if o.Flush != 0 {
				w.flush = o.Flush
			}
			*o = Out{}
			return
		}
	}
}

func (w *world) read(r Read) {
	if r.Kind == ReadReply {
		rep, ok := w.m.replies[r.Item]
		w.step(&Loaded{Item: r.Item, Reply: rep, Found: ok})
		return
	}
	w.step(&Paged{Kind: r.Kind, Page: w.m.read(r)})
}

// publish sends a message. Nobody at a processor's subject is answered by the server, a little later.
func (w *world) publish(m *Msg) {
	switch {
	case m.Kind == Final && w.async:
		w.asked = append(w.asked, *m)
	case m.Kind == Final && isGathered(m.To):
		w.gathered = append(w.gathered, *m)
	case m.Kind == Final:
		w.step(Settled{Item: m.Item, Outcome: Outcome{Delivered: w.deliver(m), Link: w.q.Link()}})
	case m.Kind == Work && !w.deliver(m):
		w.inbox = append(w.inbox, &Answered{Item: m.Item, Attempt: m.N, Answer: wire.Answer{Kind: wire.NoResponders}})
	case m.Kind != Work:
		w.deliver(m)
	}
}

func isGathered(to string) bool {
	_, _, gathered := SplitReply(to)
	return gathered
}

// sendGathered sends the finals that have gathered, those for one subject together.
func (w *world) sendGathered() {
	first, _, _ := SplitReply(w.gathered[0].To)
	ev := &SettledBatch{Outcome: Outcome{Link: w.q.Link()}}
	var rest []Msg
	for i := range w.gathered {
		m := &w.gathered[i]
		if subject, _, _ := SplitReply(m.To); subject != first {
			rest = append(rest, *m)
			continue
		}
		ev.Items, ev.Delivered = append(ev.Items, m.Item), w.deliver(m)
	}
	w.gathered = rest
	w.step(ev)
}

// publishWork sends a message of work for several items. When nobody is there, the server says so once.
func (w *world) publishWork(m *WorkBatch) {
	line, heard := m.To+": work", !w.away[m.To]
	if !heard {
		line = "nobody at " + line
	}
	for _, g := range m.Items {
		line += fmt.Sprintf(" [%s #%d]", w.name(g.Item), g.Attempt)
		if w.onMsg != nil {
			w.onMsg(&Msg{Kind: Work, To: m.To, Item: g.Item, N: g.Attempt, Header: g.Header, Body: g.Body}, heard)
		}
	}
	w.said = append(w.said, line)
	w.t.Logf("%s  %s", w.clock(), line)
	if !heard {
		w.inbox = append(w.inbox, &Answered{Item: m.Items[0].Item, Attempt: m.Items[0].Attempt, Answer: wire.Answer{Kind: wire.NoResponders}})
	}
}

// deliver writes it in the transcript and says whether anybody heard.
func (w *world) deliver(m *Msg) bool {
	subject, _, _ := SplitReply(m.To)
	heard := !w.away[subject]
	line := m.To + ": " + w.text(m)
	if !heard {
		line = "nobody at " + line
	}
	w.said = append(w.said, line)
	w.t.Logf("%s  %s", w.clock(), line)
	if w.onMsg != nil {
		w.onMsg(m, heard)
	}
	return heard
}

func (w *world) clock() string { return w.now.Sub(start).String() }

func (w *world) text(m *Msg) string {
	body := string(m.Body)
	if st, ok := wire.ParseStatus(m.Body); ok {
		body = st.Status
		if id, ok := wire.ParseID(st.ID); ok {
			body += " " + w.name(id)
		}
		if st.Duplicate {
			body += " duplicate"
		}
		if st.Code != "" {
			body += " " + st.Code
		}
	}
	if b, ok := wire.ParseBatchAccepted(m.Body); ok {
		body += fmt.Sprintf(" and %d", b.Count-1)
		for _, d := range b.Duplicates {
			id, _ := wire.ParseID(d.ID)
			body += fmt.Sprintf(", %s is %s", d.Key, w.name(id))
		}
		for _, r := range b.Refused {
			body += fmt.Sprintf(", %s %v", r.Code, r.Keys)
		}
	}
	if len(m.Header[wire.HeaderRedelivered]) > 0 {
		body += " (again)"
	}
	switch m.Kind {
	case Work:
		return fmt.Sprintf("work %s #%d", body, m.N)
	case Turn:
		return fmt.Sprintf("turn %d %s", m.N, body)
	case Final:
		return "final " + body
	}
	return body
}

func (w *world) name(id uint64) string {
	if n, ok := w.names[id]; ok {
		return n
	}
	return wire.FormatID(id)
}

// commit ends the batch under way with this result.
func (w *world) commit(err error) {
	w.t.Helper()
	if w.batch == nil {
		w.t.Fatalf("no batch is under way")
	}
	if err == nil && w.full && slices.ContainsFunc(w.batch.Ops, func(op store.Op) bool { return op.Kind == store.OpPut }) {
		err = store.ErrFull
	}
	if err == nil {
		if e := w.m.apply(w.batch.Ops); e != nil {
			w.t.Fatalf("the store: %v", e)
		}
	}
	w.ended(err)
	w.finish()
}

func (w *world) ended(err error) {
	b := w.batch
	w.batch = nil
	w.step(Committed{Err: err})
	if err != nil {
		return
	}
	for i := range b.After {
		w.publish(&b.After[i])
	}
}

// advance lets time pass, with a tick whenever the queue wants one.
func (w *world) advance(d time.Duration) {
	w.t.Helper()
	end, spin := w.now.Add(d), 0
	for {
		w.flushed()
		next := w.q.Next()
		if next.IsZero() || next.After(end) {
			w.now = end
			return
		}
		if spin++; next.After(w.now) {
			w.now, spin = next, 0
		}
		if spin > 100 {
			w.t.Fatalf("the queue asks for a tick at once, over and over")
		}
		w.do(Tick{})
	}
}

func (w *world) flushed() {
	if token := w.flush; token != 0 && w.auto {
		w.flush = 0
		w.do(Flushed{Token: token})
	}
}

// want compares the transcript since the last call.
func (w *world) want(lines ...string) {
	w.t.Helper()
	got := w.said
	w.said = nil
	if !slices.Equal(got, lines) {
		w.t.Fatalf("at %s was said\n\t%s\nwant\n\t%s", w.clock(), strings.Join(got, "\n\t"), strings.Join(lines, "\n\t"))
	}
}

// send sends an item whose body is its name; the accept notice goes to a.<name>, the reply to r.<name>.
func (w *world) send(name string, with ...func(*Sent)) {
	w.t.Helper()
	w.do(w.sent(name, with...))
}

// sent makes the event.
func (w *world) sent(name string, with ...func(*Sent)) *Sent {
	e := &Sent{Reply: "r." + name, Body: []byte(name), Send: wire.Send{AcceptedReply: "a." + name}}
	for _, f := range with {
		f(e)
	}
	if d, ok := w.m.dedup[e.MsgID]; ok && e.MsgID != "" {
		e.Known = &d
	}
	return e
}

func (w *world) id(name string) uint64 {
	for id, n := range w.names {
		if n == name {
			return id
		}
	}
	w.t.Fatalf("no item %s", name)
	return 0
}

func (w *world) register(processor string, capacity int) {
	w.t.Helper()
	w.do(&Registered{Registration: wire.Registration{Processor: processor, Capacity: capacity}, Reply: "reg." + processor})
}

func (w *world) unregister(processor string) {
	w.t.Helper()
	w.do(&Unregistered{Processor: processor, Reply: "reg." + processor})
}

// answer is what a processor publishes on the lease subject of an attempt, as the wire reads it.
func (w *world) answer(name string, attempt uint32, body string) {
	w.t.Helper()
	w.do(w.answered(name, attempt, body, nil, ""))
}

func (w *world) answered(name string, attempt uint32, body string, h wire.Header, reply string) *Answered {
	return &Answered{
		Item: w.id(name), Attempt: attempt, Header: h, Reply: reply,
		Answer: wire.ParseAnswer(h, []byte(body), reply),
	}
}

// failed answers as a NATS micro service does whose handler failed.
func (w *world) failed(name string, attempt uint32, more ...string) {
	w.t.Helper()
	h := wire.Header{wire.HeaderError: {"it broke"}, wire.HeaderErrorCode: {"500"}}
	if len(more) > 0 {
		h[wire.HeaderRetryDelay] = more
	}
	w.do(w.answered(name, attempt, "", h, ""))
}

// gone ends the subscriptions at these subjects; back makes them again. The watcher looks at once.
func (w *world) gone(subjects ...string) {
	for _, s := range subjects {
		w.away[s] = true
	}
	w.look()
}

func (w *world) back(subjects ...string) {
	for _, s := range subjects {
		delete(w.away, s)
	}
	w.look()
}

func (w *world) look() {
	if !w.opt.Watched {
		return
	}
	var changed []Event
	w.q.Holders(func(p string, absent bool) {
		if present := !w.away[p]; present == absent {
			changed = append(changed, Presence{Processor: p, Present: present})
		}
	})
	w.do(changed...)
}

func (w *world) counts() store.Counts { return w.q.Stats().Counts }

func describe(ev Event) string {
	switch e := ev.(type) {
	case *Sent:
		return fmt.Sprintf("Sent %s", e.Body)
	case *SentBatch:
		return fmt.Sprintf("SentBatch of %d", len(e.Items))
	case *Answered:
		return fmt.Sprintf("Answered %x #%d %s", e.Item, e.Attempt, e.Kind)
	case *Registered:
		return fmt.Sprintf("Registered %s %d", e.Processor, e.Capacity)
	}
	return fmt.Sprintf("%T%+v", ev, ev)
}

var errDisk = errors.New("input/output error")

// testWorld is a world for a scenario.
func testWorld(t *testing.T, c Config, with ...func(*Options)) *world {
	t.Helper()
	return newWorld(t, c, with...)
}

func outside(o *Options)  { o.Watched = false }
func inMemory(o *Options) { o.Persistent = false }

func ttl(d time.Duration) func(*Sent)     { return func(e *Sent) { e.TTL = d } }
func msgID(id string) func(*Sent)         { return func(e *Sent) { e.MsgID = id } }
func timeout(d time.Duration) func(*Sent) { return func(e *Sent) { e.Timeout = d } }
func attempts(n uint32) func(*Sent)       { return func(e *Sent) { e.MaxAttempts = n } }
