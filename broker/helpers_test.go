package broker_test

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"stint/broker"
	"stint/broker/queue"
	"stint/internal/tap"
	"stint/store"
	"stint/store/bolt"
	"stint/wire"
)

// house is a NATS server with a broker on it.
type house struct {
	t      testing.TB
	srv    *server.Server
	broker *broker.Broker
	conn   *nats.Conn // the broker's
	dir    string

	outside bool              // the broker is not told what the server knows
	library bool              // all that the broker gets comes through its client library
	dialer  nats.CustomDialer // of the broker; nil: inProcess
	opt     broker.Options
}

func newHouse(t testing.TB, queues ...broker.QueueOptions) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir()}
	h.opt.Queues = queues
	h.opt.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	h.opt.Open = h.open
	return h
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(string(p))
	return len(p), nil
}

func (h *house) open(name string, health store.Health) (store.DB, error) {
	if name == "" {
		return store.NewMemory(health), nil
	}
	return bolt.Open(filepath.Join(h.dir, name+".db"), bolt.Options{Health: health, Logger: h.opt.Logger})
}

func (h *house) start() *house {
	h.t.Helper()
	h.opt.DrainTimeout = 2 * time.Second
	srv, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true})
	if err != nil {
		h.t.Fatal(err)
	}
	go srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		h.t.Fatal("NATS server not ready")
	}
	h.srv = srv
	h.conn = h.connectBroker()
	h.opt.Conn = h.conn
	if !h.outside {
		h.opt.Interest = srv.GlobalAccount().SubscriptionInterest
	}
	h.startBroker()
	return h
}

// connectBroker makes the broker's connection, by way of a tap as it is over TCP.
func (h *house) connectBroker() *nats.Conn {
	h.t.Helper()
	opts := broker.ConnOptions(h.opt.Logger)
	if h.library {
		return h.connect(opts...)
	}
	d := h.dialer
	if d == nil {
		d = inProcess{h.srv}
	}
	nc, err := nats.Connect("nats://127.0.0.1:1", append(opts, nats.SetCustomDialer(&tap.Tap{Dialer: d}))...)
	if err != nil {
		h.t.Fatal(err)
	}
	return nc
}

// inProcess dials a server in the process.
type inProcess struct{ srv *server.Server }

func (d inProcess) Dial(string, string) (net.Conn, error) { return d.srv.InProcessConn() }

func (h *house) startBroker() {
	h.t.Helper()
	b, err := broker.Start(context.Background(), h.opt)
	if err != nil {
		h.t.Fatal(err)
	}
	h.broker = b
}

func (h *house) connect(opts ...nats.Option) *nats.Conn {
	h.t.Helper()
	nc, err := nats.Connect("", append(opts, nats.InProcessServer(h.srv))...)
	if err != nil {
		h.t.Fatal(err)
	}
	return nc
}

func (h *house) stopBroker() error {
	b := h.broker
	h.broker = nil
	return b.Stop(context.Background())
}

func (h *house) restartBroker() {
	h.t.Helper()
	// The options of the running broker are its own copy: this one is stopped as the test wants it.
	if err := h.stopBroker(); err != nil {
		h.t.Fatal(err)
	}
	h.startBroker()
}

func (h *house) stop() {
	h.t.Helper()
	if h.broker != nil {
		if err := h.stopBroker(); err != nil {
			h.t.Error(err)
		}
	}
	h.conn.Close()
	h.srv.Shutdown()
	h.srv.WaitForShutdown()
}

func durable(address string) broker.QueueOptions {
	return broker.QueueOptions{Config: queue.Config{Address: address}, Persistor: "test"}
}

func inMemory(address string) broker.QueueOptions {
	return broker.QueueOptions{Config: queue.Config{Address: address}}
}

const (
	address = "test.queue"
	wait    = 5 * time.Second
)

func register(t testing.TB, nc *nats.Conn, processor string, capacity int) {
	t.Helper()
	m, err := nc.Request(wire.RegisterSubject(address), wire.RegisterBody(wire.Registration{Processor: processor, Capacity: capacity}), wait)
	ok(t, err)
	if st := status(t, m); st.Status != "ok" {
		t.Fatalf("register: %s", m.Data)
	}
}

func listen(t testing.TB, nc *nats.Conn, subject string) *nats.Subscription {
	t.Helper()
	sub, err := nc.SubscribeSync(subject)
	ok(t, err)
	ok(t, nc.Flush())
	return sub
}

func next(t testing.TB, sub *nats.Subscription) *nats.Msg {
	t.Helper()
	m, err := sub.NextMsg(wait)
	if err != nil {
		t.Fatalf("waiting at %s: %v", sub.Subject, err)
	}
	return m
}

func publish(t testing.TB, nc *nats.Conn, m *nats.Msg) {
	t.Helper()
	if m.Subject == "" {
		m.Subject = address
	}
	ok(t, nc.PublishMsg(m))
	ok(t, nc.Flush())
}

// send publishes an item and waits until it is accepted.
func send(t testing.TB, nc *nats.Conn, reply, body string) {
	t.Helper()
	inbox := nc.NewInbox()
	sub := listen(t, nc, inbox)
	defer sub.Unsubscribe()
	publish(t, nc, &nats.Msg{Reply: reply, Header: nats.Header{wire.HeaderAcceptedReply: {inbox}}, Data: []byte(body)})
	if st := status(t, next(t, sub)); st.Status != "accepted" {
		t.Fatalf("send: %+v", st)
	}
}

func status(t testing.TB, m *nats.Msg) wire.Status {
	t.Helper()
	st, found := wire.ParseStatus(m.Data)
	if !found {
		t.Fatalf("%q is no status", m.Data)
	}
	return st
}

// eventually polls what cannot be waited for.
func eventually(t testing.TB, so func() bool) {
	t.Helper()
	deadline := time.Now().Add(wait)
	for tick := time.Tick(2 * time.Millisecond); !so(); <-tick {
		if time.Now().After(deadline) {
			t.Fatal("did not become true")
		}
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
