package broker

import (
	"errors"
	"log/slog"
	"time"

	"stint/broker/queue"
	"stint/internal/defect"
	"stint/internal/fifo"
	"stint/store"
	"stint/wire"
)

// actor is one queue: its rules, and the doing of what they say. It belongs to its owner's goroutine.
type actor struct {
	o    *owner
	cfg  queue.Config
	q    *queue.Queue
	st   store.Queue
	bus  *bus
	log  *slog.Logger
	fail func(error) // the broker can not go on

	mail    traffic           // from the intake that was stepped
	stepped stepped           // mail, as of the last round: for the intake
	waiting fifo.List[letter] // that came while the rules were full

	out     queue.Out
	batch   *queue.Batch // under way
	gather  gatherer     // replies that leave together
	frames  []byte       // of a message of work; empty between two
	touched bool         // in owner.touched
	holds   bool         // counted in owner.holding
	wake    time.Time    // for which it is in owner.alarms; zero: it is not
	alarm   int          // where in owner.alarms
}

func newActor(o *owner, cfg queue.Config, q *queue.Queue, st store.Queue, log *slog.Logger, fail func(error)) *actor {
	a := &actor{o: o, cfg: cfg, q: q, st: st, log: log, fail: fail}
	o.actors = append(o.actors, a)
	return a
}

// receive steps an event, unless the rules are full: then it waits until they have written something. It gives the number of items
// that the event is about.
func (a *actor) receive(l *letter) (items int) {
	if a.waiting.Len() > 0 || a.q.Full() {
		a.waiting.Push(letter{a, kept(l.ev), l.bytes})
		a.o.touch(a)
		return 1
	}
	return a.take(l)
}

func (a *actor) take(l *letter) (items int) {
	items = a.lookUpAll(l.ev)
	if e, ok := l.ev.(*queue.Answered); ok && e.Kind == wire.NoResponders && a.bus.links() != a.q.Link() {
		a.reconnected() // or the rules would hold the gap against the processor
	}
	if l.bytes != notCounted {
		a.mail.add(l.bytes)
	}
	a.step(l.ev)
	return items
}

// catchUp steps what has waited, up to a bound, as long as the rules are not full. False: nothing was stepped.
func (a *actor) catchUp() bool {
	some := false
	for items := 0; a.waiting.Len() > 0 && items < atOnce && !a.q.Full(); some = true {
		l := a.waiting.Pop()
		items += a.take(&l)
	}
	return some
}

// lookUpAll looks up the message ids of an event, and says how many items it is about.
func (a *actor) lookUpAll(ev queue.Event) (items int) {
	switch e := ev.(type) {
	case *queue.Sent:
		if e.MsgID != "" {
			a.lookUp(e)
		}
	case *queue.SentBatch:
		for i := range e.Items {
			if x := &e.Items[i]; x.MsgID != "" && x.Err == nil {
				a.lookUp(&x.Sent)
			}
		}
		return len(e.Items)
	case *queue.AnsweredBatch:
		return max(1, len(e.Answers))
	}
	return 1
}

// lookUp adds what the store remembers of an item's message id.
func (a *actor) lookUp(s *queue.Sent) {
	d, found, err := a.st.Dedup(s.MsgID)
	a.o.waited()
	switch {
	case errors.Is(err, store.ErrDamaged):
		a.log.Warn("what was remembered of a message id is damaged: the item counts as new", "queue", a.cfg.Address, "id", s.MsgID, "err", err)
	case err != nil:
		a.unreadable("looking up a message id", err)
	case found:
		s.Known = &d
	}
}

// reconnected steps a new connection.
func (a *actor) reconnected() {
	a.step(queue.Reconnected{Link: a.bus.links()})
}

func (a *actor) step(ev queue.Event) {
	a.q.Step(a.o.clock(), ev, &a.out)
	a.o.touch(a)
}

// finish does what the steps asked for, and hands the next batch to the writer.
func (a *actor) finish() {
	for {
		a.perform()
		if !a.submit() && !a.catchUp() {
			a.stepped.say(a.mail)
			return
		}
	}
}

// perform empties a.out. Doing what it says adds to it, so each list is walked until nothing is left anywhere. Work for
// several items goes first, so that it cannot be behind the final of one of them; replies that leave together go when no other
// message is left to say.
func (a *actor) perform() {
	var msgs, reads, probes int
	for {
		switch o := &a.out; {
		case len(o.Work) > 0:
			a.sendWork()
		case msgs < len(o.Msgs):
			a.publish(&o.Msgs[msgs])
			msgs++
		case !a.gather.empty():
			a.sendGathered()
		case reads < len(o.Reads):
			a.read(o.Reads[reads])
			reads++
		case probes < len(o.Probes):
			a.bus.probe(a, o.Probes[probes])
			probes++
		default:
			a.performRest()
			return
		}
	}
}

// performRest does what adds nothing more, and empties a.out.
func (a *actor) performRest() {
	for _, n := range a.out.Notes {
		a.log.Warn(n.Text, "queue", a.cfg.Address, "item", formatItem(n.Item), "info", n.Info, "left_out", n.LeftOut)
	}
	if a.out.Flush != 0 {
		a.bus.flush(a, a.out.Flush)
	}
	burst := len(a.out.Msgs) > 4096
	a.out.Reset()
	if burst {
		a.out.Msgs = nil // its memory should not stay for ever
	}
}

// publish sends one message on its way, or puts it with others that leave together. A final is followed by word of what
// became of it.
//
// m may point into a.out, which grows under it: nothing of m is used after a step.
func (a *actor) publish(m *queue.Msg) {
	if to, key, gathered := queue.SplitReply(m.To); gathered && m.Kind != queue.Turn {
		a.gatherReply(to, key, m)
		return
	}
	if m.Kind != queue.Final {
		a.bus.publish(a.cfg.Address, m)
		return
	}
	item := m.Item
	if delivered, known := a.bus.final(a, m); known {
		a.step(queue.Settled{Item: item, Outcome: queue.Outcome{Delivered: delivered, Link: a.q.Link()}})
	}
}

// read does one read and steps its result. A store that cannot be read ends the broker.
func (a *actor) read(r queue.Read) {
	a.o.waited() // nothing below asks for the time, or who listens, before the read has ended
	if r.Kind == queue.ReadReply {
		rep, found, err := a.st.Reply(r.Item)
		if err != nil {
			a.unreadable("reading a kept reply", err)
			return
		}
		a.step(&queue.Loaded{Item: r.Item, Reply: rep, Found: found})
		return
	}
	var p store.Page
	var err error
	switch r.Kind {
	case queue.ReadReady:
		p, err = a.st.Ready(r.After, r.Limit)
	case queue.ReadDue:
		p, err = a.st.Due(r.Now, r.Limit)
	case queue.ReadExpired:
		p, err = a.st.Expired(r.Now, r.Limit)
	}
	if err != nil {
		a.unreadable("reading waiting items", err)
		return
	}
	a.step(&queue.Paged{Kind: r.Kind, Page: p})
}

func (a *actor) unreadable(doing string, err error) {
	if errors.Is(err, store.ErrClosed) {
		return
	}
	a.log.Error("the store cannot be read", "queue", a.cfg.Address, "doing", doing, "err", err)
	a.fail(err)
}

// submit hands the writer the next batch; true: there was nothing to write, and what depended on it has been stepped.
func (a *actor) submit() bool {
	if a.batch != nil {
		return false
	}
	b := a.q.Take(a.o.clock())
	if b == nil {
		return false
	}
	a.batch = b
	if defect.EarlyAccept {
		a.sayAfter(b)
	}
	if len(b.Ops) == 0 {
		a.committed(nil)
		return true
	}
	a.st.Submit(&store.Batch{Ops: b.Ops, Done: func(err error) { a.o.commits <- commit{a, err} }})
	return false
}

// committed takes the result of the batch under way: the rules hear of it, then, if it was good, what was tied to it
// is said.
func (a *actor) committed(err error) {
	b := a.batch
	a.batch = nil
	a.step(queue.Committed{Err: err})
	a.submit() // before anything is said: the disk waits
	if err == nil && !defect.EarlyAccept {
		a.sayAfter(b)
	}
	if errors.Is(err, store.ErrUnknown) {
		a.fail(err)
	}
}

func (a *actor) sayAfter(b *queue.Batch) {
	for i := range b.After {
		a.publish(&b.After[i])
	}
	a.q.Said(b)
}

// lookAtProcessors compares what the rules believe of each processor that matters with the server's subscriptions.
func (a *actor) lookAtProcessors() {
	var changed []queue.Presence
	a.q.Holders(func(processor string, absent bool) {
		if present := a.bus.interest(processor); present == absent {
			changed = append(changed, queue.Presence{Processor: processor, Present: present})
		}
	})
	for _, p := range changed {
		a.step(p)
	}
}
