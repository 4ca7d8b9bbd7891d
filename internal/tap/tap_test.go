package tap

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stream is a connection whose bytes come in pieces of these sizes, the last of them again and again.
type stream struct {
	net.Conn
	rest   []byte
	pieces []int
}

func (s *stream) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := min(len(p), len(s.rest), s.pieces[0])
	if len(s.pieces) > 1 {
		s.pieces = s.pieces[1:]
	}
	copy(p, s.rest[:n])
	s.rest = s.rest[n:]
	return n, nil
}

func (s *stream) Write(b []byte) (int, error) { return len(b), nil }

func (s *stream) Dial(string, string) (net.Conn, error) { return s, nil }

// run reads the stream to its end, with what the client writes first, and gives what passed and what came in the lane.
func run(t rapid.TB, first string, s *stream, size int) (passed []byte, taken []string) {
	lane := NewLane()
	tap := &Tap{Dialer: s}
	tap.Take(func(subject []byte) (*Lane, int) {
		if bytes.HasPrefix(subject, []byte("want.")) {
			return lane, len(subject)
		}
		return nil, 0
	})
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case b := <-lane.C():
				taken = append(taken, texts(b)...)
			case <-done:
				for len(lane.C()) > 0 {
					taken = append(taken, texts(<-lane.C())...)
				}
				return
			}
		}
	}()
	c, _ := tap.Dial("", "")
	c.Write([]byte(first))
	var err error
	for p := make([]byte, size); err == nil; {
		var n int
		n, err = c.Read(p)
		passed = append(passed, p[:n]...)
	}
	if err != io.EOF {
		t.Errorf("the connection ended with %v", err)
	}
	close(done)
	<-ended
	return passed, taken
}

func texts(b *Batch) (all []string) {
	for _, m := range b.Messages {
		all = append(all, text(string(m.Subject), string(m.Reply), string(m.Header), string(m.Data), m.Tag))
	}
	b.Done()
	return all
}

func text(subject, reply, header, data string, tag int) string {
	return fmt.Sprintf("%s|%s|%s|%d|%s", subject, reply, header, tag, data)
}

// message writes a message as a server does.
func message(subject, reply, header, data string) string {
	words := []string{"MSG", subject, "7"}
	if header != "" {
		words[0] = "HMSG"
	}
	if reply != "" {
		words = append(words, reply)
	}
	if header != "" {
		words = append(words, fmt.Sprint(len(header)))
	}
	words = append(words, fmt.Sprint(len(header)+len(data)))
	return strings.Join(words, " ") + "\r\n" + header + data + "\r\n"
}

// TestTakesAndPasses: whatever way the bytes come, what is wanted is taken, whole and in order, and all else passes as it is.
func TestTakesAndPasses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all, pass strings.Builder
		var want []string
		sizes := rapid.OneOf(rapid.IntRange(0, 300), rapid.SampledFrom([]int{readSize - 40, readSize, readSize + 1, 3 * readSize}))
		for range rapid.IntRange(0, 40).Draw(t, "ops") {
			switch rapid.IntRange(0, 4).Draw(t, "op") {
			case 0:
				line := rapid.SampledFrom([]string{"PING\r\n", "PONG\r\n", "+OK\r\n", "-ERR 'x'\r\n", "INFO {\"a\":1}\r\n", "\r\n"}).Draw(t, "line")
				all.WriteString(line)
				pass.WriteString(line)
			default:
				subject := rapid.SampledFrom([]string{"want.a", "want.bb", "other", "want"}).Draw(t, "subject")
				reply := rapid.SampledFrom([]string{"", "r.1"}).Draw(t, "reply")
				header := rapid.SampledFrom([]string{"", "NATS/1.0\r\n\r\n", "NATS/1.0\r\nA: b\r\n\r\n"}).Draw(t, "header")
				data := strings.Repeat(rapid.SampledFrom([]string{"\n", "x", "MSG want.a 1 2\r\n"}).Draw(t, "data"), sizes.Draw(t, "size"))
				m := message(subject, reply, header, data)
				all.WriteString(m)
				if strings.HasPrefix(subject, "want.") {
					want = append(want, text(subject, reply, header, data, len(subject)))
				} else {
					pass.WriteString(m)
				}
			}
		}
		tail := rapid.SampledFrom([]string{"", "PIN", "MSG want.a 1 20\r\nhalf", "MSG want.a x\r\nMSG want.a 1 0\r\n\r\n", "HMSG want.a 1 9 3\r\nabc\r\n"}).Draw(t, "tail")
		all.WriteString(tail)
		pass.WriteString(tail)
		pieces := rapid.SliceOfN(rapid.IntRange(1, 2*readSize), 1, 8).Draw(t, "pieces")
		pieces[len(pieces)-1] = max(pieces[len(pieces)-1], 1000)
		passed, taken := run(t, "CONNECT {}\r\n", &stream{rest: []byte(all.String()), pieces: pieces}, rapid.SampledFrom([]int{7, 512, readSize}).Draw(t, "buffer"))
		if string(passed) != pass.String() {
			t.Fatalf("passed on %d bytes, not the %d that are not wanted", len(passed), pass.Len())
		}
		if !slices.Equal(taken, want) {
			t.Fatalf("took %d messages, not the %d that are wanted", len(taken), len(want))
		}
	})
}

// TestLeavesOthersAlone: what is not plain NATS passes untouched, whatever it looks like.
func TestLeavesOthersAlone(t *testing.T) {
	in := "INFO {}\r\n" + message("want.a", "", "", "x")
	for _, first := range []string{"\x16\x03\x01", "GET / HTTP/1.1\r\n"} {
		passed, taken := run(t, first, &stream{rest: []byte(in), pieces: []int{10}}, 100)
		if string(passed) != in || len(taken) != 0 {
			t.Errorf("after %q %q passed, and %q was taken", first, passed, taken)
		}
	}
}

// TestClosedLane: nobody waits for a lane that was closed.
func TestClosedLane(t *testing.T) {
	lane := NewLane()
	tap := &Tap{Dialer: &stream{rest: bytes.Repeat([]byte(message("a", "", "", "x")), 100_000), pieces: []int{1000}}}
	tap.Take(func([]byte) (*Lane, int) { return lane, 0 })
	c, _ := tap.Dial("", "")
	c.Write([]byte("CONNECT {}\r\n"))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		io.ReadAll(c)
	}()
	lane.Close()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the reader waits for a closed lane")
	}
}

func TestTakeNothing(t *testing.T) {
	in := message("want.a", "", "", "x")
	tap := &Tap{Dialer: &stream{rest: []byte(in), pieces: []int{5}}}
	tap.Take(func([]byte) (*Lane, int) { panic("asked") })
	tap.Take(nil)
	c, _ := tap.Dial("", "")
	c.Write([]byte("CONNECT {}\r\n"))
	if got, err := io.ReadAll(c); string(got) != in || err != nil {
		t.Errorf("%q passed, %v", got, err)
	}
}

// FuzzConn: nothing that a server sends makes the connection fail, and what is not taken passes.
func FuzzConn(f *testing.F) {
	f.Add([]byte("MSG want.a 1 2\r\nxx\r\nPING\r\nHMSG want.a 1 r 12 13\r\nNATS/1.0\r\n\r\nx\r\n"), 3)
	f.Add([]byte("MSG  want.a 1 99999999999999999999\r\n"), 1)
	f.Fuzz(func(t *testing.T, in []byte, piece int) {
		piece = max(1, min(piece, 1000))
		passed, taken := run(t, "CONNECT {}\r\n", &stream{rest: bytes.Clone(in), pieces: []int{piece}}, 100)
		if len(taken) == 0 && !bytes.Equal(passed, in) {
			t.Errorf("nothing was taken, and %q became %q", in, passed)
		}
		if len(passed) > len(in) {
			t.Errorf("of %q more passed: %q", in, passed)
		}
	})
}
