package processor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

// Waits of the end, each of them bounded so that DrainTimeout means what it says.
const (
	unregisterTimeout = 2 * time.Second
	barrierTimeout    = time.Second // for work that has arrived and is not looked at yet
	lastWords         = time.Second // for handlers whose context has ended
	flushTimeout      = 2 * time.Second
)

// refusalDelay is the delay that a refused item is given back with.
const refusalDelay = 100 * time.Millisecond

// Handler does the work of one item. The body it returns is the reply, which may be empty. ctx ends when the lease is
// lost, with the reason as its cause: ErrLeaseLost, ErrTooLong or ErrShutdown. It carries the values of the context given
// to [Run], and does not end with it: what is in hand is finished.
//
// An error is a failure: the attempt counts and the item is given out again after the queue's backoff, until its attempts
// are spent. [Retry], [Reject] and [Release] make other outcomes; they may be wrapped. The text of the error travels as
// the reason, in one line and cut to wire.MaxMessage bytes.
type Handler func(ctx context.Context, w *Work) (reply []byte, err error)

// processor is one Run.
type processor struct {
	nc      *nats.Conn
	o       Options
	log     *slog.Logger
	handler Handler
	base    context.Context // of the handlers
	hand    *hand
	outbox  outbox
	gather  gather
	strange bool // something that is no work has been logged; belongs to the subscription's goroutine
}

// Run registers with the queue and hands its items to h until ctx ends. Then it takes its leave of the broker, lets the
// handlers finish for Options.DrainTimeout, ends their contexts, gives back what they have not done, and returns. The
// connection must stay open until then; it may be shared by several processors, and should reconnect for ever
// (nats.MaxReconnects(-1)).
//
// It returns nil after a clean end. Errors: wrong options; *RegisterError when the broker refuses the registration;
// ErrClosed when the connection is closed; ErrUnfinished when handlers did not end in time.
func Run(ctx context.Context, nc *nats.Conn, o Options, h Handler) error {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return err
	}
	p := &processor{
		nc: nc, o: o, handler: h,
		log:  o.Logger.With("queue", o.Address),
		base: context.WithoutCancel(ctx),
		hand: newHand(o.Capacity), outbox: outbox{room: o.Capacity},
	}
	status := nc.StatusChanged(nats.RECONNECTING, nats.CONNECTED, nats.CLOSED)
	defer nc.RemoveStatusListener(status)
	sub, err := nc.Subscribe(o.Subject, p.receive)
	if err != nil {
		return fmt.Errorf("processor: subscribe to %s: %w", o.Subject, err)
	}
	err = p.keepRegistered(ctx, status)
	return errors.Join(err, p.drain(sub, errors.Is(err, ErrClosed)))
}

// receive is the subscription's callback: it must not block.
func (p *processor) receive(m *nats.Msg) {
	item, attempt, ok := wire.ParseLease(p.o.Address, m.Reply)
	if !ok {
		p.notWork(m, "no lease")
		return
	}
	if count := wire.BatchCount(wire.Header(m.Header)); count != "" {
		p.receiveBatch(m, count)
		return
	}
	p.begin(p.work(item, attempt, m.Reply, m.Header, m.Data))
}

// begin hands work to a handler, or back to the broker.
func (p *processor) begin(w *Work) {
	w.hold(p.base)
	v, older := p.hand.take(w)
	if older != nil {
		older.lose(ErrLeaseLost)
	}
	switch v {
	case taken:
		go p.handle(w)
	case full:
		p.handBack(w, refusalDelay)
	case closing:
		p.handBack(w, 0)
	case again:
		w.drop()
	}
}

// notWork notes what the broker of this queue did not send.
func (p *processor) notWork(m *nats.Msg, why string) {
	if !p.strange {
		p.strange = true
		p.log.Warn("something that is not work of this queue came and is ignored, as will be all that follow",
			"subject", m.Subject, "reply", m.Reply, "why", why)
	}
}

func (p *processor) work(item uint64, attempt uint32, lease string, h nats.Header, body []byte) *Work {
	w := &Work{
		Address: p.o.Address, Item: wire.FormatID(item), Attempt: int(attempt), Header: h, Body: body,
		p: p, lease: lease, received: time.Now(), timeout: p.o.ProcessTimeout,
	}
	if len(h) > 0 {
		if s, err := wire.ParseSend(wire.Header(h), nil); err == nil && s.Timeout > 0 {
			w.timeout = s.Timeout
		}
	}
	return w
}

var errGoexit = errors.New("the handler ended its goroutine without a result")

// handle runs the handler and sends what comes of it. All of it is deferred since runtime.Goexit runs nothing else.
func (p *processor) handle(w *Work) {
	var body []byte
	err := errGoexit
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the handler panicked: %v", r)
			p.log.Error("the handler panicked", "item", w.Item, "attempt", w.Attempt, "panic", r, "stack", string(debug.Stack()))
		}
		p.hand.free(w)
		p.settle(w, body, err)
		p.hand.leave()
	}()
	body, err = p.handler(w.ctx, w)
}

// drain ends the processor. With the connection closed nothing can be said any more, so the handlers just end.
func (p *processor) drain(sub *nats.Subscription, closed bool) error {
	p.hand.drain()
	cause := ErrShutdown
	if closed {
		cause = ErrLeaseLost
	} else {
		p.leave()
		p.hand.wait(p.o.DrainTimeout)
	}
	for _, w := range p.hand.all() {
		w.lose(cause)
	}
	left := p.hand.wait(lastWords)
	for _, w := range p.hand.all() {
		p.handBack(w, 0)
	}
	if !closed {
		p.sendGathered()
		p.inReach(p.outbox.times())
		p.part(sub)
	}
	if left > 0 {
		return fmt.Errorf("processor: %w: %d of queue %s", ErrUnfinished, left, p.o.Address)
	}
	return nil
}

// leave unregisters, and waits until all work that the broker sent before its answer has been looked at. The
// subscription stays: a broker that finds it gone gives the items in hand to others. Without a connection there is nobody to
// tell, and a broker that comes back finds the subscription gone.
func (p *processor) leave() {
	if !p.nc.IsConnected() {
		return
	}
	if err := p.unregister(context.Background()); err != nil {
		p.log.Warn("the broker did not confirm the end of the registration", "error", err)
	}
	seen := make(chan struct{})
	if p.nc.Barrier(func() { close(seen) }) != nil {
		return
	}
	timer := time.NewTimer(barrierTimeout)
	defer timer.Stop()
	select {
	case <-seen:
	case <-timer.C:
	}
}

// part gives up the subscription and sees to it that the last answers are out.
func (p *processor) part(sub *nats.Subscription) {
	if err := sub.Unsubscribe(); err != nil {
		p.log.Warn("the subscription could not be ended", "error", err)
	}
	if err := p.nc.FlushTimeout(flushTimeout); err != nil {
		p.log.Warn("the last answers may not have reached the server", "error", err)
	}
}
