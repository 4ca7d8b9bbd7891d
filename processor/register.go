package processor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

// Waits of the registration.
const (
	registerTimeout   = 5 * time.Second        // for the broker's answer
	registerFirstWait = 100 * time.Millisecond // before the second try; doubled from then on
	registerMaxWait   = 2 * time.Second
	registerRefresh   = time.Minute // without work
)

// register asks once. It returns nil, a *RegisterError for a refusal that will not pass, or why it is worth trying again.
func (p *processor) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	body := wire.RegisterBody(wire.Registration{Processor: p.o.Subject, Capacity: p.o.Capacity, Batch: p.o.Batch})
	return p.request(ctx, wire.RegisterSubject(p.o.Address), body)
}

func (p *processor) unregister(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, unregisterTimeout)
	defer cancel()
	return p.request(ctx, wire.UnregisterSubject(p.o.Address), wire.UnregisterBody(p.o.Subject))
}

func (p *processor) request(ctx context.Context, subject string, body []byte) error {
	times := p.outbox.times()
	m, err := p.nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	p.inReach(times)
	status, ok := wire.ParseStatus(m.Data)
	switch {
	case !ok:
		return &RegisterError{Address: p.o.Address, Message: fmt.Sprintf("something that is no broker answers at %s: %.80q", subject, m.Data)}
	case status.Status == "ok":
		return nil
	case passes(wire.Code(status.Code)):
		return fmt.Errorf("%s: %s (%s)", subject, status.Message, status.Code)
	}
	return &RegisterError{Address: p.o.Address, Code: status.Code, Message: status.Message}
}

// passes says that a refusal with this code ends without anybody changing the registration.
func passes(code wire.Code) bool {
	switch code {
	case wire.CodeBusy, wire.CodeQueueFull, wire.CodeStoreFailed, wire.CodeDiskFull, wire.CodeShuttingDown,
		wire.CodeUnconfirmed, wire.CodeUnavailable:
		return true
	}
	return false
}

// registrar keeps the processor registered. All of it belongs to the goroutine of Run; a try has a goroutine of its own,
// one at a time, that only sends its result.
type registrar struct {
	p       *processor
	next    *time.Timer // of the next try
	wait    time.Duration
	cancel  context.CancelFunc // of the try under way; nil: none
	results chan error
	again   bool      // the connection came back during a try
	silent  bool      // the log has been told that the broker does not answer
	tried   time.Time // of the last registration; zero: none since the connection or the broker was lost
}

// keepRegistered returns nil once ctx has ended, or why the processor cannot go on.
func (p *processor) keepRegistered(ctx context.Context, status <-chan nats.Status) error {
	r := &registrar{p: p, next: time.NewTimer(0), wait: registerFirstWait, results: make(chan error, 1)}
	defer r.stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-status:
			switch {
			case p.nc.IsClosed():
				return ErrClosed
			case s == nats.CONNECTED:
				r.reconnected()
			default:
				p.outbox.leave()
			}
		case <-r.next.C:
			if r.due() {
				r.try(ctx)
			}
		case err := <-r.results:
			if err := r.result(err); err != nil {
				return err
			}
		}
	}
}

// stop waits for the try under way, which ends at once when it is cancelled.
func (r *registrar) stop() {
	r.next.Stop()
	if r.cancel != nil {
		r.cancel()
		<-r.results //nolint:errcheck // the processor ends anyway
	}
}

// reconnected starts over with the registration.
func (r *registrar) reconnected() {
	r.wait = registerFirstWait
	r.tried = time.Time{}
	if r.cancel != nil {
		r.cancel()
		r.again = true
		return
	}
	r.next.Reset(0)
}

// due says whether the timer's end calls for a try. After a registration it does so only for a processor that has been
// without work for a while: registering ends a withheld state, which a busy one may have earned.
func (r *registrar) due() bool {
	quiet := r.p.hand.quietSince()
	if r.tried.IsZero() || !quiet.IsZero() && time.Since(quiet) >= registerRefresh {
		return true
	}
	r.next.Reset(registerRefresh)
	return false
}

func (r *registrar) try(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	r.cancel = cancel
	go func() { r.results <- r.p.register(ctx) }()
}

func (r *registrar) result(err error) error {
	r.cancel()
	r.cancel = nil
	var refused *RegisterError
	switch {
	case r.again:
		r.again = false
		r.next.Reset(0)
	case err == nil:
		r.registered()
	case errors.As(err, &refused):
		return refused
	default:
		r.later(err)
	}
	return nil
}

func (r *registrar) registered() {
	if r.tried.IsZero() {
		r.p.log.Info("registered", "address", r.p.o.Address, "subject", r.p.o.Subject, "capacity", r.p.o.Capacity)
	}
	r.wait, r.silent, r.tried = registerFirstWait, false, time.Now()
	r.next.Reset(registerRefresh)
	if r.p.o.OnRegister != nil {
		r.p.o.OnRegister()
	}
}

// later tries again after a wait that grows and varies, so that the processors of a broker that comes back do not all
// come at once.
func (r *registrar) later(err error) {
	if !r.silent {
		r.silent = true
		r.p.log.Warn("the broker does not take the registration; trying on", "address", r.p.o.Address, "error", err)
	}
	r.tried = time.Time{}
	r.next.Reset(r.wait - time.Duration(rand.Int64N(int64(r.wait)/5)))
	r.wait = min(2*r.wait, registerMaxWait)
}
