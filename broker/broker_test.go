package broker_test

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"stint/broker"
	"stint/wire"
)

func each(t *testing.T, f func(t *testing.T, q broker.QueueOptions)) {
	t.Run("durable", func(t *testing.T) { f(t, durable("test.queue")) })
	t.Run("in memory", func(t *testing.T) { f(t, inMemory("test.queue")) })
}

func TestSendWorkReply(t *testing.T) {
	each(t, func(t *testing.T, q broker.QueueOptions) {
		h := newHouse(t, q).start()
		defer h.stop()
		nc := h.connect()
		defer nc.Close()
		register(t, nc, q.Address, "p1", 1)
		_, err := nc.Subscribe("p1", func(m *nats.Msg) {
			m.Respond(append([]byte("re: "), m.Data...))
		})
		ok(t, err)
		accepts, err := nc.SubscribeSync("accepts")
		ok(t, err)
		msg := &nats.Msg{Subject: q.Address, Data: []byte("hello"), Header: nats.Header{wire.HeaderAcceptedReply: {"accepts"}}}
		reply, err := nc.RequestMsg(msg, 5*time.Second)
		ok(t, err)
		if string(reply.Data) != "re: hello" {
			t.Errorf("reply is %q", reply.Data)
		}
		acc, err := accepts.NextMsg(5 * time.Second)
		ok(t, err)
		if st, found := wire.ParseStatus(acc.Data); !found || st.Status != "accepted" {
			t.Errorf("accept notice is %s", acc.Data)
		}
	})
}

func register(t testing.TB, nc *nats.Conn, address, processor string, capacity int) {
	t.Helper()
	m, err := nc.Request(wire.RegisterSubject(address), wire.RegisterBody(wire.Registration{Processor: processor, Capacity: capacity}), 5*time.Second)
	ok(t, err)
	if st, _ := wire.ParseStatus(m.Data); st.Status != "ok" {
		t.Fatalf("register: %s", m.Data)
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
