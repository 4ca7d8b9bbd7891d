package processor_test

import (
	"context"
	"errors"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"stint/processor"
	"stint/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const address = "orders"

// bus is an embedded server that connections of this process reach without a socket, and that can be restarted.
type bus struct {
	t    testing.TB
	mu   sync.Mutex //nolint:forbidigo // guards srv: nats.go dials on a goroutine of its own
	srv  *server.Server
	opts server.Options
}

func newBus(t testing.TB, opts server.Options) *bus {
	opts.DontListen, opts.NoSigs, opts.NoLog = true, true, true
	b := &bus{t: t, opts: opts}
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *bus) start() {
	opts := b.opts
	srv, err := server.NewServer(&opts)
	if err != nil {
		b.t.Fatal(err)
	}
	srv.Start()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.srv = srv
}

// stop may be called twice.
func (b *bus) stop() {
	b.mu.Lock()
	srv := b.srv
	b.srv = nil
	b.mu.Unlock()
	if srv != nil {
		srv.Shutdown()
		srv.WaitForShutdown()
	}
}

// InProcessConn is what nats.InProcessServer wants.
func (b *bus) InProcessConn() (net.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.srv == nil {
		return nil, errors.New("the server is down")
	}
	return b.srv.InProcessConn()
}

func (b *bus) connect() *nats.Conn { return b.connectEvery(100 * time.Millisecond) }

// connectEvery connects, and again at that interval when the server is down.
func (b *bus) connectEvery(wait time.Duration) *nats.Conn {
	nc, err := nats.Connect("", nats.InProcessServer(b), nats.MaxReconnects(-1), nats.ReconnectWait(wait),
		nats.ReconnectJitter(0, 0), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(nc.Close)
	return nc
}

// broker is one queue of a broker that does what the test tells it: it keeps what comes and says ok to registrations.
type broker struct {
	t            testing.TB
	nc           *nats.Conn
	registered   chan wire.Registration
	unregistered chan string
	answers      chan *nats.Msg
	beforeOK     func() // before the answer to unregister; set before it is asked

	mu     sync.Mutex //nolint:forbidigo // guards status between the test and the subscription
	status []byte     // the answer to register; nil: none
}

func newBroker(t testing.TB, nc *nats.Conn) *broker {
	b := &broker{
		t: t, nc: nc, status: wire.OK(), registered: make(chan wire.Registration, 100),
		unregistered: make(chan string, 10), answers: make(chan *nats.Msg, 1000),
	}
	b.on(wire.RegisterSubject(address), b.register)
	b.on(wire.UnregisterSubject(address), b.unregister)
	b.on(wire.LeasePattern(address), func(m *nats.Msg) { b.answers <- m })
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *broker) on(subject string, f nats.MsgHandler) {
	if _, err := b.nc.Subscribe(subject, f); err != nil {
		b.t.Fatal(err)
	}
}

func (b *broker) say(status []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status = status
}

func (b *broker) register(m *nats.Msg) {
	r, werr := wire.ParseRegister(m.Data)
	if werr != nil {
		b.t.Errorf("register: %v", werr)
	}
	b.mu.Lock()
	status := b.status
	b.mu.Unlock()
	b.registered <- r
	b.respond(m, status)
}

func (b *broker) unregister(m *nats.Msg) {
	subject, werr := wire.ParseUnregister(m.Data)
	if werr != nil {
		b.t.Errorf("unregister: %v", werr)
	}
	b.unregistered <- subject
	if b.beforeOK != nil {
		b.beforeOK()
	}
	b.respond(m, wire.OK())
}

// respond lets it pass that the scene is over.
func (b *broker) respond(m *nats.Msg, body []byte) {
	if body == nil {
		return
	}
	if err := m.Respond(body); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		b.t.Errorf("%s: %v", m.Subject, err)
	}
}

// give sends work to the processor.
func (b *broker) give(item uint64, attempt uint32, body string, h nats.Header) {
	b.t.Helper()
	err := b.nc.PublishMsg(&nats.Msg{
		Subject: subject, Reply: wire.LeaseSubject(address, item, attempt), Data: []byte(body), Header: h,
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// next is the next answer, which must come within d.
func (b *broker) next(d time.Duration) *nats.Msg {
	b.t.Helper()
	return take(b.t, b.answers, d, "answer")
}

// expect checks the next answer, which must come within a second.
func (b *broker) expect(item uint64, attempt uint32, want wire.Answer) {
	b.t.Helper()
	b.expectIn(time.Second, item, attempt, want)
}

func (b *broker) expectIn(d time.Duration, item uint64, attempt uint32, want wire.Answer) {
	b.t.Helper()
	m := b.next(d)
	if lease := wire.LeaseSubject(address, item, attempt); m.Subject != lease {
		b.t.Fatalf("an answer came on %s, want %s", m.Subject, lease)
	}
	got := wire.ParseAnswer(wire.Header(m.Header), m.Data, m.Reply)
	if got.Kind != want.Kind || got.Delay != want.Delay || got.HasDelay != want.HasDelay || got.Reason != want.Reason ||
		got.Code != want.Code || string(got.Body) != string(want.Body) {
		b.t.Fatalf("answer %+v (%q), want %+v", got, got.Body, want)
	}
}

// silence fails when an answer comes within d.
func (b *broker) silence(d time.Duration) {
	b.t.Helper()
	select {
	case m := <-b.answers:
		b.t.Fatalf("an answer came that should not: %s %q %v", m.Subject, m.Data, m.Header)
	case <-time.After(d):
	}
}

func take[T any](t testing.TB, ch <-chan T, d time.Duration, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(d):
	}
	t.Fatalf("no %s came within %v", what, d)
	panic("unreachable")
}

const subject = "processor.one"

// stage is a processor at work between a server and a scripted broker.
type stage struct {
	t      testing.TB
	bus    *bus
	nc     *nats.Conn // the processor's
	broker *broker
	stop   context.CancelFunc
	ended  chan error
}

// play runs a scene under a clock of its own, so that five minutes take no time and every instant is exact.
func play(t *testing.T, o processor.Options, h processor.Handler, scene func(t *testing.T, s *stage)) {
	t.Helper()
	bubble(t, func(t *testing.T) { perform(t, o, h, scene) })
}

// perform is play for a test that has made a bubble, since its handler uses channels of its own.
func perform(t *testing.T, o processor.Options, h processor.Handler, scene func(t *testing.T, s *stage)) {
	t.Helper()
	s := newStage(t, o, h)
	take(t, s.broker.registered, time.Second, "registration")
	scene(t, s)
	s.stop()
	synctest.Wait()
}

// bubble is synctest.Test between two emptyings of nats.go's pool of timers: a timer belongs to the bubble that made it,
// and one that is used in another ends the program.
func bubble(t *testing.T, scene func(t *testing.T)) {
	t.Helper()
	emptyPools()
	defer emptyPools()
	synctest.Test(t, scene)
}

// emptyPools uses that a sync.Pool is empty after two collections.
func emptyPools() {
	runtime.GC()
	runtime.GC()
}

// pause lets the time of a bubble pass.
func pause(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the clock is the bubble's, so it takes no time
}

func newStage(t testing.TB, o processor.Options, h processor.Handler) *stage {
	bus := newBus(t, server.Options{MaxPayload: 64 << 10})
	s := &stage{t: t, bus: bus, nc: bus.connect(), broker: newBroker(t, bus.connect()), ended: make(chan error, 1)}
	o.Address = address
	if o.Subject == "" {
		o.Subject = subject
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.stop = cancel
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.ended <- processor.Run(ctx, s.nc, o, h)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// result is what Run returned, which must come within d.
func (s *stage) result(d time.Duration) error {
	s.t.Helper()
	return take(s.t, s.ended, d, "end of Run")
}

func echo(_ context.Context, w *processor.Work) ([]byte, error) { return w.Body, nil }
