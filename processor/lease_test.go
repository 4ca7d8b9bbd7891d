package processor_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"stint/processor"
	"stint/wire"
)

var working = wire.Answer{Kind: wire.Working}

// until is a handler that works for a time, or less when its context ends.
func until(d time.Duration) processor.Handler {
	return func(ctx context.Context, w *processor.Work) ([]byte, error) {
		select {
		case <-time.After(d):
			return w.Body, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// instants gathers when answers come after begin, up to the one that settles the item.
func instants(s *stage, begin time.Time) (signs []time.Duration, last wire.Answer) {
	for {
		m := s.broker.next(time.Hour)
		a := wire.ParseAnswer(wire.Header(m.Header), m.Data, m.Reply)
		if a.Kind != wire.Working {
			return signs, a
		}
		signs = append(signs, time.Since(begin))
	}
}

func every(d time.Duration, n int) []time.Duration {
	instants := make([]time.Duration, n)
	for i := range instants {
		instants[i] = time.Duration(i+1) * d
	}
	return instants
}

// The signs of life come at a third of the process timeout and at least every 10 seconds, and end with the handler.
func TestSignsOfLife(t *testing.T) {
	for name, c := range map[string]struct {
		timeout time.Duration
		header  nats.Header
		work    time.Duration
		want    []time.Duration
	}{
		"default":         {0, nil, 35 * time.Second, every(10*time.Second, 3)},
		"short timeout":   {9 * time.Second, nil, 10 * time.Second, every(3*time.Second, 3)},
		"timeout of item": {0, nats.Header{"stint-timeout": {"1500"}}, 1900 * time.Millisecond, every(500*time.Millisecond, 3)},
		"absurd timeout":  {0, nats.Header{"Stint-Timeout": {"1"}}, 5 * time.Millisecond, nil},
		"quick work":      {0, nil, 9 * time.Second, nil},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, processor.Options{ProcessTimeout: c.timeout}, until(c.work), func(t *testing.T, s *stage) {
				begin := time.Now()
				s.broker.give(1, 1, "done", c.header)
				got, last := instants(s, begin)
				if last.Kind != wire.Done || string(last.Body) != "done" || time.Since(begin) != c.work {
					t.Fatalf("ended after %v with %+v", time.Since(begin), last)
				}
				if len(got) != len(c.want) {
					t.Fatalf("signs of life at %v, want %v", got, c.want)
				}
				for i := range got {
					if got[i] != c.want[i] {
						t.Fatalf("signs of life at %v, want %v", got, c.want)
					}
				}
				s.broker.silence(time.Hour)
			})
		})
	}
}

// With ManualExtend the deadline is where the handler's own signs put it, to the instant.
func TestManualExtend(t *testing.T) {
	const timeout = time.Minute
	h := func(ctx context.Context, w *processor.Work) ([]byte, error) {
		begin := time.Now()
		pause(50 * time.Second)
		if err := w.Extend(); err != nil {
			return nil, err
		}
		pause(50 * time.Second)
		if err := w.Progress([]byte("half")); err != nil {
			return nil, err
		}
		if left := time.Until(w.Deadline()); left != timeout {
			return nil, errors.New("the deadline is in " + left.String())
		}
		<-ctx.Done()
		if err := w.Extend(); !errors.Is(err, processor.ErrLeaseLost) {
			return nil, errors.New("a lost lease was extended")
		}
		return []byte(time.Since(begin).String()), nil
	}
	play(t, processor.Options{ProcessTimeout: timeout, ManualExtend: true}, h, func(t *testing.T, s *stage) {
		s.broker.give(1, 1, "", nil)
		m := s.broker.next(time.Minute)
		if string(m.Data) != wire.WordWorking {
			t.Fatalf("got %q", m.Data)
		}
		m = s.broker.next(time.Minute)
		if string(m.Data) != "half" || m.Header.Get(wire.HeaderProgress) != "true" {
			t.Fatalf("got %q %v", m.Data, m.Header)
		}
		// The outcome of a handler whose lease was lost is sent all the same.
		if m = s.broker.next(2 * time.Minute); string(m.Data) != "2m40s" {
			t.Fatalf("the context ended after %q, want 2m40s", m.Data)
		}
	})
}

func TestMaxHandleEndsAHandlerThatHangs(t *testing.T) {
	play(t, processor.Options{MaxHandle: 25 * time.Second}, until(time.Hour), func(t *testing.T, s *stage) {
		begin := time.Now()
		s.broker.give(1, 1, "", nil)
		signs, last := instants(s, begin)
		if len(signs) != 2 || time.Since(begin) != 25*time.Second || last.Reason != processor.ErrTooLong.Error() {
			t.Fatalf("signs at %v, then %+v after %v", signs, last, time.Since(begin))
		}
	})
}

func TestNoMaxHandle(t *testing.T) {
	o := processor.Options{MaxHandle: -1, ProcessTimeout: time.Minute}
	play(t, o, until(processor.DefaultMaxHandle+time.Minute), func(t *testing.T, s *stage) {
		s.broker.give(1, 1, "done", nil)
		if _, last := instants(s, time.Now()); last.Kind != wire.Done {
			t.Fatalf("got %+v", last)
		}
	})
}

// Another attempt is proof that the lease of the one in hand has ended.
func TestAnotherAttemptEndsTheFirst(t *testing.T) {
	play(t, processor.Options{Capacity: 2}, until(5*time.Second), func(_ *testing.T, s *stage) {
		s.broker.give(2, 1, "first", nil)
		s.broker.give(2, 2, "second", nil)
		s.broker.expect(2, 1, wire.Answer{Kind: wire.Failed, Code: "500", Reason: processor.ErrLeaseLost.Error()})
		s.broker.expectIn(6*time.Second, 2, 2, wire.Answer{Kind: wire.Done, Body: []byte("second")})
	})
}

// The same attempt once more, as a restarted broker sends it, is neither refused nor done twice.
func TestSameAttemptAgain(t *testing.T) {
	play(t, processor.Options{Capacity: 1}, until(5*time.Second), func(_ *testing.T, s *stage) {
		s.broker.give(1, 1, "done", nil)
		pause(time.Second)
		s.broker.give(1, 1, "done", nil)
		s.broker.expectIn(5*time.Second, 1, 1, wire.Answer{Kind: wire.Done, Body: []byte("done")})
		s.broker.silence(time.Minute)
	})
}

// A replaced attempt that frees its slot must not take the other one out of what is kept alive.
func TestOtherAttemptStaysInHand(t *testing.T) {
	play(t, processor.Options{Capacity: 2}, until(5*time.Second), func(t *testing.T, s *stage) {
		s.broker.give(1, 1, "", nil)
		s.broker.give(1, 2, "", nil)
		s.broker.expect(1, 1, wire.Answer{Kind: wire.Failed, Code: "500", Reason: processor.ErrLeaseLost.Error()})
		s.bus.stop()
		s.bus.start()
		take(t, s.broker.registered, time.Second, "registration")
		s.broker.expect(1, 2, working)
	})
}

// While the connection is down nothing counts as a sign of life, and so the lease ends.
func TestLeaseEndsWhileTheConnectionIsDown(t *testing.T) {
	bubble(t, func(t *testing.T) {
		causes := make(chan error, 1)
		begin := make(chan time.Time, 1)
		ended := make(chan time.Duration, 1)
		h := func(ctx context.Context, w *processor.Work) ([]byte, error) {
			at := <-begin
			<-ctx.Done()
			causes <- context.Cause(ctx)
			ended <- time.Since(at)
			return nil, w.Extend()
		}
		perform(t, processor.Options{ProcessTimeout: time.Minute}, h, func(t *testing.T, s *stage) {
			begin <- time.Now()
			s.broker.give(1, 1, "", nil)
			pause(15 * time.Second)
			s.bus.stop()
			if err := take(t, causes, time.Hour, "end of the context"); !errors.Is(err, processor.ErrLeaseLost) {
				t.Fatalf("cause %v", err)
			}
			if d := take(t, ended, time.Second, "end"); d != 70*time.Second {
				t.Fatalf("the lease ended after %v, want a minute after the sign of life at 10s", d)
			}
			s.bus.start()
			take(t, s.broker.registered, time.Second, "registration")
		})
	})
}

// After a reconnect what is in hand says so at once, and its outcome is sent.
func TestReconnectKeepsWorkInHand(t *testing.T) {
	play(t, processor.Options{}, until(8*time.Second), func(t *testing.T, s *stage) {
		s.broker.give(1, 1, "done", nil)
		pause(time.Second)
		s.bus.stop()
		pause(3 * time.Second)
		s.bus.start()
		if r := take(t, s.broker.registered, time.Second, "registration"); r.Processor != subject {
			t.Fatalf("registered %+v", r)
		}
		s.broker.expect(1, 1, working)
		s.broker.expectIn(5*time.Second, 1, 1, wire.Answer{Kind: wire.Done, Body: []byte("done")})
	})
}

func TestOutcomeDuringADisconnectIsSentAfterwards(t *testing.T) {
	play(t, processor.Options{}, until(2*time.Second), func(t *testing.T, s *stage) {
		s.broker.give(1, 1, "done", nil)
		pause(time.Second)
		s.bus.stop()
		pause(3 * time.Second)
		s.bus.start()
		take(t, s.broker.registered, time.Second, "registration")
		s.broker.expect(1, 1, wire.Answer{Kind: wire.Done, Body: []byte("done")})
	})
}

// No more outcomes are kept for a broker that is out of reach than items can have been in hand.
func TestKeptOutcomesAreBounded(t *testing.T) {
	done := wire.Answer{Kind: wire.Done, Body: []byte("done")}
	play(t, processor.Options{}, until(2*time.Second), func(_ *testing.T, s *stage) {
		s.broker.give(1, 1, "done", nil)
		pause(time.Second)
		s.bus.stop()
		pause(3 * time.Second)
		s.broker.say(nil)
		s.bus.start()
		pause(time.Second)
		s.broker.give(2, 1, "done", nil)
		s.broker.expectIn(3*time.Second, 2, 1, done)
		s.broker.say(wire.OK())
		s.broker.expectIn(10*time.Second, 1, 1, done)
	})
}

func TestMoreThanCapacityIsRefused(t *testing.T) {
	refused := wire.Answer{Kind: wire.Nak, Delay: 100 * time.Millisecond, HasDelay: true}
	play(t, processor.Options{Capacity: 2}, until(time.Second), func(_ *testing.T, s *stage) {
		for item := range uint64(3) {
			s.broker.give(item, 1, "done", nil)
			pause(time.Millisecond)
		}
		s.broker.expect(2, 1, refused)
		s.broker.expectIn(2*time.Second, 0, 1, wire.Answer{Kind: wire.Done, Body: []byte("done")})
	})
}

// A broker that sends the next item the moment it has an answer is never refused.
func TestNoRefusalWithinCapacity(t *testing.T) {
	const capacity, items = 3, 3000
	play(t, processor.Options{Capacity: capacity}, echo, func(t *testing.T, s *stage) {
		for item := range uint64(capacity) {
			s.broker.give(item, 1, "x", nil)
		}
		for item := uint64(capacity); item < items; item++ {
			if m := s.broker.next(time.Second); string(m.Data) != "x" {
				t.Fatalf("%d: got %q", item, m.Data)
			}
			s.broker.give(item, 1, "x", nil)
		}
		synctest.Wait()
	})
}

func TestConversation(t *testing.T) {
	h := func(ctx context.Context, w *processor.Work) ([]byte, error) {
		size, err := w.Ask(ctx, []byte("size?"))
		if err != nil {
			return nil, err
		}
		colour, err := w.Ask(ctx, []byte("colour?"))
		if err != nil {
			return nil, err
		}
		return append(size.Data, colour.Data...), nil
	}
	play(t, processor.Options{}, h, func(t *testing.T, s *stage) {
		s.broker.give(1, 1, "", nil)
		for _, turn := range [][2]string{{"size?", "XL "}, {"colour?", "blue"}} {
			m := s.broker.next(time.Second)
			if string(m.Data) != turn[0] || m.Reply == "" || m.Subject != wire.LeaseSubject(address, 1, 1) {
				t.Fatalf("got %q on %s with reply %q", m.Data, m.Subject, m.Reply)
			}
			if err := m.Respond([]byte(turn[1])); err != nil {
				t.Fatal(err)
			}
		}
		s.broker.expect(1, 1, wire.Answer{Kind: wire.Done, Body: []byte("XL blue")})
	})
}

// A question ends with the context it was given, with the lease, and with an error from the other side.
func TestQuestionWithoutAnAnswer(t *testing.T) {
	ask := func(limit time.Duration) processor.Handler {
		return func(_ context.Context, w *processor.Work) ([]byte, error) {
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			_, err := w.Ask(ctx, []byte("?"))
			return nil, err
		}
	}
	gone := (&wire.Error{Code: wire.CodeUnavailable, Message: "the sender is gone"}).Header()
	for name, c := range map[string]struct {
		limit  time.Duration
		header nats.Header
		want   string
	}{
		"context": {5 * time.Second, nil, "context deadline exceeded"},
		"lease":   {time.Hour, nil, processor.ErrTooLong.Error()},
		"error":   {time.Hour, nats.Header(gone), "the sender is gone (503)"},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, processor.Options{MaxHandle: 8 * time.Second}, ask(c.limit), func(t *testing.T, s *stage) {
				s.broker.give(1, 1, "", nil)
				m := s.broker.next(time.Second)
				if c.header != nil {
					if err := m.RespondMsg(&nats.Msg{Header: c.header}); err != nil {
						t.Fatal(err)
					}
				}
				s.broker.expectIn(time.Minute, 1, 1, wire.Answer{
					Kind: wire.Failed, Code: "500", Reason: "processor: asking the sender of item 1: " + c.want,
				})
			})
		})
	}
}
