package pool

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"stint/processor"
	"stint/wire"
)

// Pool is a set of child processes that process the items of a queue. Its methods may be called from several goroutines.
type Pool struct {
	o      Options
	spec   spec
	events chan event
	over   chan struct{} // closed when nobody reads events any more
	begun  chan struct{} // has one element until Run is called
	places chan struct{} // in mode Exec, has an element for each item with a process or one that waits for its start
	tally  tally         // in mode Exec
}

// event is something for the owner's goroutine to do.
type event func(own *owner, now time.Time)

// ErrOver is returned by methods of a pool that does not run any more.
var ErrOver = errors.New("pool: it has ended")

// New checks the options and looks for the command. Nothing is started.
func New(o Options) (*Pool, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	s, err := o.spec()
	if err != nil {
		return nil, err
	}
	p := &Pool{o: o, spec: s, events: make(chan event, 512), over: make(chan struct{}), begun: make(chan struct{}, 1), places: make(chan struct{}, min(o.capacity(), o.Children+maxPlaces))}
	p.begun <- struct{}{}
	return p, nil
}

// Run is [New] and [Pool.Run].
func Run(ctx context.Context, nc *nats.Conn, o Options) error {
	p, err := New(o)
	if err != nil {
		return err
	}
	return p.Run(ctx, nc)
}

// Run processes items until ctx ends. Then it takes no more, lets those in hand finish for Options.StopTimeout, gives back the
// rest, ends the children, and returns. It may be called once. The connection must stay open until then and should reconnect
// for ever.
//
// It returns nil after a clean end. Errors: those of [processor.Run]; [ErrNoGuard]; that the guard process cannot be kept
// alive; that the lock file belongs to another process; that the pool has been run before.
func (p *Pool) Run(ctx context.Context, nc *nats.Conn) error {
	select {
	case <-p.begun:
	default:
		return errors.New("pool: Run can be called once")
	}
	var helpers sync.WaitGroup
	defer helpers.Wait()
	defer close(p.over)
	unlock, err := lock(p.o.LockFile)
	if err != nil {
		return err
	}
	defer unlock()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	own, err := newOwner(p, fail)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		own.run()
	}()
	stop := context.AfterFunc(ctx, func() { p.post(func(own *owner, now time.Time) { own.drain(now) }) })
	defer stop()
	helpers.Go(p.watchMemory)
	helpers.Go(p.monitor)
	desk := p.openDesk(nc)
	err = processor.Run(ctx, nc, p.o.forProcessor(), p.handler())
	desk.close()
	p.post(func(own *owner, now time.Time) { own.abort(now) })
	<-ended
	var lost *lostGuard
	if errors.As(context.Cause(ctx), &lost) {
		err = errors.Join(err, lost)
	}
	return err
}

// Reload replaces all children by new ones, one at a time, so that a new version of their program comes into use without work
// being refused. If a new child ends at once the others stay. It does not wait. In mode Exec there is nothing to do.
func (p *Pool) Reload() {
	p.post(func(own *owner, now time.Time) { own.reload(now) })
}

// post hands an event to the owner. It is false when the pool is over.
func (p *Pool) post(e event) bool {
	select {
	case p.events <- e:
		return true
	case <-p.over:
		return false
	}
}

func (p *Pool) handler() processor.Handler {
	if p.o.Mode == Exec {
		return p.exec
	}
	return p.handle
}

// handle gives an item to the owner, and waits for what becomes of it.
func (p *Pool) handle(ctx context.Context, w *processor.Work) ([]byte, error) {
	it := &item{work: w, timeout: p.timeout(w), done: make(chan result, 1)}
	it.line, it.limit = appendWork(make([]byte, 0, 192+len(w.Body)), w, it.timeout > 0)
	if !p.post(func(own *owner, now time.Time) { own.roster.arrive(now, it) }) {
		return nil, processor.Release(0)
	}
	r, ok := result{}, false
	select {
	case r = <-it.done:
		ok = true
	case <-ctx.Done():
		p.post(func(own *owner, now time.Time) { own.roster.abandon(now, it, context.Cause(ctx)) })
	}
	if !ok {
		select {
		case r = <-it.done:
		case <-p.over:
			return nil, processor.Release(0)
		}
	}
	return r.reply(w)
}

// reply is what the handler returns.
func (r *result) reply(w *processor.Work) ([]byte, error) {
	for name, values := range r.headers {
		for _, v := range values {
			if err := w.SetReplyHeader(name, v); err != nil {
				return nil, fmt.Errorf("a header of the child's reply: %w", err)
			}
		}
	}
	return r.body, r.err
}

// timeout is how long a child may have an item.
func (p *Pool) timeout(w *processor.Work) time.Duration {
	if len(w.Header) > 0 {
		if s, err := wire.ParseSend(wire.Header(w.Header), nil); err == nil && s.Timeout > 0 {
			return s.Timeout
		}
	}
	return p.o.Timeout
}
