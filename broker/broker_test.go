package broker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"stint/broker"
	"stint/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// each runs f on a durable queue and on one in memory, and on one whose broker gets everything through its client library, as
// it does over TLS.
func each(t *testing.T, f func(t *testing.T, h *house, nc *nats.Conn)) {
	for _, c := range []struct {
		name    string
		q       broker.QueueOptions
		library bool
	}{
		{"durable", durable("test.queue"), false},
		{"in memory", inMemory("test.queue"), false},
		{"through the library", inMemory("test.queue"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t, c.q)
			h.library = c.library
			h.start()
			defer h.stop()
			nc := h.connect()
			defer nc.Close()
			f(t, h, nc)
		})
	}
}

func TestSendWorkReply(t *testing.T) {
	each(t, func(t *testing.T, h *house, nc *nats.Conn) {
		register(t, nc, "p1", 1)
		work := listen(t, nc, "p1")
		accepts, replies := listen(t, nc, "accepts"), listen(t, nc, "replies")
		header := nats.Header{wire.HeaderAcceptedReply: {"accepts"}, "traceparent": {"00-1"}}
		publish(t, nc, &nats.Msg{Subject: address, Reply: "replies", Header: header, Data: []byte("hello")})

		w := next(t, work)
		if string(w.Data) != "hello" || w.Header.Get("traceparent") != "00-1" || len(w.Header) != 1 {
			t.Errorf("the work is %q with %v, not what was sent", w.Data, w.Header)
		}
		ok(t, w.Respond([]byte("done")))
		r := next(t, replies)
		if string(r.Data) != "done" || r.Reply != "" || r.Header.Get("traceparent") != "00-1" {
			t.Errorf("the reply is %q, reply subject %q, header %v", r.Data, r.Reply, r.Header)
		}
		st := status(t, next(t, accepts))
		item, attempt, found := wire.ParseLease(address, w.Reply)
		if !found || attempt != 1 || st.Status != "accepted" || st.ID != wire.FormatID(item) {
			t.Errorf("accept notice %+v for the work with lease %s", st, w.Reply)
		}
	})
}

// More is sent than may wait anywhere on the way, a part of it at a time: the ways are free again for what follows.
func TestManyItems(t *testing.T) {
	each(t, func(t *testing.T, h *house, nc *nats.Conn) {
		accepts := listen(t, nc, "accepts")
		const all, part = 12_000, 500
		ids := map[string]bool{}
		for range all / part {
			for range part {
				ok(t, nc.PublishMsg(&nats.Msg{Subject: address, Header: nats.Header{wire.HeaderAcceptedReply: {"accepts"}}}))
			}
			for range part {
				st := status(t, next(t, accepts))
				if st.Status != "accepted" || ids[st.ID] {
					t.Fatalf("%+v, after %d items", st, len(ids))
				}
				ids[st.ID] = true
			}
		}
	})
}

func TestAcceptNoticeNamedInTheBody(t *testing.T) {
	each(t, func(t *testing.T, h *house, nc *nats.Conn) {
		accepts := listen(t, nc, "accepts")
		for _, spelling := range []string{"accepted_reply", "accepted-reply"} {
			publish(t, nc, &nats.Msg{Subject: address, Data: fmt.Appendf(nil, `{"x":1,%q:"accepts"}`, spelling)})
			if st := status(t, next(t, accepts)); st.Status != "accepted" {
				t.Errorf("%s: %+v", spelling, st)
			}
		}
	})
}

func TestRefusals(t *testing.T) {
	each(t, func(t *testing.T, h *house, nc *nats.Conn) {
		accepts := listen(t, nc, "accepts")
		for name, c := range map[string]struct {
			msg  *nats.Msg
			code wire.Code
		}{
			"too large":                  {&nats.Msg{Data: make([]byte, 1_000_001)}, wire.CodeTooLarge},
			"unknown header":             {&nats.Msg{Header: nats.Header{"Stint-Prioritty": {"1"}}}, wire.CodeBadHeader},
			"later feature":              {&nats.Msg{Header: nats.Header{"Stint-Delay": {"1"}}}, wire.CodeUnsupported},
			"bad timeout":                {&nats.Msg{Header: nats.Header{"Stint-Timeout": {"soon"}}}, wire.CodeBadHeader},
			"reply to the queue itself":  {&nats.Msg{Reply: address}, wire.CodeForbiddenSubject},
			"reply to a lease":           {&nats.Msg{Reply: wire.LeaseSubject(address, 1, 1)}, wire.CodeForbiddenSubject},
			"reply to the system's own":  {&nats.Msg{Reply: "$JS.API.STREAM.DELETE.x"}, wire.CodeForbiddenSubject},
			"accepts at the queue":       {&nats.Msg{Reply: "accepts", Header: nats.Header{wire.HeaderAcceptedReply: {address}}}, wire.CodeForbiddenSubject},
			"accepts at a wildcard body": {&nats.Msg{Reply: "accepts", Data: []byte(`{"accepted_reply":"a.*"}`)}, wire.CodeInvalidSubject},
		} {
			c.msg.Subject = address
			if c.msg.Header == nil && c.msg.Reply != "accepts" {
				c.msg.Header = nats.Header{}
			}
			if c.msg.Header != nil && c.msg.Header.Get(wire.HeaderAcceptedReply) == "" {
				c.msg.Header.Set(wire.HeaderAcceptedReply, "accepts")
			}
			publish(t, nc, c.msg)
			st := status(t, next(t, accepts))
			if st.Status != "error" || st.Code != string(c.code) || st.Message == "" {
				t.Errorf("%s: answered %+v, want code %s", name, st, c.code)
			}
		}
		if s := h.broker.Stats()[address]; s.Ready != 0 || s.Accepted != 0 {
			t.Errorf("something was queued all the same: %+v", s)
		}
	})
}

func TestBadRegistrations(t *testing.T) {
	each(t, func(t *testing.T, h *house, nc *nats.Conn) {
		for _, body := range []string{
			"", "x", "[]", "{}", `{"processor":""}`, `{"processor":7}`, `{"processor":"a.*"}`,
			`{"processor":"$SYS.x"}`, `{"processor":"` + address + `"}`, `{"processor":"p","capacity":0}`,
		} {
			for _, op := range []string{wire.RegisterSubject(address), wire.UnregisterSubject(address)} {
				m, err := nc.Request(op, []byte(body), wait)
				ok(t, err)
				bad := op == wire.RegisterSubject(address) || !strings.Contains(body, "capacity") && body != `{"processor":"`+address+`"}`
				if st := status(t, m); bad && (st.Status != "error" || st.Message == "") {
					t.Errorf("%s %s: answered %+v", op, body, st)
				}
			}
		}
	})
}

func TestUnregisteredProcessorGetsNoMoreWork(t *testing.T) {
	each(t, func(t *testing.T, h *house, nc *nats.Conn) {
		register(t, nc, "p1", 1)
		work := listen(t, nc, "p1")
		publish(t, nc, &nats.Msg{Subject: address, Reply: "replies"})
		replies := listen(t, nc, "replies")
		w := next(t, work)
		m, err := nc.Request(wire.UnregisterSubject(address), wire.UnregisterBody("p1"), wait)
		ok(t, err)
		if st := status(t, m); st.Status != "ok" {
			t.Fatalf("unregister: %+v", st)
		}
		register(t, nc, "p2", 1)
		other := listen(t, nc, "p2")
		publish(t, nc, &nats.Msg{Subject: address})
		ok(t, next(t, other).Respond(nil))
		ok(t, w.Respond([]byte("still counts")))
		if r := next(t, replies); string(r.Data) != "still counts" {
			t.Errorf("the reply is %q", r.Data)
		}
		if n, _, _ := work.Pending(); n != 0 {
			t.Errorf("%d more came to the processor that left", n)
		}
	})
}

func TestDeadProcessorsWorkMovesOn(t *testing.T) {
	each(t, func(t *testing.T, h *house, nc *nats.Conn) {
		mortal := h.connect()
		defer mortal.Close()
		register(t, nc, "p1", 1)
		work := listen(t, mortal, "p1")
		publish(t, nc, &nats.Msg{Subject: address, Data: []byte("x")})
		next(t, work)
		register(t, nc, "p2", 1)
		other := listen(t, nc, "p2")
		mortal.Close()
		w := next(t, other)
		if _, attempt, _ := wire.ParseLease(address, w.Reply); attempt != 2 {
			t.Errorf("lease %s, want attempt 2", w.Reply)
		}
		ok(t, w.Respond(nil))
	})
}

func TestProcessorThatIsNotSubscribedLosesNothing(t *testing.T) {
	each(t, func(t *testing.T, h *house, nc *nats.Conn) {
		register(t, nc, "nobody", 10)
		for range 30 {
			publish(t, nc, &nats.Msg{Subject: address})
		}
		late := listen(t, nc, "nobody")
		for range 30 {
			ok(t, next(t, late).Respond(nil))
		}
		eventually(t, func() bool {
			s := h.broker.Stats()[address]
			return s.Completed == 30 && s.Ready == 0 && s.Counts.Dead == 0
		})
	})
}

func TestConversation(t *testing.T) {
	each(t, func(t *testing.T, h *house, nc *nats.Conn) {
		register(t, nc, "p1", 1)
		_, err := nc.Subscribe("p1", func(w *nats.Msg) {
			answer, err := nc.Request(w.Reply, []byte("how much?"), wait)
			if err != nil || string(answer.Data) != "two" {
				t.Errorf("the sender's turn: %v, %v", answer, err)
				return
			}
			if err := answer.Respond([]byte("sold " + string(answer.Data))); err != nil {
				t.Error(err)
			}
		})
		ok(t, err)
		turn, err := nc.Request(address, []byte("buy"), wait)
		ok(t, err)
		if string(turn.Data) != "how much?" || turn.Reply == "" {
			t.Fatalf("the first answer is %q, reply subject %q", turn.Data, turn.Reply)
		}
		last, err := nc.Request(turn.Reply, []byte("two"), wait)
		ok(t, err)
		if string(last.Data) != "sold two" || last.Reply != "" {
			t.Errorf("the last answer is %q, reply subject %q", last.Data, last.Reply)
		}
		eventually(t, func() bool { return h.broker.Stats()[address].Ready == 0 })
	})
}

func TestReplyWaitsForItsSender(t *testing.T) {
	each(t, func(t *testing.T, h *house, nc *nats.Conn) {
		register(t, nc, "p1", 1)
		work := listen(t, nc, "p1")
		publish(t, nc, &nats.Msg{Subject: address, Reply: "away"})
		ok(t, next(t, work).Respond([]byte("kept")))
		eventually(t, func() bool { return h.broker.Stats()[address].Completed == 1 })
		back := listen(t, nc, "away")
		if r := next(t, back); string(r.Data) != "kept" {
			t.Errorf("the reply is %q", r.Data)
		}
	})
}

func TestRestartKeepsItemsRegistrationsRepliesAndLeases(t *testing.T) {
	h := newHouse(t, durable(address)).start()
	defer h.stop()
	nc := h.connect()
	defer nc.Close()
	register(t, nc, "p1", 1)
	work := listen(t, nc, "p1")
	for i := range 3 {
		send(t, nc, fmt.Sprintf("replies.%d", i), fmt.Sprint(i))
	}
	held := next(t, work)
	h.opt.DrainTimeout = time.Millisecond
	h.restartBroker()
	replies := listen(t, nc, "replies.*")
	ok(t, held.Respond([]byte("over the restart")))
	if r := next(t, replies); r.Subject != "replies.0" || string(r.Data) != "over the restart" {
		t.Errorf("reply %q at %s", r.Data, r.Subject)
	}
	for i := 1; i < 3; i++ {
		w := next(t, work)
		ok(t, w.Respond(w.Data))
		if r := next(t, replies); r.Subject != fmt.Sprintf("replies.%d", i) || string(r.Data) != fmt.Sprint(i) {
			t.Errorf("reply %q at %s", r.Data, r.Subject)
		}
	}
}

func TestDrainRefusesAndFinishes(t *testing.T) {
	each(t, func(t *testing.T, h *house, nc *nats.Conn) {
		register(t, nc, "p1", 1)
		work := listen(t, nc, "p1")
		replies := listen(t, nc, "replies")
		publish(t, nc, &nats.Msg{Subject: address, Reply: "replies"})
		w := next(t, work)
		stopped := make(chan error, 1)
		go func() { stopped <- h.stopBroker() }()
		for {
			m, err := nc.Request(address, nil, 20*time.Millisecond)
			if err == nil && status(t, m).Code == string(wire.CodeShuttingDown) {
				break
			}
		}
		ok(t, w.Respond([]byte("in time")))
		if r := next(t, replies); string(r.Data) != "in time" {
			t.Errorf("the reply is %q", r.Data)
		}
		ok(t, <-stopped)
	})
}

// A queue in memory ends with the broker; nobody is left waiting for it.
func TestStopTellsSendersOfAQueueInMemory(t *testing.T) {
	q := inMemory(address)
	q.WindowItems = 10
	h := newHouse(t, q).start()
	defer h.stop()
	h.opt.DrainTimeout = time.Millisecond
	h.restartBroker()
	nc := h.connect()
	defer nc.Close()
	register(t, nc, "p1", 1)
	work := listen(t, nc, "p1")
	replies := listen(t, nc, "replies.*")
	for i := range 100 {
		send(t, nc, fmt.Sprintf("replies.%d", i), "x")
	}
	ok(t, next(t, work).Respond([]byte("-NAK {\"delay\":60000000000}")))
	next(t, work)
	ok(t, h.stopBroker())
	told := map[string]bool{}
	for range 100 {
		r := next(t, replies)
		if told[r.Subject] || !isCode(r, wire.CodeUnavailable) {
			t.Errorf("%s hears %q", r.Subject, r.Data)
		}
		told[r.Subject] = true
	}
}
