package processor_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"stint/processor"
	"stint/wire"
)

func TestRegistration(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ready := make(chan struct{}, 10)
		s := newStage(t, processor.Options{Capacity: 7, OnRegister: func() { ready <- struct{}{} }}, echo)
		if r := take(t, s.broker.registered, time.Second, "registration"); r.Processor != subject || r.Capacity != 7 {
			t.Fatalf("registered %+v", r)
		}
		take(t, ready, time.Second, "call of OnRegister")
	})
}

// The default subject is one that the broker takes, and a new one in each run.
func TestDefaultSubject(t *testing.T) {
	bubble(t, func(t *testing.T) {
		bus := newBus(t, server.Options{})
		b := newBroker(t, bus.connect())
		seen := map[string]bool{}
		for range 3 {
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			nc := bus.connect()
			go func() { ended <- processor.Run(ctx, nc, processor.Options{Address: address}, echo) }()
			seen[take(t, b.registered, time.Second, "registration").Processor] = true
			cancel()
			if err := take(t, ended, time.Second, "end"); err != nil {
				t.Fatal(err)
			}
		}
		for subject := range seen {
			if err := wire.CheckSubject(subject); err != nil || !strings.HasPrefix(subject, "stint.processor.") {
				t.Errorf("%s: %v", subject, err)
			}
		}
		if len(seen) != 3 {
			t.Errorf("subjects %v are not new in each run", seen)
		}
	})
}

// A broker that is not there, that is silent, or that cannot now, is asked until it says ok; the log hears of it once.
func TestRegistrationIsRepeated(t *testing.T) {
	refusal := func(code wire.Code) []byte { return wire.Errorf(code, "not now").Body() }
	for name, status := range map[string][]byte{
		"absent": nil, "shutting down": refusal(wire.CodeShuttingDown), "disk full": refusal(wire.CodeDiskFull),
		"busy": refusal(wire.CodeBusy), "full": refusal(wire.CodeQueueFull),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				bus := newBus(t, server.Options{})
				var b *broker
				if status != nil {
					b = newBroker(t, bus.connect())
					b.say(status)
				}
				var log bytes.Buffer
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				nc := bus.connect()
				o := processor.Options{Address: address, Subject: subject, Logger: slog.New(slog.NewTextHandler(&log, nil))}
				go func() { ended <- processor.Run(ctx, nc, o, echo) }()
				pause(time.Minute)
				tries := 0
				if b == nil {
					b = newBroker(t, bus.connect())
				} else {
					tries = len(b.registered)
					b.say(wire.OK())
				}
				if tries > 45 || status != nil && tries < 25 {
					t.Errorf("%d tries in a minute", tries)
				}
				for range tries + 1 {
					take(t, b.registered, 2*time.Second, "registration")
				}
				b.give(1, 1, "work", nil)
				b.expect(1, 1, wire.Answer{Kind: wire.Done, Body: []byte("work")})
				cancel()
				if err := take(t, ended, time.Second, "end"); err != nil {
					t.Fatal(err)
				}
				if n := strings.Count(log.String(), "trying on"); n != 1 {
					t.Errorf("the log has it %d times:\n%s", n, log.String())
				}
			})
		})
	}
}

func TestRefusedRegistration(t *testing.T) {
	for name, c := range map[string]struct {
		status []byte
		want   processor.RegisterError
	}{
		"forbidden": {
			wire.Errorf(wire.CodeForbiddenSubject, "choose another subject").Body(),
			processor.RegisterError{Address: address, Code: "forbidden_subject", Message: "choose another subject"},
		},
		"no code": {
			[]byte(`{"status":"error","message":"no"}`), processor.RegisterError{Address: address, Message: "no"},
		},
		"no broker": {
			[]byte("hello"),
			processor.RegisterError{Address: address, Message: `something that is no broker answers at orders.register: "hello"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				bus := newBus(t, server.Options{})
				newBroker(t, bus.connect()).say(c.status)
				err := processor.Run(t.Context(), bus.connect(), processor.Options{Address: address, Subject: subject}, echo)
				var refused *processor.RegisterError
				if !errors.As(err, &refused) || *refused != c.want {
					t.Fatalf("got %v, want %+v", err, c.want)
				}
			})
		})
	}
}

// A processor without work registers again after a minute; one at work does not, since registering ends a withheld state.
func TestRegistrationIsRefreshed(t *testing.T) {
	play(t, processor.Options{}, until(10*time.Minute), func(t *testing.T, s *stage) {
		pause(59 * time.Second)
		if len(s.broker.registered) != 0 {
			t.Fatal("registered again too early")
		}
		take(t, s.broker.registered, 2*time.Second, "registration")
		s.broker.give(1, 1, "", nil)
		pause(10*time.Minute + 30*time.Second)
		if n := len(s.broker.registered); n != 0 {
			t.Fatalf("registered %d times while at work", n)
		}
		take(t, s.broker.registered, 2*time.Minute, "registration")
	})
}

// The end: unregister, take nothing new, finish what is in hand, and only then give up the subscription.
func TestDrain(t *testing.T) {
	play(t, processor.Options{Capacity: 2}, until(5*time.Second), func(t *testing.T, s *stage) {
		s.broker.give(1, 1, "done", nil)
		pause(time.Second)
		s.stop()
		if got := take(t, s.broker.unregistered, time.Second, "unregister"); got != subject {
			t.Fatalf("unregistered %s", got)
		}
		s.broker.give(2, 1, "late", nil)
		s.broker.expect(2, 1, wire.Answer{Kind: wire.Nak})
		s.broker.expectIn(5*time.Second, 1, 1, wire.Answer{Kind: wire.Done, Body: []byte("done")})
		if err := s.result(time.Second); err != nil {
			t.Fatal(err)
		}
		if s.nc.NumSubscriptions() != 1 || s.nc.IsClosed() { // nats.go keeps one of its own for requests
			t.Fatalf("%d subscriptions are left", s.nc.NumSubscriptions())
		}
	})
}

// Work that the broker sent before its answer to unregister is given back, all of it.
func TestWorkThatCrossesUnregister(t *testing.T) {
	const items = 500
	// The log of something strange holds up the subscription, so that the work is still to be looked at when the ok comes.
	slow := slog.New(slog.NewTextHandler(writer(func() { pause(500 * time.Millisecond) }), nil))
	play(t, processor.Options{Capacity: items, Logger: slow}, echo, func(t *testing.T, s *stage) {
		s.broker.beforeOK = func() {
			if err := s.broker.nc.Publish(subject, []byte("strange")); err != nil {
				t.Error(err)
			}
			for item := range uint64(items) {
				s.broker.give(item, 1, "x", nil)
			}
		}
		s.stop()
		if err := s.result(10 * time.Second); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(s.broker.answers); n != items {
			t.Fatalf("%d items came back", n)
		}
		for range items {
			m := <-s.broker.answers
			if a := wire.ParseAnswer(wire.Header(m.Header), m.Data, m.Reply); a.Kind != wire.Nak {
				t.Fatalf("got %+v", a)
			}
		}
	})
}

// When the time to drain is over a handler is told, and what it has not done is given back without a counted attempt.
func TestDrainTimeout(t *testing.T) {
	play(t, processor.Options{DrainTimeout: 3 * time.Second}, until(time.Hour), func(t *testing.T, s *stage) {
		s.broker.give(1, 1, "", nil)
		pause(time.Second)
		begin := time.Now()
		s.stop()
		s.broker.expectIn(4*time.Second, 1, 1, wire.Answer{Kind: wire.Nak})
		if d := time.Since(begin); d != 3*time.Second {
			t.Errorf("given back after %v", d)
		}
		if err := s.result(time.Second); err != nil {
			t.Fatalf("a handler that heeds its context is a clean end; got %v", err)
		}
	})
}

// A handler that does not heed its context cannot be ended; its item is given back, and what it returns is dropped.
func TestHandlerThatDoesNotEnd(t *testing.T) {
	stubborn := func(_ context.Context, w *processor.Work) ([]byte, error) {
		pause(time.Minute)
		return w.Body, w.Extend()
	}
	play(t, processor.Options{DrainTimeout: -1}, stubborn, func(t *testing.T, s *stage) {
		s.broker.give(1, 1, "done", nil)
		pause(time.Second)
		begin := time.Now()
		s.stop()
		s.broker.expectIn(2*time.Second, 1, 1, wire.Answer{Kind: wire.Nak})
		if err := s.result(time.Second); !errors.Is(err, processor.ErrUnfinished) {
			t.Fatalf("got %v", err)
		}
		if d := time.Since(begin); d != time.Second {
			t.Errorf("the end took %v", d)
		}
		s.broker.silence(2 * time.Minute)
	})
}

// A broker that is gone does not hold up the end for longer than it is asked.
func TestDrainWithoutABroker(t *testing.T) {
	play(t, processor.Options{}, echo, func(t *testing.T, s *stage) {
		s.broker.nc.Close()
		synctest.Wait()
		s.stop()
		if err := s.result(time.Second); err != nil {
			t.Fatal(err)
		}
	})
}

// With the server down, what is left to say waits for it, but not for long.
func TestDrainWithoutAServer(t *testing.T) {
	play(t, processor.Options{}, echo, func(t *testing.T, s *stage) {
		s.bus.stop()
		pause(time.Second)
		begin := time.Now()
		s.stop()
		if err := s.result(time.Minute); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begin); d != 2*time.Second {
			t.Fatalf("the end took %v, want 2s", d)
		}
	})
}

// An outcome that is reached meanwhile leaves when the server comes back in that time.
func TestLastAnswerAfterAServerIsBack(t *testing.T) {
	play(t, processor.Options{}, until(5*time.Second), func(t *testing.T, s *stage) {
		early := make(chan *nats.Msg, 10) // what a broker hears that is back before the processor
		if _, err := s.bus.connectEvery(10*time.Millisecond).ChanSubscribe(wire.LeasePattern(address), early); err != nil {
			t.Fatal(err)
		}
		s.broker.give(1, 1, "done", nil)
		pause(time.Second)
		s.bus.stop()
		s.stop()
		pause(5*time.Second + 5*time.Millisecond)
		s.bus.start()
		if m := take(t, early, time.Second, "answer"); string(m.Data) != "done" {
			t.Fatalf("got %q", m.Data)
		}
		if err := s.result(time.Minute); err != nil {
			t.Fatal(err)
		}
	})
}

func TestClosedConnection(t *testing.T) {
	bubble(t, func(t *testing.T) {
		causes := make(chan error, 1)
		h := func(ctx context.Context, _ *processor.Work) ([]byte, error) {
			<-ctx.Done()
			causes <- context.Cause(ctx)
			return nil, nil
		}
		perform(t, processor.Options{}, h, func(t *testing.T, s *stage) {
			s.broker.give(1, 1, "", nil)
			pause(time.Second)
			s.nc.Close()
			if err := take(t, causes, time.Second, "end of the context"); !errors.Is(err, processor.ErrLeaseLost) {
				t.Errorf("cause %v", err)
			}
			if err := s.result(time.Second); !errors.Is(err, processor.ErrClosed) || errors.Is(err, processor.ErrUnfinished) {
				t.Errorf("got %v", err)
			}
			err := processor.Run(t.Context(), s.nc, processor.Options{Address: address}, echo)
			if !errors.Is(err, nats.ErrConnectionClosed) {
				t.Errorf("on a closed connection: got %v", err)
			}
		})
	})
}

// What the context of Run carries reaches the handlers, but not its end.
func TestHandlerContext(t *testing.T) {
	type key struct{}
	bubble(t, func(t *testing.T) {
		bus := newBus(t, server.Options{})
		b := newBroker(t, bus.connect())
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		h := func(ctx context.Context, _ *processor.Work) ([]byte, error) {
			cancel()
			pause(time.Second)
			if ctx.Err() != nil {
				return nil, errors.New("the context has ended")
			}
			return []byte(ctx.Value(key{}).(string)), nil
		}
		ended := make(chan error, 1)
		nc := bus.connect()
		go func() { ended <- processor.Run(ctx, nc, processor.Options{Address: address, Subject: subject}, h) }()
		take(t, b.registered, time.Second, "registration")
		b.give(1, 1, "", nil)
		b.expectIn(2*time.Second, 1, 1, wire.Answer{Kind: wire.Done, Body: []byte("value")})
		if err := take(t, ended, time.Second, "end"); err != nil {
			t.Fatal(err)
		}
	})
}

// writer calls itself for each write.
type writer func()

func (w writer) Write(p []byte) (int, error) {
	w()
	return len(p), nil
}

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]processor.Options{
		"Address":        {},
		"Address ":       {Address: "$orders"},
		"Subject":        {Address: address, Subject: "a.*"},
		"Capacity":       {Address: address, Capacity: -1},
		"Capacity ":      {Address: address, Capacity: wire.MaxCapacity + 1},
		"ProcessTimeout": {Address: address, ProcessTimeout: time.Millisecond},
	} {
		err := processor.Run(t.Context(), nil, o, echo)
		if err == nil || !strings.Contains(err.Error(), "Options."+strings.TrimSpace(name)) {
			t.Errorf("%+v: got %v", o, err)
		}
	}
}
