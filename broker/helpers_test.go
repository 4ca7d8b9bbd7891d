package broker_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"stint/broker"
	"stint/broker/queue"
	"stint/store"
	"stint/store/bolt"
)

// house is a NATS server with a broker on it.
type house struct {
	t      testing.TB
	srv    *server.Server
	broker *broker.Broker
	conn   *nats.Conn // the broker's
	dir    string
	opt    broker.Options
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
	srv, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, NoLog: true})
	if err != nil {
		h.t.Fatal(err)
	}
	go srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		h.t.Fatal("NATS server not ready")
	}
	h.srv = srv
	h.conn = h.connect(broker.ConnOptions(h.opt.Logger)...)
	h.opt.Conn = h.conn
	acc := srv.GlobalAccount()
	h.opt.Interest = acc.SubscriptionInterest
	h.startBroker()
	return h
}

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

func (h *house) stop() {
	h.t.Helper()
	if err := h.broker.Stop(context.Background()); err != nil {
		h.t.Error(err)
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
