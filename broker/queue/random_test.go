package queue

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"stint/store"
	"stint/wire"
)

// TestRandom lets anything happen in any order, checks every invariant after every step, then heals the world and
// wants everything that was accepted to be finished. A longer campaign: -rapid.checks=5000.
func TestRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newStorm(t)
		for range rapid.IntRange(50, 600).Draw(t, "steps") {
			s.act()
		}
		s.heal()
	})
}

// storm is a world in which things happen at random.
type storm struct {
	*world
	*history
	t    *rapid.T
	n    int // sends so far
	b    int // batches of them
	acts []func()
}

func newStorm(t *rapid.T) *storm {
	c := Config{
		ProcessTimeout: 2 * time.Second, MaxAttempts: 3, MaxDeaths: 3,
		Backoff:     Backoff{Base: 100 * time.Millisecond, Max: time.Second, Jitter: 0.5},
		MaxItems:    rapid.SampledFrom([]int{30, 1000}).Draw(t, "max items"),
		WindowItems: rapid.IntRange(1, 8).Draw(t, "window"), DedupWindow: 5 * time.Second, MaxDedup: 20,
		ReplyTTL: 24 * time.Hour, MaxProcessors: 4,
	}
	s := &storm{t: t}
	s.world = newWorld(t, c, func(o *Options) {
		o.Watched = rapid.Bool().Draw(t, "watched")
		o.Persistent = rapid.IntRange(0, 4).Draw(t, "persistent") > 0
	})
	s.history = newHistory(s.world)
	s.world.auto, s.world.async = false, !s.opt.Watched
	s.acts = s.actions()
	return s
}

// actions are what can happen, the frequent ones several times.
func (s *storm) actions() []func() {
	var all []func()
	add := func(times int, f func()) {
		for range times {
			all = append(all, f)
		}
	}
	add(10, s.sendOne)
	add(3, s.sendSeveral)
	add(10, s.answerOne)
	add(2, s.answerSeveral)
	add(2, s.answerStrange)
	add(3, s.registerOne)
	add(1, s.unregisterOne)
	add(2, s.comeOrGo)
	add(2, s.senderTalks)
	add(5, s.tick)
	add(8, s.commitOne)
	add(5, s.word)
	add(2, s.flushOne)
	add(1, s.cutOff)
	if s.opt.Persistent {
		add(1, s.fill)
		add(1, s.crash)
		add(1, s.spoil)
	}
	return all
}

func (s *storm) pick(label string, n int) int { return rapid.IntRange(0, n-1).Draw(s.t, label) }

func (s *storm) act() {
	s.acts[s.pick("act", len(s.acts))]()
	if s.pick("round", 3) > 0 {
		s.finish()
	}
}

func (s *storm) sendOne() {
	s.n++
	name := fmt.Sprintf("s%d", s.n)
	e := s.sent(name, s.option)
	before := s.q.next
	recs := []*sending{s.record(e)}
	s.onTake = func() { s.noteIDs(before, recs) }
	s.step(e)
	s.onTake = nil
}

func (s *storm) option(e *Sent) {
	switch s.pick("option", 10) {
	case 0, 1:
		e.MsgID = fmt.Sprintf("m%d", s.pick("msg id", 6))
	case 2:
		e.TTL = time.Duration(1+s.pick("ttl", 3000)) * time.Millisecond
	case 3:
		e.Timeout = time.Duration(1+s.pick("timeout", 700)) * time.Millisecond
	case 4:
		e.MaxAttempts = uint32(1 + s.pick("attempts", 4))
	case 5:
		e.Progress = true
	}
}

func (s *storm) record(e *Sent) *sending {
	rec := &sending{name: string(e.Body), epoch: s.epoch, msgID: e.MsgID, at: s.now, replies: map[string]bool{}}
	s.sends[rec.name] = rec
	return rec
}

// sendSeveral sends a batch. An item that the edge found wrong is among them now and then.
func (s *storm) sendSeveral() {
	s.b++
	batch := fmt.Sprintf("B%d", s.b)
	gathered := s.pick("gathered", 2) == 0
	e := &SentBatch{Reply: "r." + batch, AcceptedReply: "a." + batch}
	var recs []*sending
	for range 1 + s.pick("size", 5) {
		s.n++
		name := fmt.Sprintf("s%d", s.n)
		x := BatchItem{Key: name, Sent: *s.sent(name, s.option)}
		x.AcceptedReply, x.Reply = "", ReplyTo(e.Reply, name, gathered)
		if s.pick("bad", 12) == 0 {
			x.Err = wire.Errorf(wire.CodeBadHeader, "bad")
		}
		recs = append(recs, s.record(&x.Sent))
		e.Items = append(e.Items, x)
		s.batches[batch] = append(s.batches[batch], name)
	}
	before := s.q.next
	s.onTake = func() { s.noteIDs(before, recs) }
	s.step(e)
	s.onTake = nil
}

// noteIDs finds the ids of the items of a batch that were taken in.
func (s *storm) noteIDs(before uint64, recs []*sending) {
	for i, rec := range recs {
		id := before + 1 + uint64(i)
		taken := s.q.items[id] != nil || slices.ContainsFunc(s.q.dirty, func(it *item) bool { return it.id() == id })
		if s.q.next > before && taken {
			rec.id = id
			s.ids[id] = rec
		}
	}
}

// answerSeveral answers in one message.
func (s *storm) answerSeveral() {
	e := &AnsweredBatch{}
	for range min(len(s.given), 1+s.pick("answers", 4)) {
		d := s.given[len(s.given)-1-s.pick("which", min(len(s.given), 12))]
		body := fmt.Sprintf("%s by %s as %d", d.name, d.processor, d.attempt)
		switch s.pick("answer", 5) {
		case 0:
			e.Answers = append(e.Answers, *s.answered(d.name, d.attempt, "-NAK", nil, ""))
		case 1:
			e.Answers = append(e.Answers, *s.answered(d.name, d.attempt, "", wire.Header{wire.HeaderError: {"broke"}}, ""))
		default:
			s.sends[d.name].replies[body] = true
			e.Answers = append(e.Answers, *s.answered(d.name, d.attempt, body, nil, ""))
		}
	}
	s.step(e)
}

func (s *storm) answerOne() {
	if len(s.given) == 0 {
		return
	}
	d := s.given[len(s.given)-1-s.pick("which", min(len(s.given), 12))]
	s.answerAs(d, s.pick("answer", 16))
}

func (s *storm) answerAs(d handed, how int) {
	switch how {
	case 0:
		s.step(s.answered(d.name, d.attempt, "+WPI", nil, ""))
	case 1:
		s.step(s.answered(d.name, d.attempt, "-NAK", nil, ""))
	case 2:
		s.step(s.answered(d.name, d.attempt, fmt.Sprintf("-NAK %dms", s.pick("delay", 1500)), nil, ""))
	case 3:
		s.step(s.answered(d.name, d.attempt, "+TERM no good", nil, ""))
	case 4, 5:
		s.step(s.answered(d.name, d.attempt, "", wire.Header{wire.HeaderError: {"broke"}}, ""))
	case 6:
		s.step(s.answered(d.name, d.attempt, "half", wire.Header{wire.HeaderProgress: {"true"}}, ""))
	case 7:
		s.step(s.answered(d.name, d.attempt, "question", nil, d.processor+".turn"))
	default:
		body := fmt.Sprintf("%s by %s as %d", d.name, d.processor, d.attempt)
		s.sends[d.name].replies[body] = true
		s.step(s.answered(d.name, d.attempt, body, nil, ""))
	}
}

// answerStrange answers what was never given.
func (s *storm) answerStrange() {
	a := &Answered{Item: uint64(s.m.epoch)<<store.EpochShift + uint64(s.pick("item", 2+s.n)), Attempt: uint32(s.pick("attempt", 3)) + 50}
	a.Kind = wire.AnswerKind(1 + s.pick("kind", int(wire.NoResponders)))
	s.step(a)
}

func (s *storm) processor() string { return fmt.Sprintf("p%d", s.pick("processor", 5)) }

func (s *storm) registerOne() {
	p := s.processor()
	s.step(&Registered{Registration: wire.Registration{Processor: p, Capacity: 1 + s.pick("capacity", 4), Batch: s.pick("batch", 4)}, Reply: "reg." + p})
}

func (s *storm) unregisterOne() {
	s.step(&Unregistered{Processor: s.processor(), Reply: "reg"})
}

// comeOrGo ends a subscription or makes it again.
func (s *storm) comeOrGo() {
	subject := s.processor()
	switch {
	case s.pick("who", 2) > 0:
	case s.b > 0 && s.pick("batch", 3) == 0:
		subject = fmt.Sprintf("r.B%d", max(1, s.b-s.pick("sender", 4)))
	case s.n > 0:
		subject = fmt.Sprintf("r.s%d", max(1, s.n-s.pick("sender", 10)))
	}
	if s.away[subject] {
		delete(s.away, subject)
		delete(s.away, subject+".turn")
	} else {
		s.away[subject], s.away[subject+".turn"] = true, true
	}
	s.lookNow()
}

func (s *storm) lookNow() {
	if !s.opt.Watched {
		return
	}
	var changed []Presence
	s.q.Holders(func(p string, absent bool) {
		if present := !s.away[p]; present == absent {
			changed = append(changed, Presence{Processor: p, Present: present})
		}
	})
	for _, p := range changed {
		s.step(p)
	}
}

func (s *storm) senderTalks() {
	if len(s.turns) == 0 {
		return
	}
	m := s.turns[len(s.turns)-1-s.pick("turn", min(4, len(s.turns)))]
	reply := ""
	if s.pick("answerable", 2) == 0 {
		reply = m.To
	}
	if reply == "" {
		s.step(&Talked{Item: m.Item, N: m.N, Body: []byte("talk"), Reply: reply})
	}
}

func (s *storm) tick() {
	limit := []int{5, 60, 600, 3000}[s.pick("pace", 4)]
	s.now = s.now.Add(time.Duration(s.pick("time", limit)) * time.Millisecond)
	s.step(Tick{})
	s.lookNow()
}

func (s *storm) commitOne() {
	s.finish()
	if s.batch == nil {
		return
	}
	if s.opt.Persistent {
		switch s.pick("result", 30) {
		case 0:
			s.world.commit(store.ErrFull)
			s.step(Stored{Err: store.ErrFull})
			return
		case 1:
			s.unknown()
			return
		}
	}
	s.world.commit(nil)
}

// unknown is a commit of which nobody knows whether it is on disk. Things go on a little, then the process ends.
func (s *storm) unknown() {
	if s.pick("on disk", 2) == 0 {
		if err := s.m.apply(s.batch.Ops); err != nil {
			s.t.Fatalf("the store: %v", err)
		}
	}
	s.ended(store.ErrUnknown)
	s.finish()
	for range s.pick("after", 5) {
		[]func(){s.sendOne, s.answerOne, s.tick, s.registerOne}[s.pick("act", 4)]()
		s.finish()
	}
	if s.batch != nil {
		s.t.Fatalf("a batch was taken after a write of unknown outcome")
	}
	s.end()
}

func (s *storm) flushOne() {
	if s.flush == 0 {
		return
	}
	s.finish()
	s.hear(len(s.onWay))
	token := s.flush
	s.flush = 0
	s.step(Flushed{Token: token})
}

// fill lets the store run out of space, or have some again.
func (s *storm) fill() {
	if s.full = !s.full; s.full {
		return // the next insert finds out
	}
	s.step(Stored{})
}

// crash ends the broker: at once, or after it was asked to stop.
func (s *storm) crash() {
	if s.pick("crash", 4) > 0 {
		return
	}
	if s.pick("gentle", 3) == 0 {
		s.step(Drain{})
		s.answerOne()
		s.step(Leave{})
		s.finish()
		for i := 0; s.batch != nil && i < 3; i++ {
			s.world.commit(nil)
		}
	}
	s.end()
}

// end restarts the broker. Of what was published since the last flush a part may be lost with it.
func (s *storm) end() {
	s.out = Out{}
	s.crashed(s.pick("arrived", len(s.onWay)+1))
	s.full = false
	s.restart()
	s.world.auto = false
}

// cutOff has the connection lost and made again. Of what was published last only so much has got through. But the embedded server does
// not end without the broker, and the replies of a queue in memory are with the server as soon as they count as sent.
func (s *storm) cutOff() {
	if s.pick("cut off", 4) > 0 {
		return
	}
	s.finish()
	if s.opt.Persistent && !s.opt.Watched {
		s.hear(s.pick("heard", len(s.onWay)+1))
	} else {
		s.hear(len(s.onWay))
	}
	s.onWay, s.safe, s.flush = nil, 0, 0
	s.epoch++
	asked := s.asked
	s.asked = nil
	link := s.q.Link()
	var late []Settled
	for _, m := range asked { // were published, and perhaps the server said that it had them; but that is still on its way
		if s.pick("arrived", 2) == 0 {
			s.deliver(&m)
			s.hear(len(s.onWay))
		}
		if s.pick("confirmed", 2) == 0 {
			late = append(late, Settled{Item: m.Item, Outcome: Outcome{Delivered: true, Link: link}})
		} else {
			s.step(Settled{Item: m.Item, Outcome: Outcome{Unsure: true, Link: link}})
		}
	}
	s.step(Reconnected{Link: link + 1})
	for _, e := range late {
		s.step(e)
	}
}

// spoil damages a record that is not in memory.
func (s *storm) spoil() {
	if len(s.m.items) == 0 || s.pick("spoil", 5) > 0 {
		return
	}
	ids := slices.Sorted(maps.Keys(s.m.items))
	id := ids[s.pick("which", len(ids))]
	if s.q.items[id] == nil && s.m.items[id].Place.Area != store.Dead {
		s.m.spoilt[id] = true
		s.ids[id].lost = true
	}
}

// heal ends all trouble: the store is well, everybody is there, and what is left is done by a good processor, or by those
// there are, with a broker that has just been started.
func (s *storm) heal() {
	s.finish()
	s.full = false
	clear(s.away)
	if s.batch != nil {
		s.world.commit(nil)
	}
	s.step(Stored{})
	s.lookNow()
	good := "p9"
	if s.opt.Persistent && s.pick("restart", 2) == 0 {
		good = ""
		s.given = nil
		s.end() // whatever they hold, they answered while there was no broker, and nobody heard it
	} else {
		for i := range 5 {
			s.step(&Unregistered{Processor: fmt.Sprintf("p%d", i)})
		}
	}
	s.world.auto = true
	switch {
	case good != "":
		s.do(&Registered{Registration: wire.Registration{Processor: good, Capacity: 3, Batch: s.pick("batch", 3)}})
	case len(s.q.regs) == 0:
		s.do(&Registered{Registration: wire.Registration{Processor: "p0", Capacity: 1}})
	default:
		s.do(Tick{})
	}
	for n := 0; !s.atRest() || len(s.given) > 0; n++ {
		if n > 3000 {
			s.t.Fatalf("the queue does not come to rest: %+v, %d in memory, %d spilled; stored are %+v", s.q.counts, len(s.q.items), s.q.spilled, s.m.counts())
		}
		work := s.given
		s.given = nil
		for _, d := range work {
			if good == "" || d.processor == good {
				s.answerAs(d, 15)
			}
		}
		s.do(Tick{})
		if len(work) == 0 {
			s.advance(20 * time.Millisecond)
		}
	}
	s.advance(10 * time.Second)
	s.hear(len(s.onWay))
	if err := s.judge(); err != nil {
		s.t.Fatalf("%v", err)
	}
	s.empty()
}

func (s *storm) atRest() bool {
	return s.counts().Ready+s.counts().Delayed+len(s.m.replies)+len(s.q.items) == 0 && s.batch == nil
}

// empty: a queue at rest keeps nothing.
func (s *storm) empty() {
	q := s.q
	sizes := []int{
		len(q.items), q.memBytes, q.ready.len(), q.spilled, len(q.leaving), len(q.late), q.ends.len(), len(q.replies),
		len(q.sent), q.keptLive, len(q.recent), len(q.dirty), len(q.extra), q.counts.Dedup, len(s.m.dedup), len(s.m.leases),
	}
	for i, n := range sizes {
		if n != 0 {
			s.t.Fatalf("at rest something is left: %v, at %d", sizes, i)
		}
	}
	c, m := q.counts, s.m.counts()
	if c.Dead != m.Dead || c.Damaged != m.Damaged || m.Ready+m.Delayed != 0 || c.Bytes != m.Bytes && len(s.m.aside) == 0 {
		s.t.Fatalf("at rest %+v is counted and %+v stored", c, m)
	}
}
