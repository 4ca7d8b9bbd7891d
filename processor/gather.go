package processor

import (
	"bytes"
	"runtime"
	"sync"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

const (
	// answersSlack is what a message of answers leaves of max_payload for its own header.
	answersSlack = 256
	// sharedMemory is the largest message whose items may refer to it. From a larger one they take copies, or one item that
	// takes long would keep it all.
	sharedMemory = 64 << 10
)

// receiveBatch is receive for a message of several items.
func (p *processor) receiveBatch(m *nats.Msg, count string) {
	p.gather.hold()
	defer func() {
		if p.gather.release() {
			p.sendReady()
		}
	}()
	frames := wire.ReadFrames(count, m.Data)
	for frames.Next() {
		item, attempt, ok := wire.ParseWorkKey(frames.Key)
		h, err := frames.Header()
		if !ok || err != nil {
			p.notWork(m, "a frame that cannot be read")
			continue
		}
		body := frames.Body
		if len(m.Data) > sharedMemory {
			body = bytes.Clone(body)
		}
		w := p.work(item, attempt, wire.LeaseSubject(p.o.Address, item, attempt), nats.Header(h), body)
		w.batched = true
		p.begin(w)
	}
	if err := frames.Err(); err != nil {
		p.notWork(m, err.Message)
	}
}

// gather holds the answers that leave in one message. There are never more than items in hand.
type gather struct {
	mu      sync.Mutex //nolint:forbidigo // guards all of it between N handlers and the subscription
	held    bool       // a message of work is being looked at: its answers wait for the rest of it
	waiting []outgoing
}

func (g *gather) hold() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = true
}

// release says whether answers have come meanwhile, which nobody has it on himself to send.
func (g *gather) release() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = false
	return len(g.waiting) > 0
}

// add takes an answer. first says that nobody has it on himself yet to send what is there.
func (g *gather) add(out outgoing) (first bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = append(g.waiting, out)
	return len(g.waiting) == 1 && !g.held
}

func (g *gather) len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.waiting)
}

func (g *gather) take() []outgoing {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := g.waiting
	g.waiting = nil
	return all
}

// join lets an answer leave with the others that are ready. Whoever brings the first sends them.
func (p *processor) join(w *Work, m *nats.Msg) {
	if p.gather.add(outgoing{w, m}) {
		p.sendReady()
	}
}

// sendReady lets the other handlers run that can, for as long as that brings answers, and sends what is there then.
func (p *processor) sendReady() {
	for n, before := p.gather.len(), 0; n > before && n < p.o.Batch; n = p.gather.len() {
		before = n
		runtime.Gosched()
	}
	p.sendGathered()
}

// sendGathered sends what is ready in as few messages as possible, or keeps it for when the broker is back in reach.
func (p *processor) sendGathered() {
	out := answers{p: p, limit: int(p.nc.MaxPayload()) - answersSlack}
	for _, o := range p.gather.take() {
		if !p.outbox.keep(o.w, o.m, p.nc.IsConnected()) {
			out.add(o)
		}
	}
	out.send()
}

// answers is a message of answers on its way.
type answers struct {
	p     *processor
	limit int
	size  int
	all   []outgoing
}

func (a *answers) add(o outgoing) {
	size := wire.FrameSize(len(o.w.lease), wire.Header(o.m.Header), o.m.Data) // a key is shorter than its subject
	if len(a.all) > 0 && (a.size+size > a.limit || len(a.all) == max(1, a.p.o.Batch)) {
		a.send()
	}
	a.all = append(a.all, o)
	a.size += size
}

// send sends what is there. One answer goes alone: so may one that is too large for a batch.
func (a *answers) send() {
	switch len(a.all) {
	case 0:
		return
	case 1:
		a.p.send(a.all[0].w, a.all[0].m)
	default:
		a.sendFrames()
	}
	clear(a.all)
	a.all, a.size = a.all[:0], 0
}

func (a *answers) sendFrames() {
	data := make([]byte, 0, a.size)
	for _, o := range a.all {
		item, attempt, _ := wire.ParseLease(a.p.o.Address, o.w.lease) // which was read from such a key
		var key [32]byte
		data = wire.AppendFrame(data, wire.AppendWorkKey(key[:0], item, attempt), wire.Header(o.m.Header), o.m.Data)
	}
	err := a.p.nc.PublishMsg(&nats.Msg{
		Subject: a.all[0].w.lease, Header: nats.Header(wire.BatchHeader(len(a.all))), Data: data,
	})
	if err != nil {
		a.p.log.Error("answers could not be sent; the leases of their items will run out", "answers", len(a.all), "error", err)
	}
}
