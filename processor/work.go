package processor

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

// Work is an item in the hands of a handler. Its fields are the handler's to read. They are exported so that a handler
// can be tried in a test with a Work made by hand; the methods of such a one return [ErrSettled].
//
// The methods may be called from several goroutines. A Work is of no use once its handler has returned.
type Work struct {
	Address string      // of the queue
	Item    string      // the item's id, the one that the accept notice told the sender
	Attempt int         // which delivery of the item this is, from 1
	Header  nats.Header // as the sender sent them; may be nil
	Body    []byte      // as the sender sent it, byte for byte

	p        *processor
	lease    string
	batched  bool // it came in one message with others, so the broker takes answers in one
	received time.Time
	timeout  time.Duration // process timeout of this item
	ctx      context.Context
	cancel   context.CancelCauseFunc

	// mu guards what follows, and the order of what is published to the lease: the handler, its own goroutines and the
	// lease's timer all speak for the item.
	mu      sync.Mutex //nolint:forbidigo // see above
	alive   time.Time  // the last sign of life
	ended   error      // nil while the lease is ours; then the cause, and nothing but the outcome may leave
	settled bool       // the outcome has left
	timer   *time.Timer
	reply   nats.Header
}

// Deadline is when the lease ends unless there is another sign of life.
func (w *Work) Deadline() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.alive.Add(w.timeout)
}

// Extend sends a sign of life: the process timeout starts anew. It is for Options.ManualExtend; otherwise they leave
// by themselves. It does not wait for the broker. Errors: ErrSettled, ErrLeaseLost, ErrTooLong, or why it could not be
// sent.
func (w *Work) Extend() error {
	return w.say(func() *nats.Msg { return &nats.Msg{Subject: w.lease, Data: []byte(wire.WordWorking)} })
}

// Progress sends an intermediate reply, which the broker forwards to a sender that has asked for such (header
// Stint-Progress). It is a sign of life as well. It does not wait for the broker, and an intermediate reply may be lost
// where a final one may not. Errors: those of Extend, and nats.ErrMaxPayload.
func (w *Work) Progress(body []byte) error {
	return w.say(func() *nats.Msg {
		return &nats.Msg{Subject: w.lease, Data: body, Header: nats.Header{wire.HeaderProgress: {"true"}}}
	})
}

// SetReplyHeader sets a header of the final reply; it has no effect on other outcomes. Status and names that begin with
// Stint- or Nats- have meanings of their own on a reply and are an error.
func (w *Work) SetReplyHeader(name, value string) error {
	if name == "" || strings.ContainsAny(name, ": \r\n\t") || wire.PassedOn(wire.Header{name: {value}}) == nil {
		return fmt.Errorf("processor: %q cannot be a header of a reply", name)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reply == nil {
		w.reply = nats.Header{}
	}
	w.reply.Set(name, value)
	return nil
}

// Ask says something to the sender and waits for its answer: one turn of a conversation. It returns early with the
// cause when ctx or the handler's own context ends. The sender must be there and expect a question. An answer with the
// header Nats-Service-Error-Code, from the sender or from a broker that could not pass the question on, is returned
// together with an error.
func (w *Work) Ask(ctx context.Context, body []byte) (*nats.Msg, error) {
	if w.p == nil {
		return nil, ErrSettled
	}
	if err := w.touch(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(w.ctx, func() { cancel(context.Cause(w.ctx)) })
	defer stop()

	answer, err := w.p.nc.RequestWithContext(ctx, w.lease, body)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		return nil, fmt.Errorf("processor: asking the sender of item %s: %w", w.Item, err)
	}
	if code := answer.Header.Get(wire.HeaderErrorCode); code != "" {
		return answer, fmt.Errorf("processor: asking the sender of item %s: %s (%s)", w.Item, answer.Header.Get(wire.HeaderError), code)
	}
	return answer, nil
}

// say publishes a sign of life while the lease is ours. The message is made by a function so that a Work without a
// lease costs nothing.
func (w *Work) say(message func() *nats.Msg) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(); err != nil {
		return err
	}
	if err := w.p.nc.PublishMsg(message()); err != nil {
		return fmt.Errorf("processor: item %s: %w", w.Item, err)
	}
	w.markAlive()
	return nil
}

// touch notes a sign of life that leaves by another way.
func (w *Work) touch() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.usable(); err != nil {
		return err
	}
	w.markAlive()
	return nil
}

func (w *Work) usable() error {
	if w.p == nil || w.settled {
		return ErrSettled
	}
	return w.ended
}

// markAlive does not count what nats.go keeps in its buffer while the connection is down.
func (w *Work) markAlive() {
	if w.p.nc.IsConnected() {
		w.alive = time.Now()
	}
}
