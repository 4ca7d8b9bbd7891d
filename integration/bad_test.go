package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"stint/integration/harness"
	"stint/wire"
)

// bench is a broker with an item that waits in one queue and an echo in another, to see after each attack that the first
// is still there and the second still works.
type bench struct {
	t      *testing.T
	b      *harness.Broker
	nc     *nats.Conn
	victim sent
}

const (
	itemLimit = 100_000 // of the queue q
	wideLimit = 4 << 20 // of the queue wide
	// growth is how much the broker's memory may differ between the first and the last storms, in bytes: in 150 of them it
	// went up and down between 46 and 149 MB. A storm that left 100 bytes of each message, or 12 KB of each connection,
	// would be over it.
	growth = 128 << 20
)

func newBench(t *testing.T) *bench {
	t.Helper()
	b := harness.NewBroker(t, harness.Binary(t), harness.Config(
		harness.Durable("q", harness.Queue{"max_item_bytes": itemLimit}),
		harness.Durable("wide", harness.Queue{"max_item_bytes": wideLimit}),
		harness.Durable("waiting"),
	))
	b.Start()
	h := &bench{t: t, b: b, nc: b.Connect()}
	h.victim = send(t, h.nc, "waiting", []byte("I wait"))
	h.victim.accepted(t)
	for _, q := range []string{"q", "wide"} {
		processor(t, h.nc, q, "echo."+q, `{"processor":"echo.`+q+`"}`, func(m *nats.Msg) {
			if err := m.Respond(m.Data); err != nil {
				t.Error(err)
			}
		})
	}
	return h
}

// works sends a good item and expects it back.
func (h *bench) works() {
	h.t.Helper()
	s := send(h.t, h.nc, "q", []byte("good"))
	if m := s.reply.next(h.t); string(m.Data) != "good" {
		h.t.Errorf("a good item came back as %q", m.Data)
	}
	s.accepted(h.t)
}

// unharmed ends a test: the item that waited is still there and nothing was said about it, and the queue works.
func (h *bench) unharmed() {
	h.t.Helper()
	h.works()
	harness.None(h.t, h.victim.reply.c, 0, "something about the item that waits")
	processor(h.t, h.nc, "waiting", "last", `{"processor":"last"}`, func(m *nats.Msg) {
		if err := m.Respond(append(m.Data, " no more"...)); err != nil {
			h.t.Error(err)
		}
	})
	if m := h.victim.reply.next(h.t); string(m.Data) != "I wait no more" {
		h.t.Errorf("the item that waited came back as %q", m.Data)
	}
}

// steady runs a storm again and again and watches the broker's memory. How much of it is waiting to be collected varies,
// so the most of the first runs is compared with the least of the last ones: what is never given back shows all the same.
func (h *bench) steady(storm func()) {
	h.t.Helper()
	const storms, some = 20, 5
	var memory []int64
	for range storms {
		storm()
		h.works()
		memory = append(memory, h.b.Memory())
	}
	before, after := slices.Max(memory[:some]), slices.Min(memory[storms-some:])
	h.t.Logf("memory at most %d MB after the first storms, at least %d MB after the last", before>>20, after>>20)
	if after > before+growth {
		h.t.Errorf("the broker's memory grew from %d to %d bytes", before, after)
	}
}

func TestTooLarge(t *testing.T) {
	h := newBench(t)
	s := send(t, h.nc, "q", bytes.Repeat([]byte("x"), itemLimit))
	if message := s.refused(t, wire.CodeTooLarge); !strings.Contains(message, fmt.Sprint(itemLimit)) {
		t.Errorf("%q does not name the limit", message)
	}
	s = send(t, h.nc, "q", []byte("small"), "Large", strings.Repeat("x", itemLimit))
	s.refused(t, wire.CodeTooLarge)
	// Above the server's own limit it is the server that refuses, and cuts the connection.
	if err := h.nc.Publish("q", make([]byte, h.nc.MaxPayload()+1)); err == nil {
		t.Error("the client has sent more than max_payload")
	}
	raw := dial(t, h.b)
	raw.write("PUB q %d\r\n", h.nc.MaxPayload()+1)
	raw.ends("Maximum Payload Violation")
	h.unharmed()
}

func TestOpaqueBodies(t *testing.T) {
	h := newBench(t)
	deep := strings.Repeat("[", 1_000_000)
	for name, body := range map[string]string{
		"empty":               "",
		"not JSON":            "\x00\xff{not json",
		"half JSON":           `{"accepted_reply":"a.b"`,
		"not a string":        `{"accepted_reply":7,"accepted-reply":null}`,
		"deep":                deep,
		"deep and whole":      deep + strings.Repeat("]", 1_000_000),
		"deep behind the key": `{"accepted_reply":"nowhere","a":` + deep + strings.Repeat("]", 1_000_000) + `}`,
		"deep objects":        strings.Repeat(`{"a":`, 500_000),
		"a long string":       `{"a":"` + strings.Repeat(`\u0000`, 300_000) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := send(t, h.nc, "wide", []byte(body))
			s.accepted(t)
			if m := s.reply.next(t); string(m.Data) != body {
				t.Errorf("a body of %d bytes came back changed, as %d bytes", len(body), len(m.Data))
			}
		})
	}
	for _, body := range []string{deep, `{"processor":` + deep, "{}", "no", `{"processor":"p","capacity":` + strings.Repeat("9", 400) + `}`} {
		m, err := h.nc.Request(wire.RegisterSubject("q"), []byte(body), soon)
		if err != nil {
			t.Fatal(err)
		}
		if st, ok := wire.ParseStatus(m.Data); !ok || st.Code != string(wire.CodeBadRequest) {
			t.Errorf("registering with %d bytes was answered %.200q, want %s", len(body), m.Data, wire.CodeBadRequest)
		}
	}
	h.unharmed()
}

// forbidden are subjects that the broker must not publish to, whoever asks.
var forbidden = map[string]wire.Code{
	"$JS.API.STREAM.CREATE.x": wire.CodeForbiddenSubject,
	"$SYS.REQ.SERVER.PING":    wire.CodeForbiddenSubject,
	"q":                       wire.CodeForbiddenSubject,
	"wide":                    wire.CodeForbiddenSubject,
	"q.register":              wire.CodeForbiddenSubject,
	"q.lease.1.1":             wire.CodeForbiddenSubject,
	"waiting.talk.1.1":        wire.CodeForbiddenSubject,
	"q.event.x":               wire.CodeForbiddenSubject,
	"a.*":                     wire.CodeInvalidSubject,
	"a.>":                     wire.CodeInvalidSubject,
	">":                       wire.CodeInvalidSubject,
	"a..b":                    wire.CodeInvalidSubject,
	".a":                      wire.CodeInvalidSubject,
	"a.":                      wire.CodeInvalidSubject,
	strings.Repeat("a", 1025): wire.CodeInvalidSubject,
}

func TestForbiddenSubjects(t *testing.T) {
	h := newBench(t)
	for subject, code := range forbidden {
		t.Run(subject[:min(len(subject), 30)], func(t *testing.T) {
			accept := newInbox(t, h.nc)
			m := &nats.Msg{Subject: "q", Reply: subject, Header: nats.Header{wire.HeaderAcceptedReply: {accept.subject}}}
			publish(t, h.nc, m)
			accept.refused(t, code)

			reply := newInbox(t, h.nc)
			publish(t, h.nc, &nats.Msg{Subject: "q", Reply: reply.subject, Header: nats.Header{wire.HeaderAcceptedReply: {subject}}})
			reply.refused(t, code)
			for _, key := range []string{"accepted_reply", "accepted-reply"} {
				publish(t, h.nc, &nats.Msg{Subject: "q", Reply: reply.subject, Data: fmt.Appendf(nil, "{%q:%q}", key, subject)})
				reply.refused(t, code)
			}
			for _, to := range []string{wire.RegisterSubject("q"), wire.UnregisterSubject("q")} {
				publish(t, h.nc, &nats.Msg{Subject: to, Reply: reply.subject, Data: fmt.Appendf(nil, `{"processor":%q}`, subject)})
				if to == wire.RegisterSubject("q") {
					reply.refused(t, code)
				} else {
					reply.next(t) // what was never registered may be unregistered
				}
			}
		})
	}
	// Only in a body can there be a subject that NATS itself would not let through.
	for _, subject := range []string{"", " ", "a b", "a\tb", "a\r\nPUB x 0", "\xff\xfe", "\u0000"} {
		reply := newInbox(t, h.nc)
		body := `{"accepted_reply":"` + strings.NewReplacer("\t", `\t`, "\r", `\r`, "\n", `\n`, "\x00", `\u0000`).Replace(subject) + `"}`
		publish(t, h.nc, &nats.Msg{Subject: "q", Reply: reply.subject, Data: []byte(body)})
		reply.refused(t, wire.CodeInvalidSubject)
	}
	h.unharmed()
}

func publish(t *testing.T, nc *nats.Conn, m *nats.Msg) {
	t.Helper()
	if err := nc.PublishMsg(m); err != nil {
		t.Fatal(err)
	}
}

func TestBadHeaders(t *testing.T) {
	h := newBench(t)
	for _, c := range []struct {
		name, value string
		code        wire.Code
	}{
		{"Stint-Prioritty", "1", wire.CodeBadHeader},
		{"stint-anything", "1", wire.CodeBadHeader},
		{"Stint-", "", wire.CodeBadHeader},
		{wire.HeaderTimeout, "soon", wire.CodeBadHeader},
		{wire.HeaderTimeout, "-1", wire.CodeBadHeader},
		{wire.HeaderTimeout, "99999999999999999999", wire.CodeBadHeader},
		{wire.HeaderMaxAttempts, "0", wire.CodeBadHeader},
		{wire.HeaderMaxAttempts, "1e3", wire.CodeBadHeader},
		{wire.HeaderProgress, "yes", wire.CodeBadHeader},
		{wire.HeaderMsgID, "", wire.CodeBadHeader},
		{wire.HeaderMsgID, strings.Repeat("x", 257), wire.CodeBadHeader},
		{wire.HeaderTTL, "an hour", wire.CodeBadHeader},
		{wire.HeaderPriority, "1", wire.CodeUnsupported},
		{wire.HeaderDelay, "1000", wire.CodeUnsupported},
		{wire.HeaderNotBefore, "2030-01-01T00:00:00Z", wire.CodeUnsupported},
		{wire.HeaderKey, "k", wire.CodeUnsupported},
		{wire.HeaderRetain, "true", wire.CodeUnsupported},
	} {
		message := send(t, h.nc, "q", []byte("x"), c.name, c.value).refused(t, c.code)
		if !strings.Contains(strings.ToLower(message), strings.ToLower(c.name)) {
			t.Errorf("%s: %.40s: the message %q does not name the header", c.name, c.value, message)
		}
	}
	send(t, h.nc, "q", []byte("x"), wire.HeaderTimeout, "1000", wire.HeaderTimeout, "2000").refused(t, wire.CodeBadHeader)
	h.unharmed()
}

// TestSpoiltHeaders: a header block that cannot be read is refused, for nobody knows what it asked for.
func TestSpoiltHeaders(t *testing.T) {
	h := newBench(t)
	reply := newInbox(t, h.nc)
	raw := dial(t, h.b)
	for _, block := range []string{
		"NATS/1.0\r\nno colon here\r\n\r\n",
		"HTTP/1.1\r\nA: b\r\n\r\n",
		"\r\n\r\n",
		"NATS/1.0\r\nStint-Timeout: 1000\r\nspoilt\r\n\r\n",
	} {
		raw.write("HPUB q %s %d %d\r\n%sbody\r\n", reply.subject, len(block), len(block)+4, block)
		reply.refused(t, wire.CodeBadHeader)
	}
	h.unharmed()
}

// TestReplyFlood: answers to leases that do not exist change nothing, in any number.
func TestReplyFlood(t *testing.T) {
	const flood, half = 100_000, 50_000
	h := newBench(t)
	h.steady(func() {
		nc := h.b.Connect()
		for i := range flood {
			subject := wire.LeaseSubject("q", uint64(i)<<20, uint32(i%7+1))
			if i%10 == 0 {
				subject = fmt.Sprintf("q.lease.%d.nothing", i)
			}
			if err := nc.Publish(subject, []byte("an answer nobody asked for")); err != nil {
				t.Fatal(err)
			}
			if i%half == half-1 { // fewer than may wait in front of a queue, beyond which it is busy for everybody
				if err := nc.FlushTimeout(soon); err != nil {
					t.Fatal(err)
				}
				h.works() // which is behind all of them
			}
		}
		nc.Close()
	})
	h.unharmed()
}

// TestTalkFlood: so do turns of conversations that nobody has, and each asker is told.
func TestTalkFlood(t *testing.T) {
	const flood = 20_000
	h := newBench(t)
	h.steady(func() {
		in := newInbox(t, h.nc)
		for i := range flood {
			if err := h.nc.PublishRequest(wire.TalkSubject("q", uint64(i), 1), in.subject, []byte("hello?")); err != nil {
				t.Fatal(err)
			}
			if i%1000 == 999 { // as many as the inbox holds
				for range 1000 {
					in.refused(t, wire.CodeUnavailable)
				}
			}
		}
	})
	h.unharmed()
}

// TestHalfOpen: connections that stop in the middle of a protocol line, or never begin one, hold up nobody.
func TestHalfOpen(t *testing.T) {
	const each = 100
	h := newBench(t)
	h.steady(func() {
		var open []*wireConn
		for range each {
			for _, start := range []string{
				"", "CONN", `CONNECT {"verbose":false`, "CONNECT {}\r\nPING\r\nPUB q 100000\r\nabc",
				"CONNECT {\"headers\":true}\r\nHPUB q inbox 50 99999\r\nNATS/1.0\r\nStint-Ti", "CONNECT {}\r\nPUB q", "\x16\x03\x01\x02\x00",
			} {
				c := dial(t, h.b, "")
				c.write("%s", start)
				open = append(open, c)
			}
		}
		h.works()
		for _, c := range open {
			c.hangUp()
		}
	})
	h.unharmed()
}

// wireConn is a client that speaks the protocol by hand, and may stop at any byte.
type wireConn struct {
	t    *testing.T
	conn net.Conn
}

// dial connects and introduces itself, unless another introduction is given.
func dial(t *testing.T, b *harness.Broker, hello ...string) *wireConn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(b.URL, "nats://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	c := &wireConn{t, conn}
	if hello == nil {
		hello = []string{"CONNECT {\"verbose\":false,\"headers\":true}\r\n"}
	}
	c.write("%s", hello[0])
	return c
}

func (c *wireConn) write(format string, args ...any) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c.conn, format, args...); err != nil {
		c.t.Fatal(err)
	}
}

// hangUp ends the connection and waits until the server has noticed.
func (c *wireConn) hangUp() {
	c.t.Helper()
	err := c.conn.(*net.TCPConn).CloseWrite()
	if err == nil {
		_, err = io.Copy(io.Discard, c.conn)
	}
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		c.t.Error(err)
	}
	c.conn.Close()
}

// ends reads until the server closes the connection; it must have said why.
func (c *wireConn) ends(why string) {
	c.t.Helper()
	var all bytes.Buffer
	_, err := all.ReadFrom(c.conn)
	if !strings.Contains(all.String(), why) {
		c.t.Errorf("the server said %q and ended with %v, want %q", all.String(), err, why)
	}
}
