package integration

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"stint/integration/harness"
	"stint/wire"
)

// The cases of the vert.x work-queue module, with its configuration as it stands: one queue, at the top of the file.
var (
	inMemory   = harness.Queue{"address": "test.orderQueue"}
	persistent = harness.Queue{
		"address": "test.orderQueue", "process_timeout": 300000, "persistor_address": "test.persistor", "collection": "work",
	}
)

const orders = "test.orderQueue"

// blob is an item as the module's own tests send it.
type blob struct {
	Blah     string `json:"blah"`
	Accepted string `json:"accepted-reply,omitempty"`
}

// vertxCases runs a case with both forms of the configuration.
func vertxCases(t *testing.T, run func(t *testing.T, b *harness.Broker)) {
	t.Helper()
	for name, config := range map[string]harness.Queue{"in memory": inMemory, "persistent": persistent} {
		t.Run(name, func(t *testing.T) {
			b := harness.NewBroker(t, harness.Binary(t), config)
			b.Start()
			run(t, b)
		})
	}
}

// slowProcessors register some processors that answer after a while, each with its name.
func slowProcessors(t *testing.T, b *harness.Broker, n int, work time.Duration) {
	t.Helper()
	for i := range n {
		nc, name := b.Connect(), fmt.Sprintf("processor.%d", i)
		processor(t, nc, orders, name, `{"processor":"`+name+`"}`, func(m *nats.Msg) {
			time.AfterFunc(work, func() {
				if err := m.Respond([]byte(name)); err != nil {
					t.Errorf("%s answering: %v", name, err)
				}
			})
		})
	}
}

// sendBlobs sends items whose replies go to one inbox and whose accept notices go to another.
func sendBlobs(t *testing.T, nc *nats.Conn, n int) sent {
	t.Helper()
	s := sent{newInbox(t, nc), newInbox(t, nc)}
	for i := range n {
		body, err := json.Marshal(blob{fmt.Sprintf("somevalue%d", i), s.accept.subject})
		if err == nil {
			err = nc.PublishRequest(orders, s.reply.subject, body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestVertxEvenShares(t *testing.T) {
	const items, processors, work = 30, 10, 100 * time.Millisecond
	vertxCases(t, func(t *testing.T, b *harness.Broker) {
		slowProcessors(t, b, processors, work)
		began := time.Now()
		s := sendBlobs(t, b.Connect(), items)
		shares := map[string]int{}
		for range items {
			shares[string(s.reply.next(t).Data)]++
		}
		took := time.Since(began)
		for range items {
			if st := s.accept.status(t); st.Status != "accepted" {
				t.Errorf("accept notice %+v", st)
			}
		}
		for name, n := range shares {
			if n != items/processors {
				t.Errorf("%s processed %d items, want %d", name, n, items/processors)
			}
		}
		if least := work * items / processors; took < least || took > least+soon {
			t.Errorf("it took %v, want a little more than %v", took, least)
		}
		harness.None(t, s.accept.c, 50*time.Millisecond, "one accept notice too many")
		harness.None(t, s.reply.c, 50*time.Millisecond, "one reply too many")
	})
}

func TestVertxHundredItems(t *testing.T) {
	const items = 100
	vertxCases(t, func(t *testing.T, b *harness.Broker) {
		nc := b.Connect()
		seen := make(chan *nats.Msg, items+1)
		processor(t, nc, orders, "p", `{"processor":"p"}`, func(m *nats.Msg) {
			seen <- m
			if err := m.Respond(m.Data); err != nil {
				t.Error(err)
			}
		})
		s := sendBlobs(t, b.Connect(), items)
		owed := map[string]bool{} // replies may overtake each other: one waits for a commit, the next needs none
		for i := range items {
			var got blob
			body := harness.Next(t, seen, soon, "work").Data
			if err := json.Unmarshal(body, &got); err != nil || got.Blah != fmt.Sprintf("somevalue%d", i) {
				t.Fatalf("item %d came as %q, want them in the order of sending", i, body)
			}
			owed[string(body)] = true
			s.accept.status(t)
		}
		for range items {
			reply := string(s.reply.next(t).Data)
			if !owed[reply] {
				t.Errorf("reply %q is not owed", reply)
			}
			delete(owed, reply)
		}
		harness.None(t, seen, 50*time.Millisecond, "one delivery too many")
	})
}

// TestVertxConversation: the processor replies, the sender replies to that, the processor replies to that in turn.
func TestVertxConversation(t *testing.T) {
	vertxCases(t, func(t *testing.T, b *harness.Broker) {
		p := b.Connect()
		processor(t, p, orders, "p", `{"processor":"p"}`, func(m *nats.Msg) {
			second, err := p.RequestMsg(&nats.Msg{Subject: m.Reply, Data: append(m.Data, " reply"...)}, soon)
			if err != nil {
				t.Errorf("the reply to the reply: %v", err)
				return
			}
			if err := second.Respond(append(second.Data, " done"...)); err != nil {
				t.Error(err)
			}
		})
		nc := b.Connect()
		s := send(t, nc, orders, []byte("work"))
		s.accepted(t)
		turn := s.reply.next(t)
		if string(turn.Data) != "work reply" || turn.Reply == "" {
			t.Fatalf("first reply %q with reply subject %q", turn.Data, turn.Reply)
		}
		last, err := nc.RequestMsg(&nats.Msg{Subject: turn.Reply, Data: append(turn.Data, " answer"...)}, soon)
		if err != nil {
			t.Fatal(err)
		}
		if string(last.Data) != "work reply answer done" || last.Reply != "" {
			t.Errorf("final reply %q with reply subject %q", last.Data, last.Reply)
		}
	})
}

// TestVertxLoad: work that was accepted before a restart is there after it, in order, and its replies reach the sender,
// who has done nothing but reconnect.
func TestVertxLoad(t *testing.T) {
	const items = 20
	b := harness.NewBroker(t, harness.Binary(t), persistent)
	b.Start()
	s := sendBlobs(t, b.Connect(), items)
	for range items {
		if st := s.accept.status(t); st.Status != "accepted" {
			t.Fatalf("accept notice %+v", st)
		}
	}
	b.Stop()
	b.Start()
	seen := make(chan string, items)
	processor(t, b.Connect(), orders, "p", `{"processor":"p"}`, func(m *nats.Msg) {
		var got blob
		err := json.Unmarshal(m.Data, &got)
		seen <- got.Blah
		if err == nil {
			err = m.Respond([]byte("done"))
		}
		if err != nil {
			t.Error(err)
		}
	})
	for i := range items {
		if got, want := harness.Next(t, seen, soon, "work"), fmt.Sprintf("somevalue%d", i); got != want {
			t.Errorf("item %d is %q, want %q", i, got, want)
		}
	}
	for range items {
		if m := s.reply.next(t); string(m.Data) != "done" || m.Header.Get(wire.HeaderRedelivered) != "" {
			t.Errorf("reply %q with headers %v", m.Data, m.Header)
		}
	}
}

// TestVertxErrors: what the module answers with an error.
func TestVertxErrors(t *testing.T) {
	vertxCases(t, func(t *testing.T, b *harness.Broker) {
		nc := b.Connect()
		for _, body := range []string{`{}`, `{"processor":""}`, `{"processor":7}`, `{"processor":null}`, `[]`, `nothing`, ``} {
			for _, subject := range []string{wire.RegisterSubject(orders), wire.UnregisterSubject(orders)} {
				m, err := nc.Request(subject, []byte(body), soon)
				if err != nil {
					t.Fatal(err)
				}
				if st, ok := wire.ParseStatus(m.Data); !ok || st.Status != "error" || st.Message == "" {
					t.Errorf("%q to %s: answered %q, want an error", body, subject, m.Data)
				}
			}
		}
	})
}
