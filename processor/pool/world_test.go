package pool

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"stint/broker"
	"stint/broker/queue"
	"stint/store"
	"stint/wire"
)

const (
	testQueue = "orders"
	patience  = 20 * time.Second // bounds every wait of a test
)

// world is a broker with one queue in memory.
type world struct {
	t   testing.TB
	srv *server.Server
	nc  *nats.Conn // of senders
	log *logBook
}

// logBook keeps what was logged.
type logBook struct {
	mu   sync.Mutex //nolint:forbidigo // many goroutines log
	text strings.Builder
	t    testing.TB
}

func (l *logBook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logBook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func newWorld(t testing.TB, q queue.Config) *world {
	t.Helper()
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	go srv.Start()
	if !srv.ReadyForConnections(patience) {
		t.Fatal("the NATS server is not ready")
	}
	w := &world{t: t, srv: srv, log: &logBook{t: t}}
	log := slog.New(slog.NewTextHandler(w.log, nil))
	conn := w.connect(broker.ConnOptions(log)...)
	q.Address = testQueue
	b, err := broker.Start(t.Context(), broker.Options{
		Conn: conn, Interest: srv.GlobalAccount().SubscriptionInterest, DrainTimeout: time.Second, Logger: log,
		Open:   func(_ string, health store.Health) (store.DB, error) { return store.NewMemory(health), nil },
		Queues: []broker.QueueOptions{{Config: q}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.nc = w.connect()
	t.Cleanup(func() {
		w.nc.Close()
		if err := b.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		conn.Close()
		srv.Shutdown()
		srv.WaitForShutdown()
		if t.Failed() {
			t.Log(w.log.String())
		}
	})
	return w
}

func (w *world) connect(options ...nats.Option) *nats.Conn {
	w.t.Helper()
	nc, err := nats.Connect(w.srv.ClientURL(), options...)
	if err != nil {
		w.t.Fatal(err)
	}
	return nc
}

// running is a pool at work.
type running struct {
	*Pool
	w     *world
	nc    *nats.Conn
	stop  context.CancelFunc
	ended chan error
}

// pool runs a pool whose children are this test binary in a role.
func (w *world) pool(role string, o Options) *running {
	w.t.Helper()
	if o.Command == nil {
		o.Command = []string{os.Args[0]}
	}
	o.Address = testQueue
	o.Env = append(o.Env, "NAP="+nap, roleEnv+"="+role, "GORACE=atexit_sleep_ms=0") // a child of a race test would sleep a second at its end
	o.Logger = slog.New(slog.NewTextHandler(w.log, nil))
	registered := make(chan struct{}, 100)
	o.OnRegister = func() { registered <- struct{}{} }
	p, err := New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{Pool: p, w: w, nc: w.connect(nats.MaxReconnects(-1)), stop: stop, ended: make(chan error, 1)}
	go func() { r.ended <- p.Run(ctx, r.nc) }()
	select {
	case <-registered:
	case err := <-r.ended:
		w.t.Fatal(err)
	case <-time.After(patience):
		w.t.Fatal("the pool does not register")
	}
	w.t.Cleanup(func() {
		r.show()
		r.end()
	})
	return r
}

// end stops the pool and checks that nothing of it is left. It may be called twice.
func (r *running) end() {
	r.w.t.Helper()
	if r.stop == nil {
		return
	}
	r.stop()
	r.stop = nil
	select {
	case err := <-r.ended:
		if err != nil {
			r.w.t.Error(err)
		}
	case <-time.After(patience):
		stacks := make([]byte, 1<<20)
		ps, _ := exec.Command("sh", "-c", "ps -eo pid,ppid,pgid,stat,wchan,args | grep pool").Output()
		r.w.t.Fatalf("the pool does not end\n%s\n%s", ps, stacks[:runtime.Stack(stacks, true)])
	}
	r.nc.Close()
	if left := append(children(), naps(r.w.t)...); len(left) > 0 {
		r.w.t.Errorf("processes are left: %v", left)
	}
}

// nap is how long grandchildren sleep: a time that tells those of this test process from all others.
var nap = fmt.Sprintf("1000.%d", os.Getpid())

// naps are the grandchildren that sleep, wherever they are.
func naps(t testing.TB) (pids []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		if text, err := os.ReadFile(file); err == nil && string(text) == "/bin/sleep\x00"+nap+"\x00" {
			pids = append(pids, number(t, filepath.Base(filepath.Dir(file))))
		}
	}
	return pids
}

// children are the processes below this one.
func children() []int { return below(os.Getpid()) }

// send sends an item and gives a channel with its final reply.
func (w *world) send(body string, headers ...string) <-chan *nats.Msg {
	w.t.Helper()
	replies := make(chan *nats.Msg, 10)
	inbox := w.nc.NewInbox()
	if _, err := w.nc.Subscribe(inbox, func(m *nats.Msg) { replies <- m }); err != nil {
		w.t.Fatal(err)
	}
	m := &nats.Msg{Subject: testQueue, Reply: inbox, Data: []byte(body), Header: nats.Header{}}
	for i := 0; i < len(headers); i += 2 {
		m.Header.Set(headers[i], headers[i+1])
	}
	if err := w.nc.PublishMsg(m); err != nil {
		w.t.Fatal(err)
	}
	return replies
}

func (w *world) wait(replies <-chan *nats.Msg) *nats.Msg {
	w.t.Helper()
	select {
	case m := <-replies:
		return m
	case <-time.After(patience):
		w.t.Fatal("no reply")
		return nil
	}
}

// ask sends an item and waits for its reply.
func (w *world) ask(body string, headers ...string) string {
	w.t.Helper()
	return text(w.wait(w.send(body, headers...)))
}

// text is a reply as text; an error begins with its code.
func text(m *nats.Msg) string {
	if code := m.Header.Get(wire.HeaderErrorCode); code != "" {
		var status struct{ Message, Code string }
		if err := json.Unmarshal(m.Data, &status); err != nil {
			return err.Error()
		}
		return status.Code + ": " + status.Message
	}
	return string(m.Data)
}

func (w *world) want(body, reply string) {
	w.t.Helper()
	if got := w.ask(body); got != reply {
		w.t.Errorf("%s: got %.200q, want %.200q", body, got, reply)
	}
}

// until waits for something that nothing reports.
func until(t testing.TB, what string, so func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if so() {
			return
		}
	}
	t.Fatal("still not so: " + what)
}

// gone says whether a process is there no more, not even as a zombie.
func gone(pid int) bool { return syscall.Kill(pid, 0) != nil }

func (r *running) stats() Stats {
	r.w.t.Helper()
	s, err := r.Stats()
	if err != nil {
		r.w.t.Fatal(err)
	}
	return s
}

func number(t testing.TB, s string) int {
	t.Helper()
	n := 0
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatalf("%q is no number", s)
	}
	return n
}

// show gives a failed test the state of the pool.
func (r *running) show() {
	if r.w.t.Failed() && r.stop != nil {
		s, err := r.Stats()
		stacks := make([]byte, 1<<20)
		ps, _ := exec.Command("sh", "-c", "ps -eo pid,ppid,pgid,stat,wchan,args | grep pool").Output()
		r.w.t.Logf("%+v, %v\n%s\n%s", s, err, ps, stacks[:runtime.Stack(stacks, true)])
	}
}
