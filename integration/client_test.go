package integration

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"stint/integration/harness"
	"stint/wire"
)

// soon is more than anything takes that is not waiting for a timeout.
const soon = 10 * time.Second

// expect takes the next event, which must be of this kind.
func expect(t *testing.T, events <-chan harness.Event, kind string) harness.Event {
	t.Helper()
	e := harness.Next(t, events, soon, "an event "+kind)
	if e.Kind != kind {
		t.Fatalf("event %+v, want %s", e, kind)
	}
	return e
}

// await takes events until one is of this kind.
func await(t *testing.T, events <-chan harness.Event, kind string) harness.Event {
	t.Helper()
	for {
		if e := harness.Next(t, events, soon, "an event "+kind); e.Kind == kind {
			return e
		}
	}
}

// inbox is a fresh subject and what comes in there.
type inbox struct {
	subject string
	c       chan *nats.Msg
}

func newInbox(t *testing.T, nc *nats.Conn) inbox {
	t.Helper()
	in := inbox{nats.NewInbox(), make(chan *nats.Msg, 4096)}
	if _, err := nc.ChanSubscribe(in.subject, in.c); err != nil {
		t.Fatal(err)
	}
	return in
}

func (in inbox) next(t *testing.T) *nats.Msg {
	t.Helper()
	return harness.Next(t, in.c, soon, "a message")
}

// status takes the next message, which must be one of the broker's own.
func (in inbox) status(t *testing.T) wire.Status {
	t.Helper()
	m := in.next(t)
	s, ok := wire.ParseStatus(m.Data)
	if !ok {
		t.Fatalf("a message that is no status: %q, headers %v", m.Data, m.Header)
	}
	return s
}

// sent is an item under way: where its accept notice and its final come.
type sent struct{ accept, reply inbox }

// ask sends an order with subjects for both answers, and waits until the server has it.
func ask(t *testing.T, nc *nats.Conn, queue string, o harness.Order, headers ...string) sent {
	t.Helper()
	body, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return send(t, nc, queue, body, headers...)
}

// send sends any body. headers are names and values in turn.
func send(t *testing.T, nc *nats.Conn, queue string, body []byte, headers ...string) sent {
	t.Helper()
	s := sent{newInbox(t, nc), newInbox(t, nc)}
	m := nats.NewMsg(queue)
	m.Reply, m.Data = s.reply.subject, body
	m.Header.Set(wire.HeaderAcceptedReply, s.accept.subject)
	for i := 0; i < len(headers); i += 2 {
		m.Header[headers[i]] = append(m.Header[headers[i]], headers[i+1])
	}
	if err := nc.PublishMsg(m); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return s
}

// accepted waits for the accept notice and returns the item's id.
func (s sent) accepted(t *testing.T) string {
	t.Helper()
	st := s.accept.status(t)
	if st.Status != "accepted" || st.ID == "" {
		t.Fatalf("accept notice %+v, want accepted with an id", st)
	}
	return st.ID
}

// answer waits for the final, which must be a processor process's reply.
func (s sent) answer(t *testing.T) harness.Answer {
	t.Helper()
	m := s.reply.next(t)
	var a harness.Answer
	if err := json.Unmarshal(m.Data, &a); err != nil || a.By == "" {
		t.Fatalf("the final is %q with headers %v, want a processor's answer", m.Data, m.Header)
	}
	return a
}

// refused waits for the error on both subjects and checks its code.
func (s sent) refused(t *testing.T, code wire.Code) string {
	t.Helper()
	message := s.reply.refused(t, code)
	if got := s.accept.refused(t, code); got != message {
		t.Errorf("the accept subject hears %q, the reply subject %q", got, message)
	}
	return message
}

func (in inbox) refused(t *testing.T, code wire.Code) string {
	t.Helper()
	st := in.status(t)
	if st.Status != "error" || st.Code != string(code) || st.Message == "" {
		t.Errorf("answered %+v, want an error with code %s", st, code)
	}
	return st.Message
}

// processor subscribes a handler in this process and registers it. Everything about it is plain NATS.
func processor(t *testing.T, nc *nats.Conn, queue, subject, registration string, handle nats.MsgHandler) *nats.Subscription {
	t.Helper()
	sub, err := nc.Subscribe(subject, handle)
	if err != nil {
		t.Fatal(err)
	}
	m, err := nc.Request(wire.RegisterSubject(queue), []byte(registration), soon)
	if err != nil {
		t.Fatal(err)
	}
	if st, ok := wire.ParseStatus(m.Data); !ok || st.Status != "ok" {
		t.Fatalf("registration answered %q", m.Data)
	}
	return sub
}
