package processor

import (
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

// The time between two signs of life is a third of the process timeout, and within these bounds.
const (
	shortestSilence = MinProcessTimeout / 3
	longestSilence  = 10 * time.Second
)

// hold starts the lease's life: its context, and the timer that keeps it.
func (w *Work) hold(parent context.Context) {
	w.ctx, w.cancel = context.WithCancelCause(parent)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.alive = w.received
	w.timer = time.AfterFunc(w.rest(w.received), w.keep)
}

// rest is how long the timer may sleep: to the next sign of life, or to an end that comes before it.
func (w *Work) rest(now time.Time) time.Duration {
	d := min(w.timeout/3, longestSilence, w.alive.Add(w.timeout).Sub(now))
	if w.p.o.MaxHandle > 0 {
		d = min(d, w.received.Add(w.p.o.MaxHandle).Sub(now))
	}
	return max(d, shortestSilence)
}

// keep is what the timer does.
func (w *Work) keep() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	switch {
	case w.settled || w.ended != nil:
		return
	case w.p.o.MaxHandle > 0 && now.Sub(w.received) >= w.p.o.MaxHandle:
		w.end(ErrTooLong)
		return
	case !w.p.o.ManualExtend:
		w.signOfLife(now)
	}
	if now.Sub(w.alive) >= w.timeout {
		w.end(ErrLeaseLost)
		return
	}
	w.timer.Reset(w.rest(now))
}

// signOfLife sends one if it can count.
func (w *Work) signOfLife(now time.Time) {
	if !w.p.nc.IsConnected() {
		return
	}
	err := w.p.nc.PublishMsg(&nats.Msg{Subject: w.lease, Data: []byte(wire.WordWorking)})
	if err != nil {
		w.p.log.Warn("a sign of life could not be sent", "item", w.Item, "error", err)
		return
	}
	w.alive = now
}

// renew sends a sign of life out of turn: the broker is back in reach.
func (w *Work) renew() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.settled && w.ended == nil && !w.p.o.ManualExtend {
		w.signOfLife(time.Now())
	}
}

// held says whether the lease is still ours.
func (w *Work) held() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !w.settled && w.ended == nil
}

// drop ends w without a word.
func (w *Work) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.close()
}

// lose ends the handler's context for a reason found elsewhere.
func (w *Work) lose(cause error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.settled && w.ended == nil {
		w.end(cause)
	}
}

func (w *Work) end(cause error) {
	w.ended = cause
	w.timer.Stop()
	w.cancel(cause)
	w.p.log.Warn("the handler's context ends", "item", w.Item, "attempt", w.Attempt, "cause", cause)
}
