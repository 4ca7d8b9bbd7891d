package bench

import (
	"context"
	"fmt"
	"math"
	"time"
)

// do carries out a command in a goroutine of its own, which is the publisher, and watches it.
func (s *sender) do(ctx context.Context, command string, tell func(event) error) (event, error) {
	carry := s.measure
	switch command {
	case doFill:
		carry = s.fill
	case doMeasure:
	default:
		return event{}, unknownCommand(command)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	type outcome struct {
		result *result
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		r, err := carry(ctx)
		done <- outcome{r, err}
	}()
	tick := time.NewTicker(progressStep)
	defer tick.Stop()
	watch := stallWatch{since: time.Now()}
	for {
		select {
		case o := <-done:
			return event{Result: o.result}, o.err
		case err := <-s.failed:
			cancel(err)
		case now := <-tick.C:
			if err := watch.look(now, s.sent.Load(), s.accepted.Load(), s.completed.Load()); err != nil {
				cancel(err)
			}
			if err := s.progress(tell); err != nil {
				cancel(err)
			}
		}
	}
}

func (s *sender) progress(tell func(event) error) error {
	if !s.Live {
		return nil
	}
	return tell(event{Event: isProgress, Accepted: s.accepted.Load(), Completed: s.completed.Load()})
}

// stallWatch notices that nothing comes any more.
type stallWatch struct {
	sum   int64
	since time.Time // when something last came
}

func (w *stallWatch) look(now time.Time, sent, accepted, completed int64) error {
	if sum := sent + accepted + completed; sum != w.sum {
		w.sum, w.since = sum, now
	}
	if now.Sub(w.since) < stallLimit {
		return nil
	}
	return fmt.Errorf("nothing has come for %s: of %d items %d are accepted and %d completed",
		stallLimit, sent, accepted, completed)
}

// fill puts items there that wait.
func (s *sender) fill(ctx context.Context) (*result, error) {
	limit, during := s.Items, s.Duration
	if s.Backlog > 0 {
		limit, during = s.Backlog, 0
	}
	if err := s.add(ctx, limit, during, 0); err != nil {
		return nil, err
	}
	return nil, s.settle(ctx, func() { s.accepts = tally{} })
}

// measure does the work.
func (s *sender) measure(ctx context.Context) (*result, error) {
	switch {
	case s.Mode == Drain:
		return s.drain(ctx)
	case s.Backlog > 0:
		return s.pass(ctx)
	}
	start := s.now()
	lead := int64(0)
	if s.Window == 1 && s.Mode == Roundtrip {
		lead = 1
	}
	if err := s.add(ctx, s.Items, s.Duration, lead); err != nil {
		return nil, err
	}
	r := &result{}
	if err := s.settle(ctx, func() { s.noteAccepts(r, start) }); err != nil {
		return nil, err
	}
	if s.Mode == Enqueue {
		return r, nil
	}
	if err := s.await(ctx, r.Sent); err != nil {
		return nil, err
	}
	r.Completed = s.completed.Load()
	r.Finished, r.Finishing = r.Completed, s.answers.last-start
	r.Roundtrip = s.answers.latency()
	return r, nil
}

// drain waits for what is there. The clock starts with the first answer, which is not counted.
func (s *sender) drain(ctx context.Context) (*result, error) {
	if err := s.await(ctx, 1); err != nil {
		return nil, err
	}
	start, already := s.now(), s.completed.Load()
	if err := s.await(ctx, s.sent.Load()); err != nil {
		return nil, err
	}
	r := &result{Sent: s.sent.Load(), Accepted: s.accepted.Load(), Completed: s.completed.Load()}
	r.Finished, r.Finishing = r.Completed-already, s.answers.last-start
	return r, nil
}

// pass adds items behind a backlog while others are completed at its head, from the first answer on, until as many are
// completed as were added. It gives the processors credit for what it adds.
func (s *sender) pass(ctx context.Context) (*result, error) {
	if err := s.await(ctx, 1); err != nil {
		return nil, err
	}
	start, already, filled := s.now(), s.completed.Load(), s.sent.Load()
	if err := s.add(ctx, s.Items, s.Duration, int64(s.Window)); err != nil {
		return nil, err
	}
	if err := s.grantAll(); err != nil {
		return nil, err
	}
	r := &result{}
	if err := s.settle(ctx, func() { s.noteAccepts(r, start) }); err != nil {
		return nil, err
	}
	if err := s.await(ctx, already+r.Sent-filled); err != nil {
		return nil, err
	}
	r.Completed = s.completed.Load()
	r.Finished, r.Finishing = r.Completed-already, s.now()-start
	return r, nil
}

// noteAccepts is called while no notice can come.
func (s *sender) noteAccepts(r *result, start time.Duration) {
	r.Sent, r.Accepted = s.sent.Load(), s.accepted.Load()
	r.Accepting = s.accepts.last - start
	r.Accept = s.accepts.latency()
}

// add sends items: so many, or unless that is 0, as many as it can during a time. If lead is not 0, it keeps less than that
// ahead of what is completed meanwhile.
func (s *sender) add(ctx context.Context, limit int64, during time.Duration, lead int64) error {
	timed := limit == 0
	if timed {
		limit = MaxItems
	}
	start, already := s.now(), s.completed.Load()
	for n := int64(0); n < limit; {
		slots, err := s.takeSlots(ctx, limit-n)
		if err != nil {
			return err
		}
		last := n + int64(len(slots))
		if lead > 0 {
			if err := s.await(ctx, already+last-lead); err != nil {
				return err
			}
		}
		now := s.now()
		if timed && now-start >= during {
			s.giveBack(slots)
			return nil
		}
		if err := s.sendAll(slots, now); err != nil {
			return err
		}
		for ; n < last; n++ {
			if s.Backlog > 0 && lead > 0 {
				if err := s.grant(n + 1); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// takeSlots waits for a slot and takes, for a batch, what else is free, as far as the message and the items to send allow.
// The result is good until the next call.
func (s *sender) takeSlots(ctx context.Context, limit int64) ([]int, error) {
	i, err := s.takeSlot(ctx)
	if err != nil {
		return nil, err
	}
	s.taken = append(s.taken[:0], i)
	for int64(len(s.taken)) < min(limit, int64(s.Batch)) {
		select {
		case i = <-s.free:
			s.taken = append(s.taken, i)
		default:
			return s.taken, nil
		}
	}
	return s.taken, nil
}

func (s *sender) giveBack(slots []int) {
	for _, i := range slots {
		s.free <- i
	}
}

func (s *sender) sendAll(slots []int, now time.Duration) error {
	if s.Batch > 0 {
		return s.sendBatch(slots, now)
	}
	return s.send(slots[0], now)
}

func (s *sender) send(i int, now time.Duration) error {
	number := s.sent.Add(1) - 1
	slot := &s.slots[i]
	slot.msg.Subject = s.Queues[number%int64(len(s.Queues))]
	putStamp(slot.msg.Data, number, now)
	slot.at.Store(int64(now))
	if err := s.publish(&slot.msg); err != nil {
		return fmt.Errorf("publishing item %d: %w", number, err)
	}
	return nil
}

func (s *sender) takeSlot(ctx context.Context) (int, error) {
	select {
	case i := <-s.free:
		return i, nil
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// settle waits for the notices that are missing, by taking all slots, and then calls f, before it gives them back.
func (s *sender) settle(ctx context.Context, f func()) error {
	taken := make([]int, len(s.slots))
	for i := range taken {
		var err error
		if taken[i], err = s.takeSlot(ctx); err != nil {
			return err
		}
	}
	f()
	s.giveBack(taken)
	return nil
}

// await waits until so many items are completed.
func (s *sender) await(ctx context.Context, n int64) error {
	if s.completed.Load() >= n {
		return nil
	}
	s.target.Store(n)
	defer s.target.Store(math.MaxInt64)
	for s.completed.Load() < n {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
