package processor_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"stint/processor"
	"stint/wire"
)

func reply(body string, err error) processor.Handler {
	return func(context.Context, *processor.Work) ([]byte, error) { return []byte(body), err }
}

// Each thing that a handler can do becomes the answer that the protocol has for it, and only one.
func TestOutcomeBecomesAnswer(t *testing.T) {
	broken := errors.New("the press is broken")
	failed := func(reason string) wire.Answer {
		return wire.Answer{Kind: wire.Failed, Code: "500", Reason: reason}
	}
	unsayable := func(body string) wire.Answer {
		return failed(fmt.Sprintf("the reply %q reads as a word of the protocol: it cannot be sent as a reply", body))
	}
	retryIn := func(d time.Duration) wire.Answer {
		a := failed(broken.Error())
		a.Delay, a.HasDelay = d, true
		return a
	}
	for name, c := range map[string]struct {
		handler processor.Handler
		want    wire.Answer
	}{
		"reply":             {reply("\x00\xff{", nil), wire.Answer{Kind: wire.Done, Body: []byte("\x00\xff{")}},
		"empty reply":       {reply("", nil), wire.Answer{Kind: wire.Done}},
		"error":             {reply("ignored", broken), failed("the press is broken")},
		"error of lines":    {reply("", errors.New("one\r\nStint-Progress: true")), failed("one  Stint-Progress: true")},
		"empty error":       {reply("", errors.New("")), failed("failed")},
		"long error":        {reply("", errors.New(strings.Repeat("x", 100_000))), failed(strings.Repeat("x", wire.MaxMessage))},
		"retry":             {reply("", processor.Retry(broken, 3*time.Second)), retryIn(3 * time.Second)},
		"retry now":         {reply("", processor.Retry(broken, -1)), retryIn(0)},
		"retry rounds up":   {reply("", processor.Retry(broken, 1500*time.Microsecond)), retryIn(2 * time.Millisecond)},
		"retry without err": {reply("fine", processor.Retry(nil, time.Second)), wire.Answer{Kind: wire.Done, Body: []byte("fine")}},
		"reject":            {reply("", processor.Reject(broken)), wire.Answer{Kind: wire.Term, Reason: "the press is broken"}},
		"wrapped reject": {
			reply("", fmt.Errorf("page 3: %w", processor.Reject(broken))),
			wire.Answer{Kind: wire.Term, Reason: "page 3: the press is broken"},
		},
		"reject without err": {reply("fine", processor.Reject(nil)), wire.Answer{Kind: wire.Done, Body: []byte("fine")}},
		"release":            {reply("", processor.Release(0)), wire.Answer{Kind: wire.Nak}},
		"release later":      {reply("", processor.Release(time.Minute)), wire.Answer{Kind: wire.Nak, Delay: time.Minute, HasDelay: true}},
		"panic": {
			func(context.Context, *processor.Work) ([]byte, error) { panic("no ink") },
			failed("the handler panicked: no ink"),
		},
		"goexit": {
			func(context.Context, *processor.Work) ([]byte, error) { runtime.Goexit(); return nil, nil },
			failed("the handler ended its goroutine without a result"),
		},
		"reply +ACK":        {reply("+ACK", nil), unsayable("+ACK")},
		"reply +WPI":        {reply("+WPI", nil), unsayable("+WPI")},
		"reply -NAK":        {reply("-NAK", nil), unsayable("-NAK")},
		"reply +TERM x":     {reply("+TERM x", nil), unsayable("+TERM x")},
		"reply like a word": {reply("+WPI!", nil), wire.Answer{Kind: wire.Done, Body: []byte("+WPI!")}},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, processor.Options{}, c.handler, func(_ *testing.T, s *stage) {
				s.broker.give(7, 1, "body", nil)
				s.broker.expect(7, 1, c.want)
				s.broker.silence(time.Minute)
			})
		})
	}
}

func TestErrorsKeepTheirCause(t *testing.T) {
	broken := errors.New("broken")
	for _, err := range []error{processor.Retry(broken, 0), processor.Reject(broken)} {
		if !errors.Is(err, broken) || err.Error() != "broken" {
			t.Errorf("%v does not stand for its cause", err)
		}
	}
	if processor.Release(0).Error() == "" {
		t.Error("Release has no text")
	}
}

// A panic of one handler leaves the processor and the other items alone.
func TestPanicIsOneItemsAffair(t *testing.T) {
	h := func(_ context.Context, w *processor.Work) ([]byte, error) {
		if string(w.Body) == "bad" {
			panic(errors.New("no ink"))
		}
		return w.Body, nil
	}
	play(t, processor.Options{}, h, func(_ *testing.T, s *stage) {
		s.broker.give(1, 1, "bad", nil)
		s.broker.expect(1, 1, wire.Answer{Kind: wire.Failed, Code: "500", Reason: "the handler panicked: no ink"})
		s.broker.give(2, 1, "good", nil)
		s.broker.expect(2, 1, wire.Answer{Kind: wire.Done, Body: []byte("good")})
	})
}

func TestReplyLargerThanTheServerTakes(t *testing.T) {
	play(t, processor.Options{}, reply(strings.Repeat("x", 65<<10), nil), func(_ *testing.T, s *stage) {
		s.broker.give(1, 1, "", nil)
		s.broker.expect(1, 1, wire.Answer{Kind: wire.Failed, Code: "500", Reason: "the reply of 66560 bytes and its headers " +
			"are larger than the NATS server's max_payload of 65536: make it smaller"})
	})
}

func TestReplyHeader(t *testing.T) {
	h := func(_ context.Context, w *processor.Work) ([]byte, error) {
		for _, name := range []string{"stint-progress", "Nats-Service-Error", "Status", "", "a b", "a:", "a\n"} {
			if w.SetReplyHeader(name, "1") == nil {
				return nil, fmt.Errorf("the header %q was taken", name)
			}
		}
		return []byte("done"), w.SetReplyHeader("Content-Type", "text/plain")
	}
	play(t, processor.Options{}, h, func(t *testing.T, s *stage) {
		s.broker.give(1, 1, "", nil)
		m := s.broker.next(time.Second)
		if len(m.Header) != 1 || m.Header.Get("Content-Type") != "text/plain" || string(m.Data) != "done" {
			t.Fatalf("got %v %q", m.Header, m.Data)
		}
	})
}

func TestWorkTellsWhatCame(t *testing.T) {
	bubble(t, func(t *testing.T) {
		works := make(chan *processor.Work, 1)
		h := func(_ context.Context, w *processor.Work) ([]byte, error) { works <- w; return nil, nil }
		perform(t, processor.Options{}, h, func(t *testing.T, s *stage) {
			s.broker.give(1<<40, 3, "\x00body", nats.Header{"traceparent": {"00-1"}})
			w := take(t, works, time.Second, "work")
			if w.Address != address || w.Item != wire.FormatID(1<<40) || w.Attempt != 3 || string(w.Body) != "\x00body" ||
				w.Header.Get("traceparent") != "00-1" {
				t.Fatalf("got %+v", w)
			}
		})
	})
}

// A Work made by hand has no lease, and one whose outcome has left has none any more.
func TestMethodsWithoutALease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		works := make(chan *processor.Work, 1)
		h := func(_ context.Context, w *processor.Work) ([]byte, error) { works <- w; return nil, nil }
		perform(t, processor.Options{}, h, func(t *testing.T, s *stage) {
			s.broker.give(1, 1, "", nil)
			s.broker.expect(1, 1, wire.Answer{Kind: wire.Done})
			for _, w := range []*processor.Work{{}, take(t, works, time.Second, "work")} {
				_, err := w.Ask(t.Context(), nil)
				for _, err := range []error{w.Extend(), w.Progress(nil), err} {
					if !errors.Is(err, processor.ErrSettled) {
						t.Errorf("got %v, want ErrSettled", err)
					}
				}
			}
			s.broker.silence(time.Minute)
		})
	})
}

// Whoever knows the processor's subject can publish there; only the broker's work is work.
func TestStrangersAreIgnored(t *testing.T) {
	play(t, processor.Options{}, echo, func(t *testing.T, s *stage) {
		for _, lease := range []string{"", "orders.lease.1", "orders.lease.1.0", "other.lease.1.1", "orders.leased.1.1"} {
			if err := s.broker.nc.PublishMsg(&nats.Msg{Subject: subject, Reply: lease, Data: []byte("x")}); err != nil {
				t.Fatal(err)
			}
		}
		s.broker.give(2, 1, "work", nil)
		s.broker.expect(2, 1, wire.Answer{Kind: wire.Done, Body: []byte("work")})
	})
}
