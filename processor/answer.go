package processor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

// codeFailed has no number of its own on the wire and so goes out as 500.
const codeFailed wire.Code = "failed"

// settle sends the outcome that the handler has come to.
func (p *processor) settle(w *Work, body []byte, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.settled {
		p.log.Warn("an outcome came too late and is dropped", "item", w.Item, "attempt", w.Attempt, "error", err)
		return
	}
	m := p.answer(w, body, err)
	w.close()
	p.publish(w, m)
}

// handBack gives up an item that was refused, or whose handler does not end.
func (p *processor) handBack(w *Work, delay time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.settled {
		return
	}
	w.close()
	p.publish(w, w.message(wire.NakBody(delay)))
}

// close ends the lease on our side.
func (w *Work) close() {
	w.settled = true
	w.timer.Stop()
	w.cancel(ErrSettled)
}

// publish sends an answer, alone or with others that are ready, or keeps it for when the broker is back in reach.
func (p *processor) publish(w *Work, m *nats.Msg) {
	if w.batched {
		p.join(w, m)
		return
	}
	if !p.outbox.keep(w, m, p.nc.IsConnected()) {
		p.send(w, m)
	}
}

// send is for an answer that leaves now. A reply that cannot be sent becomes a failure that says why.
func (p *processor) send(w *Work, m *nats.Msg) {
	err := p.nc.PublishMsg(m)
	if errors.Is(err, nats.ErrMaxPayload) {
		err = p.nc.PublishMsg(w.failure(p.tooLarge(m), nil))
	}
	if err != nil {
		p.log.Error("an answer could not be sent; the item's lease will run out", "item", w.Item, "attempt", w.Attempt, "error", err)
	}
}

// inReach is called when the broker has answered what was asked after so many losses of the connection. What was in hand
// before the last is made known to be alive, and the outcomes reached meanwhile leave.
func (p *processor) inReach(times uint64) {
	if !p.outbox.heard(times) {
		return
	}
	for _, w := range p.hand.all() {
		w.renew()
	}
	for _, out := range p.outbox.back() {
		p.send(out.w, out.m)
	}
}

func (p *processor) tooLarge(m *nats.Msg) error {
	err := fmt.Errorf("the reply of %d bytes and its headers are larger than the NATS server's max_payload of %d: make it smaller",
		len(m.Data), p.nc.MaxPayload())
	p.log.Error("a reply cannot be sent", "error", err)
	return err
}

// answer is the message that stands for what the handler returned.
func (p *processor) answer(w *Work, body []byte, err error) *nats.Msg {
	if err == nil {
		return p.done(w, body)
	}
	var o *outcome
	errors.As(err, &o)
	switch {
	case o != nil && o.kind == release:
		return w.message(wire.NakBody(o.delay))
	case o != nil && o.kind == reject:
		return w.message(wire.TermBody(err.Error()))
	case errors.Is(context.Cause(w.ctx), ErrShutdown):
		return w.message(wire.NakBody(0))
	}
	p.log.Warn("the handler failed", "item", w.Item, "attempt", w.Attempt, "error", err)
	return w.failure(err, o)
}

// done is the final reply, unless the protocol would read something else in it.
func (p *processor) done(w *Work, body []byte) *nats.Msg {
	if a := wire.ParseAnswer(wire.Header(w.reply), body, ""); a.Kind != wire.Done || len(a.Body) != len(body) {
		err := fmt.Errorf("the reply %.20q reads as a word of the protocol: it cannot be sent as a reply", body)
		p.log.Error("a reply cannot be sent", "item", w.Item, "error", err)
		return w.failure(err, nil)
	}
	m := w.message(body)
	m.Header = w.reply
	return m
}

func (w *Work) message(body []byte) *nats.Msg {
	return &nats.Msg{Subject: w.lease, Data: body}
}

// failure is the answer that counts an attempt. o, if any, says after what time to try again.
func (w *Work) failure(err error, o *outcome) *nats.Msg {
	m := w.message(nil)
	m.Header = nats.Header((&wire.Error{Code: codeFailed, Message: err.Error()}).Header())
	if o != nil {
		ms := (o.delay + time.Millisecond - 1) / time.Millisecond
		m.Header.Set(wire.HeaderRetryDelay, strconv.FormatInt(int64(ms), 10))
	}
	return m
}
