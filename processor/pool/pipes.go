package pool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	readSize   = 64 << 10               // of the first buffer for a child's lines
	tailSize   = 4 << 10                // of what a child printed last
	tailShown  = 900                    // of it in the reason of a failure
	lineShown  = 60                     // of a wrong line
	lastWords  = 500 * time.Millisecond // for what a child wrote before it ended
	closeGrace = 100 * time.Millisecond // between the end of a child's output and its own
)

// pipes are the ways from and to a child, each with a goroutine. What is not said to be a goroutine's is the owner's.
type pipes struct {
	pool *Pool
	n    int
	in   *os.File // the writer's
	out  *os.File // the reader's; its deadline may be set by the owner
	said *os.File // of what the child prints; likewise

	writes   chan []byte
	pending  []byte
	spare    []byte // to be the next pending
	busy     bool   // the writer has a buffer
	finished bool   // nothing more may be written
	closed   bool   // writes is

	exited, writeEnd, readEnd, saidEnd bool
	how                                error
	read                               int64 // how much the child has read, once writeEnd
	tail                               string
}

// open makes the pipes of a child and the order for its process.
func (p *Pool) open(c *child) (order, error) {
	o := order{Child: c.n, Start: true}
	ps := &pipes{pool: p, n: c.n, writes: make(chan []byte, 1)}
	var fds [6]int
	for i := 0; i < 6; i += 2 {
		if err := newPipe(fds[i : i+2]); err != nil {
			for _, fd := range fds[:i] {
				closeFD(fd)
			}
			return o, fmt.Errorf("making pipes for a child: %w", err)
		}
	}
	o.files = []int{fds[0], fds[3], fds[5]}
	ps.in, ps.out, ps.said = ours(fds[1], "in"), ours(fds[2], "out"), ours(fds[4], "said")
	o.Files = []int{-1, 2, 2, 0, 1}
	if p.o.Stdio {
		o.Files = []int{0, 1, 2}
	}
	c.pipes = ps
	go ps.writeAll()
	go ps.readLines()
	go ps.listen()
	return o, nil
}

// ours is our end of a pipe. The child's end must block, as programs expect.
func ours(fd int, name string) *os.File {
	unblock(fd)
	return os.NewFile(uintptr(fd), name)
}

func unblock(fd int) { unix.SetNonblock(fd, true) } //nolint:errcheck // a descriptor we just made

// post is for events of a child that is not gone.
func (ps *pipes) post(f func(own *owner, now time.Time, p *proc)) {
	ps.pool.post(func(own *owner, now time.Time) {
		if p := own.procs[ps.n]; p != nil {
			f(own, now, p)
		}
	})
}

// flush hands what is pending to the writer, unless it is at something.
func (ps *pipes) flush() {
	if ps.busy || ps.closed {
		return
	}
	if len(ps.pending) > 0 {
		ps.writes <- ps.pending
		ps.busy = true
		ps.pending, ps.spare = ps.spare[:0], nil
		return
	}
	if ps.finished {
		ps.close()
	}
}

func (ps *pipes) close() {
	if !ps.closed {
		ps.closed = true
		close(ps.writes)
	}
}

// maxSpare is how large a buffer is kept for the next lines, in bytes.
const maxSpare = 1 << 20

// wrote is the end of a write.
func (ps *pipes) wrote(buf []byte) {
	ps.busy = false
	if cap(buf) <= maxSpare {
		ps.spare = buf
	}
	ps.flush()
}

// exit is the end of the process. What it said before is still read, what it has not read is counted.
func (ps *pipes) exit(how error) {
	if ps.exited {
		return
	}
	ps.exited, ps.how, ps.finished, ps.pending = true, how, true, nil
	ps.close()
	now := time.Now()
	ps.in.SetWriteDeadline(now)                 //nolint:errcheck // it may be closed
	ps.out.SetReadDeadline(now.Add(lastWords))  //nolint:errcheck // likewise
	ps.said.SetReadDeadline(now.Add(lastWords)) //nolint:errcheck // likewise
}

// writeAll is the writer's goroutine.
func (ps *pipes) writeAll() {
	var sum int64
	var failed error
	for buf := range ps.writes {
		if failed == nil {
			var n int
			n, failed = ps.in.Write(buf)
			sum += int64(n)
			if failed != nil {
				ps.giveUp("the child has closed the end of the pipe that it reads from")
			}
		}
		ps.post(func(_ *owner, _ time.Time, p *proc) { p.child.pipes.wrote(buf) })
	}
	sum -= unread(ps.in)
	ps.in.Close()
	ps.post(func(own *owner, now time.Time, p *proc) {
		ps.writeEnd, ps.read = true, sum
		own.settle1(now, p)
	})
}

// giveUp ends a child that has closed a pipe, unless that is because it is ending anyway.
func (ps *pipes) giveUp(why string) {
	time.AfterFunc(closeGrace, func() {
		ps.post(func(own *owner, now time.Time, p *proc) {
			if !p.child.pipes.exited {
				own.roster.unfit(now, p.child, errors.New(why))
			}
		})
	})
}

// readLines is the reader's goroutine.
func (ps *pipes) readLines() {
	err := ps.lines()
	if err != nil {
		ps.post(func(own *owner, now time.Time, p *proc) { own.roster.unfit(now, p.child, err) })
		discard(ps.out)
	} else {
		ps.giveUp("the child has closed the end of the pipe that it writes to")
	}
	ps.out.Close()
	ps.post(func(own *owner, now time.Time, p *proc) {
		ps.readEnd = true
		own.settle1(now, p)
	})
}

// discard reads on, so that a child that has to end does not wait for us.
func discard(f *os.File) { io.Copy(io.Discard, f) } //nolint:errcheck // nobody wants it

// lines reads to the end, or to a line that is none. What comes in one read is passed on in one event.
func (ps *pipes) lines() error {
	buf, have := make([]byte, readSize), 0
	for {
		n, err := ps.out.Read(buf[have:])
		have += n
		rest, bad := ps.take(buf[:have])
		if bad != nil {
			return bad
		}
		if err != nil {
			return nil //nolint:nilerr // the end, or the deadline after it; half a line is nothing
		}
		have = copy(buf, rest)
		switch {
		case have > ps.pool.o.MaxOutput:
			return fmt.Errorf("the child wrote a line of more than %d bytes", ps.pool.o.MaxOutput)
		case have == len(buf):
			buf = slices.Grow(buf, len(buf))[:min(2*len(buf), ps.pool.o.MaxOutput+1)]
		case have == 0 && len(buf) > maxSpare:
			buf = make([]byte, readSize)
		}
	}
}

// take passes on the lines of what was read and gives back the rest.
func (ps *pipes) take(data []byte) (rest []byte, err error) {
	var all []answer
	for err == nil {
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			break
		}
		line := data[:end]
		data = data[end+1:]
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		a, derr := decodeAnswer(line)
		if derr != nil {
			err = fmt.Errorf("the child wrote a line that %w: %.*q", derr, lineShown, line)
			break
		}
		all = append(all, a)
	}
	if len(all) > 0 {
		ps.post(func(own *owner, now time.Time, p *proc) { own.roster.answers(now, p.child, all) })
	}
	return data, err
}

// listen is the goroutine for what the child prints.
func (ps *pipes) listen() {
	t := tail{out: ps.pool.o.Output}
	t.readAll(ps.said)
	ps.said.Close()
	ps.post(func(own *owner, now time.Time, p *proc) {
		ps.saidEnd, ps.tail = true, t.String()
		own.settle1(now, p)
	})
}

// tail passes on what a child prints, in whole lines as far as they are not too long, and keeps the end of it.
type tail struct {
	out  io.Writer // may be nil
	kept []byte
	part []byte // of a line, not passed on yet
}

func (t *tail) readAll(f *os.File) {
	buf := make([]byte, tailSize)
	for {
		n, err := f.Read(buf)
		t.add(buf[:n])
		if err != nil {
			t.pass(t.part, true)
			return
		}
	}
}

func (t *tail) add(data []byte) {
	t.kept = append(t.kept, data...)
	if over := len(t.kept) - tailSize; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	if t.out == nil {
		return
	}
	t.part = append(t.part, data...)
	if end := bytes.LastIndexByte(t.part, '\n'); end >= 0 {
		t.pass(t.part[:end+1], false)
		t.part = append(t.part[:0], t.part[end+1:]...)
	}
	if len(t.part) > tailSize {
		t.pass(t.part, true)
		t.part = t.part[:0]
	}
}

func (t *tail) pass(text []byte, cut bool) {
	if t.out == nil || len(text) == 0 {
		return
	}
	if cut {
		text = append(text, '\n')
	}
	t.out.Write(text) //nolint:errcheck // it is only shown
}

// String is the end of what was printed, in one line.
func (t *tail) String() string {
	text := strings.ToValidUTF8(strings.TrimSpace(string(t.kept)), "\uFFFD")
	if over := len(text) - tailShown; over > 0 {
		text = strings.ToValidUTF8(text[over:], "")
	}
	return strings.Join(strings.Fields(text), " ")
}
