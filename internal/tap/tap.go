// Package tap takes the messages for chosen subjects off a NATS connection before the client library sees them.
//
// nats.go makes of every message a struct, a copy of its bytes, two strings and, where there are headers, a map, and hands
// it over by itself. A broker that is sent hundreds of thousands a second has a use for none of that. So a Tap dials the
// connection and reads it: messages that are wanted leave by a [Lane], all of one read together, and refer to the memory that
// they were read into. Everything else is passed on byte for byte, so that handshake, authentication, subscriptions, pings,
// errors and reconnecting stay the library's.
//
// # What it never does
//
// It writes nothing, it answers nothing, and it does not look into headers. It takes no message in half and changes no order
// within a lane. A connection that is not in plain NATS from the client's first byte on (TLS, a websocket) it leaves alone, as
// it does with what comes after bytes that it does not understand: the library is there to complain.
package tap

import (
	"bytes"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// readSize is how much is read at once, in bytes. What is longer gets memory of its own.
	readSize = 64 << 10
	// maxLine bounds a line of the protocol, in bytes; the server's INFO may be long.
	maxLine = 1 << 20
	// maxMessage bounds a message, in bytes: NATS allows 64 MiB. A larger number is no length.
	maxMessage = 128 << 20
	// laneRoom is how many reads may wait in a lane. Then reading waits, and the server keeps what comes.
	laneRoom    = 4
	dialTimeout = 2 * time.Second
)

// Find says where messages for a subject go: the lane, and a number that comes with each; nil: to the client library. The
// subject is good until it returns.
type Find func(subject []byte) (lane *Lane, tag int)

// Tap is a dialer for nats.SetCustomDialer. Until it is told what to take, it takes nothing.
type Tap struct {
	// Dialer makes the connections; nil: as the client library does, with 2 seconds for each.
	Dialer nats.CustomDialer

	find atomic.Pointer[Find]
}

// Take sets what is taken from now on, on this connection and those after it; nil: nothing.
func (t *Tap) Take(find Find) {
	if find == nil {
		t.find.Store(nil)
		return
	}
	t.find.Store(&find)
}

// Dial implements nats.CustomDialer.
func (t *Tap) Dial(network, address string) (net.Conn, error) {
	var d nats.CustomDialer = &net.Dialer{Timeout: dialTimeout}
	if t.Dialer != nil {
		d = t.Dialer
	}
	c, err := d.Dial(network, address)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, tap: t}, nil
}

// Message is a message as it stands in the memory of its batch.
type Message struct {
	Tag                          int
	Subject, Reply, Header, Data []byte // Header with its first line and the empty one, or nothing
}

// Batch is the messages of a lane that came in one read.
type Batch struct {
	Messages []Message
	// Keep says that the memory is not used again: what is in Messages may be kept as it is.
	Keep bool
	mem  *memory
}

// Done gives the batch back. Nothing of it may be used any more, unless Keep is set and then not Messages itself.
func (b *Batch) Done() {
	b.mem.done()
	clear(b.Messages)
	b.Messages, b.mem = b.Messages[:0], nil
	batches.Put(b)
}

// Lane is where messages leave, in the order in which they came.
type Lane struct {
	c    chan *Batch
	quit chan struct{}
	open *Batch // of the read that is being looked at; the reader's
}

// NewLane makes a lane. It must be received from, or closed: the connection is not read while the lane is full.
func NewLane() *Lane {
	return &Lane{c: make(chan *Batch, laneRoom), quit: make(chan struct{})}
}

// C yields the batches.
func (l *Lane) C() <-chan *Batch { return l.c }

// Close ends the lane. What is in it and what comes for it is dropped.
func (l *Lane) Close() { close(l.quit) }

// memory is what was read into, for as long as somebody looks at it.
type memory struct {
	b    []byte
	uses atomic.Int32
}

var (
	memories = sync.Pool{New: func() any { return &memory{b: make([]byte, readSize)} }}
	batches  = sync.Pool{New: func() any { return new(Batch) }}
)

func (m *memory) done() {
	if m.uses.Add(-1) == 0 && len(m.b) == readSize {
		memories.Put(m)
	}
}

func newMemory(size int) *memory {
	m := &memory{}
	if size <= readSize {
		m = memories.Get().(*memory)
	} else {
		m.b = make([]byte, size)
	}
	m.uses.Store(1) // the reader's
	return m
}

// conn is a connection with a tap. Reads belong to one goroutine, as the client library makes them.
type conn struct {
	net.Conn
	tap   *Tap
	begun bool // the client has written; see Write
	plain bool // what is read is looked at

	mem        *memory
	start, end int    // of what was read and not looked at
	need       int    // bytes from start on that the message there has; 0: not known
	pass       []byte // for the client library
	lanes      []*Lane
	err        error
}

// Write looks at the first byte that the client writes: in plain NATS it is that of CONNECT. The library reads nothing but the
// server's INFO before that, in the same goroutine.
func (c *conn) Write(b []byte) (int, error) {
	if !c.begun && len(b) > 0 {
		c.begun = true
		c.plain = b[0] == 'C'
	}
	return c.Conn.Write(b)
}

func (c *conn) Read(p []byte) (int, error) {
	for {
		switch {
		case len(c.pass) > 0:
			n := copy(p, c.pass)
			c.pass = c.pass[n:]
			return n, nil
		case c.err != nil:
			return 0, c.err
		case !c.plain:
			return c.Conn.Read(p)
		}
		c.fill()
	}
}

// fill reads once and looks at what came.
func (c *conn) fill() {
	if c.mem == nil {
		c.mem = newMemory(readSize)
	}
	n, err := c.Conn.Read(c.mem.b[c.end:])
	c.end += n
	c.pass = c.pass[:0]
	for c.plain && c.next() {
	}
	c.send()
	if err != nil || !c.plain {
		c.pass = append(c.pass, c.mem.b[c.start:c.end]...) // a message in half means nothing after an error, and is the library's
		c.start, c.end, c.err = 0, 0, err
		return
	}
	c.renew()
}

// next takes or passes on what begins at start; false: it is not all there.
func (c *conn) next() bool {
	b := c.mem.b[c.start:c.end]
	if len(b) < c.need {
		return false
	}
	at := bytes.IndexByte(b, '\n')
	if at < 0 {
		c.plain = len(b) < maxLine
		return false
	}
	line := bytes.TrimSuffix(b[:at], []byte("\r"))
	var m Message
	head, size := 0, 0
	var good bool
	switch {
	case bytes.HasPrefix(line, []byte("MSG ")):
		size, good = m.parse(line[4:], nil)
	case bytes.HasPrefix(line, []byte("HMSG ")):
		size, good = m.parse(line[5:], &head)
	default:
		c.passOn(at + 1)
		return true
	}
	if !good {
		c.plain = false
		return false
	}
	c.need = at + 1 + size + len("\r\n")
	if len(b) < c.need {
		return false
	}
	var lane *Lane
	if find := c.tap.find.Load(); find != nil {
		lane, m.Tag = (*find)(m.Subject)
	}
	if lane == nil {
		c.passOn(c.need)
		return true
	}
	body := b[at+1 : at+1+size : at+1+size]
	m.Header, m.Data = body[:head:head], body[head:]
	c.put(lane, m)
	c.start += c.need
	c.need = 0
	return true
}

func (c *conn) passOn(n int) {
	c.pass = append(c.pass, c.mem.b[c.start:c.start+n]...)
	c.start += n
	c.need = 0
}

// parse reads the arguments of a message: subject, subscription, perhaps a reply subject, and the length; with headers the
// length of these before it.
func (m *Message) parse(args []byte, head *int) (size int, ok bool) {
	var words [5][]byte
	n := 0
	for len(args) > 0 {
		var word []byte
		word, args, _ = bytes.Cut(args, []byte(" "))
		if len(word) == 0 {
			continue
		}
		if n == len(words) {
			return 0, false
		}
		words[n] = word
		n++
	}
	least := 3
	if head != nil {
		least = 4
	}
	if n != least && n != least+1 {
		return 0, false
	}
	m.Subject = words[0]
	if n > least {
		m.Reply = words[2]
	}
	if size, ok = number(words[n-1]); !ok || head == nil {
		return size, ok
	}
	*head, ok = number(words[n-2])
	return size, ok && *head <= size
}

func number(b []byte) (int, bool) {
	n := 0
	for _, d := range b {
		if d < '0' || d > '9' || n > maxMessage {
			return 0, false
		}
		n = n*10 + int(d-'0')
	}
	return n, len(b) > 0 && n <= maxMessage
}

func (c *conn) put(l *Lane, m Message) {
	if l.open == nil {
		l.open = batches.Get().(*Batch)
		l.open.mem, l.open.Keep = c.mem, len(c.mem.b) != readSize
		c.mem.uses.Add(1)
		c.lanes = append(c.lanes, l)
	}
	l.open.Messages = append(l.open.Messages, m)
}

// send lets go of what was taken.
func (c *conn) send() {
	for i, l := range c.lanes {
		b := l.open
		l.open, c.lanes[i] = nil, nil
		select {
		case l.c <- b:
		case <-l.quit:
			b.Done()
		}
	}
	c.lanes = c.lanes[:0]
}

// renew makes room for the next read. Memory that messages were taken from, or passed on, is not read into again by this reader; what
// is longer than the usual gets memory of just its length, so that nothing else lies in it.
func (c *conn) renew() {
	left := c.mem.b[c.start:c.end]
	size := readSize
	switch {
	case c.need > readSize:
		size = c.need
	case len(left) == readSize: // a line
		size = 2 * len(left)
	case len(left) > readSize:
		size = len(left) + readSize
	}
	if c.start == 0 && len(c.mem.b) >= size && c.end < len(c.mem.b) {
		return
	}
	m := newMemory(size)
	c.end = copy(m.b, left)
	c.start = 0
	c.mem.done()
	c.mem = m
}
