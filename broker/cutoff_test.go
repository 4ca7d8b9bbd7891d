package broker_test

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

// line dials the server of a house. Its connections can be cut, and what they bring can be late.
type line struct {
	h    *house
	late atomic.Int64 // nanoseconds

	mu    sync.Mutex // guards what follows between the library, which dials, and the test
	cut   bool
	conns []net.Conn
}

func (l *line) Dial(network, address string) (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return nil, errors.New("the line is cut")
	}
	c, err := inProcess{l.h.srv}.Dial(network, address)
	if err != nil {
		return nil, err
	}
	l.conns = append(l.conns, c)
	return &lateConn{c, l}, nil
}

func (l *line) sever() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for _, c := range l.conns {
		c.Close()
	}
	l.conns = nil
}

func (l *line) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

// lateConn brings everything later, once it is asked for.
type lateConn struct {
	net.Conn
	l *line
}

func (c *lateConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	time.Sleep(time.Duration(c.l.late.Load()))
	return n, err
}

// cuttable is a house with an outside server, to which there is a line.
func cuttable(t *testing.T) (*house, *line) {
	h := newHouse(t, durable(address))
	h.outside = true
	l := &line{h: h}
	h.dialer = l
	return h.start(), l
}

// replied has an item done whose reply is on record, as it is for some milliseconds after it was sent.
func replied(t *testing.T, h *house, nc *nats.Conn) *nats.Subscription {
	t.Helper()
	register(t, nc, "p1", 1)
	work, replies := listen(t, nc, "p1"), listen(t, nc, "replies")
	publish(t, nc, &nats.Msg{Reply: "replies"})
	ok(t, next(t, work).Respond([]byte("done")))
	if m := next(t, replies); len(m.Header[wire.HeaderRedelivered]) > 0 {
		t.Error("the first copy is marked as a second")
	}
	return replies
}

// TestStopWhileCutOff: a reply that was on its way when the connection was lost stays on record when the broker is stopped before
// there is another, and the next broker sends it again. (In real time: the client library keeps timers that synctest does not let
// two tests share.)
func TestStopWhileCutOff(t *testing.T) {
	h, l := cuttable(t)
	nc := h.connect()
	const late = 300 * time.Millisecond
	l.late.Store(int64(late))
	replies := replied(t, h, nc)
	<-time.After(late + late/3) // the server's word that it has the reply is there, that of the flush behind it is not
	l.sever()
	eventually(t, func() bool { return !h.conn.IsConnected() })
	if n := h.broker.Stats()[address].Replies; n != 1 {
		t.Fatalf("%d replies are on record, want the connection cut before it is known to be safe", n)
	}
	l.late.Store(0)
	if err := h.stopBroker(); err != nil {
		t.Log(err)
	}
	h.conn.Close()
	l.mend()
	h.conn = h.connectBroker()
	h.opt.Conn = h.conn
	h.startBroker()
	if m := next(t, replies); len(m.Header[wire.HeaderRedelivered]) == 0 {
		t.Error("the second copy is not marked")
	}
	nc.Close()
	h.stop()
}

// TestSlowServer: a server that answers late has lost nothing, and gets each reply once.
func TestSlowServer(t *testing.T) {
	h, l := cuttable(t)
	nc := h.connect()
	l.late.Store(int64(700 * time.Millisecond)) // more than a question waits for its answer
	replies := replied(t, h, nc)
	eventually(t, func() bool { return h.broker.Stats()[address].Replies == 0 })
	if n, _, _ := replies.Pending(); n != 0 {
		t.Errorf("%d more copies came", n)
	}
	l.late.Store(0)
	nc.Close()
	h.stop()
}
