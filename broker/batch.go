package broker

import (
	"maps"

	"stint/broker/queue"
	"stint/wire"
)

// itemMemory is about what an item or an answer takes in the mailbox beside its bytes, which may be few.
const itemMemory = 256

// batchSlack is what a message of frames leaves of max_payload for its own header.
const batchSlack = 256

// maxMessage is how many bytes of frames one message may have.
func (b *bus) maxMessage() int { return max(1, int(b.nc.MaxPayload())-batchSlack) }

// onSendBatch takes in a message of several items. err is what was found wrong with it so far.
func (in *inlet) onSendBatch(m *incoming, send wire.Send, err *wire.Error) {
	ev := &queue.SentBatch{Reply: m.reply, AcceptedReply: send.AcceptedReply, Bytes: len(m.data)}
	err = in.checkTargets(&ev.Reply, &ev.AcceptedReply, err)
	if err == nil {
		ev.Items, err = in.readItems(m, ev.Reply, send)
		ev.Bytes += itemMemory * len(ev.Items)
	}
	if err == nil && !in.post(ev) {
		err = in.busy()
	}
	if err != nil {
		in.refuse(ev.AcceptedReply, ev.Reply, err)
	}
}

// readItems reads the frames of a batch. The bodies of the items are parts of the message; the keys, and where the replies
// go, are parts of one string.
func (in *inlet) readItems(m *incoming, reply string, send wire.Send) ([]queue.BatchItem, *wire.Error) {
	frames := wire.ReadFrames(send.Batch, m.data)
	shared := wire.OfItem(m.header)
	gathered := send.Gathered
	send.AcceptedReply, send.Batch, send.Gathered = "", "", false
	items := make([]queue.BatchItem, 0, frames.Count())
	names := make([]byte, 0, frames.Count()*(len(reply)+8))
	ends := make([]int, 0, frames.Count())
	for frames.Next() {
		x := queue.BatchItem{Sent: queue.Sent{Header: shared, Body: frames.Body, Send: send}}
		if len(frames.Block) > 0 {
			x.Err = readFrameHeader(&frames.Frame, &x.Sent, shared)
		}
		items = append(items, x)
		names = queue.AppendReplyTo(names, reply, frames.Key, gathered)
		ends = append(ends, len(names))
	}
	if err := frames.Err(); err != nil {
		return nil, err
	}
	text, at := string(names), 0
	for i := range items {
		x := &items[i]
		x.Reply, x.Key = queue.CutReplyTo(text[at:ends[i]], reply, gathered)
		at = ends[i]
		if size := x.Size(); size > in.cfg.MaxItemBytes && x.Err == nil {
			x.Err = in.tooLarge(size)
		}
	}
	return items, nil
}

// readFrameHeader reads the header block of an item of a batch.
func readFrameHeader(f *wire.Frame, s *queue.Sent, shared wire.Header) *wire.Error {
	h, err := f.Header()
	if err == nil {
		s.Header = wire.Merged(shared, h)
		s.Send, err = wire.ParseFrameSend(s.Header)
	}
	return err
}

// onAnswers takes in a message with answers to several items, which came on the lease subject of the one that is given. What
// cannot be read is a failure of its own item; where the frames break off, which items the rest was about is not known, so it is
// that of the subject, unless it has been answered by then.
func (in *inlet) onAnswers(m *incoming, count string, item uint64, attempt uint32) {
	frames := wire.ReadFrames(count, m.data)
	ev := &queue.AnsweredBatch{Bytes: len(m.data), Answers: make([]queue.Answered, 0, frames.Count()+1)}
	own := false
	for frames.Next() {
		id, n, ok := wire.ParseWorkKey(frames.Key)
		if !ok {
			in.log.Debug("an answer to a lease that cannot exist", "subject", m.subject, "key", string(frames.Key))
			continue
		}
		own = own || id == item && n == attempt
		h, err := frames.Header()
		ans := wire.ParseAnswer(h, frames.Body, "")
		if err != nil {
			ans = unreadable(err)
		}
		ev.Answers = append(ev.Answers, queue.Answered{Item: id, Attempt: n, Header: h, Answer: ans})
	}
	if err := frames.Err(); err != nil {
		in.log.Debug("a message of answers cannot be read to its end", "subject", m.subject, "err", err)
		if !own {
			ev.Answers = append(ev.Answers, queue.Answered{Item: item, Attempt: attempt, Answer: unreadable(err)})
		}
	}
	ev.Bytes += itemMemory * len(ev.Answers)
	if !in.post(ev) {
		in.log.Warn("answers were dropped, their queue is too busy: the items are given out again after the process timeout",
			"subject", m.subject, "answers", len(ev.Answers))
		return
	}
	in.acknowledge(m)
}

func unreadable(err *wire.Error) wire.Answer {
	return wire.Answer{Kind: wire.Failed, Code: string(err.Code), Reason: "the processor's answer cannot be read: " + err.Message}
}

// withKey adds the key of an item of a batch to the header of a message to its sender.
func withKey(h wire.Header, key string) wire.Header {
	if key == "" {
		return h
	}
	with := make(wire.Header, len(h)+1)
	maps.Copy(with, h)
	with[wire.HeaderBatchKey] = []string{key}
	return with
}

// sendWork publishes the work that goes to processors in messages of several items.
func (a *actor) sendWork() {
	for i := range a.out.Work {
		w := &a.out.Work[i]
		for j := range w.Items {
			g := &w.Items[j]
			var key [32]byte
			a.frames = wire.AppendFrame(a.frames, wire.AppendWorkKey(key[:0], g.Item, g.Attempt), g.Header, g.Body)
		}
		first := &w.Items[0]
		a.bus.send(w.To, wire.LeaseSubject(a.cfg.Address, first.Item, first.Attempt), wire.BatchHeader(len(w.Items)), a.frames)
		a.frames = a.frames[:0]
	}
	a.out.WorkDone()
}

// gatherer holds the replies that leave in one message for each subject. It is empty between two rounds.
type gatherer struct {
	bySubject map[string]*gathering
	waiting   []*gathering // in the order of their first replies
	spare     []*gathering
}

// gathering is a message of replies.
type gathering struct {
	subject string
	frames  []byte
	n       int
	finals  []uint64 // items
}

func (g *gatherer) empty() bool { return len(g.waiting) == 0 }

// open gives the message for a subject that has room for so many bytes.
func (g *gatherer) open(subject string, size, limit int) *gathering {
	open := g.bySubject[subject]
	if open != nil && open.n < wire.MaxBatch && len(open.frames)+size <= limit {
		return open
	}
	if g.bySubject == nil {
		g.bySubject = map[string]*gathering{}
	}
	if n := len(g.spare); n > 0 {
		open, g.spare = g.spare[n-1], g.spare[:n-1]
	} else {
		open = &gathering{}
	}
	open.subject = subject
	g.bySubject[subject] = open
	g.waiting = append(g.waiting, open)
	return open
}

// take gives what is to leave now.
func (g *gatherer) take() []*gathering {
	all := g.waiting
	g.waiting = nil
	clear(g.bySubject)
	return all
}

// maxSpareGatherings and maxSpareFrames bound the memory that is kept from one round for the next.
const (
	maxSpareGatherings = 16
	maxSpareFrames     = 64 << 10
)

func (g *gatherer) reuse(all []*gathering) {
	for _, one := range all {
		if len(g.spare) < maxSpareGatherings && cap(one.frames) <= maxSpareFrames {
			*one = gathering{frames: one.frames[:0], finals: one.finals[:0]}
			g.spare = append(g.spare, one)
		}
	}
	clear(all)
	g.waiting = all[:0]
}

// gatherReply puts a message for the sender of an item of a batch with others that leave together.
func (a *actor) gatherReply(to, key string, m *queue.Msg) {
	h, body, limit := m.Header, m.Body, a.bus.maxMessage()
	size := wire.FrameSize(len(key), h, body)
	if size > limit {
		e := a.bus.replyTooLarge(len(body))
		h, body = e.Header(), e.Body()
		size = wire.FrameSize(len(key), h, body)
	}
	g := a.gather.open(to, size, limit)
	g.frames = wire.AppendFrame(g.frames, key, h, body)
	g.n++
	if m.Kind == queue.Final {
		g.finals = append(g.finals, m.Item)
	}
}

// sendGathered publishes what has gathered, with word of what became of the finals in it.
func (a *actor) sendGathered() {
	all := a.gather.take()
	for _, g := range all {
		if len(g.finals) == 0 {
			a.bus.sendFrames(g)
			continue
		}
		if delivered, known := a.bus.finals(a, g); known {
			a.step(&queue.SettledBatch{Items: g.finals, Outcome: queue.Outcome{Delivered: delivered, Link: a.q.Link()}})
		}
	}
	if a.gather.empty() { // else the steps have begun a new list
		a.gather.reuse(all)
	}
}

func (b *bus) sendFrames(g *gathering) {
	b.send(g.subject, "", wire.BatchHeader(g.n), g.frames)
}

// finals is final for a message of several.
func (b *bus) finals(a *actor, g *gathering) (delivered, known bool) {
	if b.listens != nil {
		if !a.o.listens(b, g.subject) {
			return false, true
		}
		b.sendFrames(g)
		return true, true
	}
	kept, items := &gathering{subject: g.subject, frames: g.frames, n: g.n}, g.finals
	delivered, known = b.ask(a, g.subject, func() { b.sendFrames(kept) }, func(o queue.Outcome) queue.Event {
		return &queue.SettledBatch{Items: items, Outcome: o}
	})
	if !known {
		g.frames, g.finals = nil, nil // they belong to the question from here on
	}
	return delivered, known
}
