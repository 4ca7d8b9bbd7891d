package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

const (
	// lineWindow bounds the lines that are sent, or answered out of turn, and not printed.
	lineWindow = 4096
	// lineBatch bounds the lines of one message, lineBatchBytes their bytes as far as one line leaves a choice.
	lineBatch      = 256
	lineBatchBytes = 256 << 10
)

// lineSender sends each line of an input as an item. It batches what has been read by then, and prints what comes back in
// the order of the lines. Its state belongs to the goroutine of run; another one reads.
type lineSender struct {
	sender
	input io.Reader
	id    string // Nats-Msg-Id of an item, with its line behind it; empty: none

	nc     *nats.Conn
	lines  chan []byte
	in     chan *nats.Msg
	over   error // why reading ended
	next   int   // number of the next line to send, from 1
	shown  int   // lines up to this one are printed
	window map[int]*outcome
	failed int
	frames []byte
}

// outcome is what became of a line, once something has.
type outcome struct {
	m     *nats.Msg
	err   *wire.Status // in place of m
	known bool
}

func newLineSender(s *sender, input io.Reader, id string) *lineSender {
	return &lineSender{
		sender: *s, input: input, id: id, next: 1, window: map[int]*outcome{},
		lines: make(chan []byte, lineBatch), in: make(chan *nats.Msg, 2*lineWindow),
	}
}

func (s *lineSender) run(ctx context.Context, connect *connectFlags) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, refuse := context.WithCancelCause(ctx)
	defer refuse(nil)
	var err error
	s.nc, err = connect.connect("stint send", nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		refuse(err) // no permission for a subject, say
	}))
	if err != nil {
		return err
	}
	defer s.nc.Close()
	s.inbox = s.nc.NewInbox()
	if _, err := s.nc.ChanSubscribe(s.inbox+".>", s.in); err != nil {
		return fmt.Errorf("subscribing for the replies: %w", err)
	}
	go s.read(ctx)
	return s.exchange(ctx)
}

// read ends with the input, or with ctx at the line after. A line is bounded by what a server takes.
func (s *lineSender) read(ctx context.Context) {
	defer close(s.lines)
	scan := bufio.NewScanner(s.input)
	scan.Buffer(nil, maxPayload)
	for scan.Scan() {
		select {
		case s.lines <- append([]byte(nil), scan.Bytes()...):
		case <-ctx.Done():
			return
		}
	}
	s.over = scan.Err()
}

// exchange sends and takes until every line has its outcome.
func (s *lineSender) exchange(ctx context.Context) error {
	silence := time.NewTimer(s.timeout)
	defer silence.Stop()
	lines := s.lines
	for lines != nil || len(s.window) > 0 {
		from := lines
		if len(s.window) >= lineWindow {
			from = nil
		}
		select {
		case line, more := <-from:
			if !more {
				lines = nil
				break
			}
			if err := s.sendFrom(line); err != nil {
				return err
			}
		case m := <-s.in:
			silence.Reset(s.timeout)
			if err := s.take(m); err != nil {
				return err
			}
		case <-silence.C:
			if len(s.window) > 0 {
				return failf(exitTimeout, "nothing came for %s; %s", s.timeout, s.soFar())
			}
			silence.Reset(s.timeout) // nothing is waited for but the input
		case <-ctx.Done():
			return s.stopped(context.Cause(ctx))
		}
	}
	return s.end()
}

func (s *lineSender) stopped(cause error) error {
	if errors.Is(cause, context.Canceled) {
		return failf(exitInterrupt, "stopped; %s", s.soFar())
	}
	return failf(exitError, "the NATS server says: %w", cause)
}

func (s *lineSender) soFar() string {
	return fmt.Sprintf("of %d lines sent %d have no answer yet", s.next-1, len(s.window))
}

func (s *lineSender) end() error {
	switch {
	case s.over != nil:
		return fmt.Errorf("reading line %d: %w", s.next, s.over)
	case s.failed > 0:
		return failf(exitError, "%d of %d lines failed", s.failed, s.next-1)
	}
	return nil
}

// sendFrom sends a line, and with it what else has been read and fits.
func (s *lineSender) sendFrom(line []byte) error {
	first := s.next
	s.frames = s.frames[:0]
	limit := min(lineBatchBytes, int(s.nc.MaxPayload())/2)
	for n := 1; ; n++ {
		s.addFrame(line)
		if n == lineBatch || len(s.frames) >= limit || len(s.window) >= lineWindow {
			break
		}
		var more bool
		select {
		case line, more = <-s.lines:
		default:
		}
		if !more {
			break
		}
	}
	return s.publish(first)
}

func (s *lineSender) addFrame(line []byte) {
	var h wire.Header
	if s.id != "" {
		h = wire.Header{wire.HeaderMsgID: {s.id + "-" + strconv.Itoa(s.next)}}
	}
	s.frames = wire.AppendFrame(s.frames, strconv.Itoa(s.next), h, line)
	s.window[s.next] = &outcome{}
	s.next++
}

// publish sends the frames of the lines from first on. Whom the accept notice is about stands in its subject.
func (s *lineSender) publish(first int) error {
	n := s.next - first
	m := &nats.Msg{Subject: s.address, Header: nats.Header{}, Data: s.frames}
	for name, values := range s.header {
		m.Header[name] = values
	}
	m.Header.Set(wire.HeaderBatch, strconv.Itoa(n))
	m.Header.Set(wire.HeaderAcceptedReply, fmt.Sprintf("%s.accepted.%d.%d", s.inbox, first, n))
	if !s.accepted {
		m.Reply = s.inbox + ".reply"
		m.Header.Set(wire.HeaderBatchReplies, "gathered")
	}
	switch err := s.nc.PublishMsg(m); {
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("the line %d is larger than the %d bytes this NATS server takes", s.next-1, s.nc.MaxPayload())
	case err != nil:
		return fmt.Errorf("sending the lines from %d on: %w", first, err)
	}
	return nil
}

// take takes a message: a notice, replies of several items, or one by itself.
func (s *lineSender) take(m *nats.Msg) error {
	rest, isNotice := strings.CutPrefix(m.Subject, s.inbox+".accepted.")
	if isNotice {
		return s.notice(rest, m)
	}
	if m.Header.Get("Status") == "503" && len(m.Data) == 0 {
		return failf(exitConnect, "there is no broker for the queue %s at this NATS server: is the address right, and stint serve running?", s.address)
	}
	if key := m.Header.Get(wire.HeaderBatchKey); key != "" {
		return s.item(key, m)
	}
	count := m.Header.Get(wire.HeaderBatch)
	if count == "" {
		return nil // an error of a whole batch, which has come as a notice too
	}
	frames := wire.ReadFrames(count, m.Data)
	for frames.Next() {
		h, err := frames.Header()
		if err != nil {
			return err
		}
		if err := s.item(string(frames.Key), &nats.Msg{Header: nats.Header(h), Data: frames.Body}); err != nil {
			return err
		}
	}
	if err := frames.Err(); err != nil {
		return fmt.Errorf("replies that cannot be read: %w", err)
	}
	return nil
}

// item takes a message about one line.
func (s *lineSender) item(key string, m *nats.Msg) error {
	line, _ := strconv.Atoi(key)
	o := s.window[line]
	switch {
	case o == nil || o.known:
		return nil // it comes again
	case m.Header.Get(wire.HeaderProgress) == "true":
		return s.out.progress(m)
	case m.Header.Get(wire.HeaderErrorCode) != "":
		o.err = statusOf(m)
	case m.Reply != "":
		o.err = &wire.Status{Message: "the processor wants to talk, which send cannot"}
	}
	o.m, o.known = m, true
	return s.show()
}

func statusOf(m *nats.Msg) *wire.Status {
	status, _ := wire.ParseStatus(m.Data)
	if status.Message == "" {
		status.Message = m.Header.Get(wire.HeaderError)
	}
	return &status
}

// notice takes the notice of the lines that its subject names.
func (s *lineSender) notice(lines string, m *nats.Msg) error {
	var first, n int
	if _, err := fmt.Sscanf(lines, "%d.%d", &first, &n); err != nil {
		return nil // of somebody else
	}
	notice, ok := wire.ParseBatchAccepted(m.Data)
	refused := map[string]*wire.Status{}
	for _, r := range notice.Refused {
		for _, key := range r.Keys {
			refused[key] = &wire.Status{Code: string(r.Code), Message: r.Message}
		}
	}
	again := map[string]string{}
	for _, d := range notice.Duplicates {
		again[d.Key] = d.ID
	}
	for line := first; line < first+n; line++ {
		o, key := s.window[line], strconv.Itoa(line)
		if o == nil || o.known {
			continue
		}
		switch id, duplicate := again[key]; {
		case !ok:
			o.err, o.known = statusOf(m), true
		case !s.accepted:
		case refused[key] != nil:
			o.err, o.known = refused[key], true
		case duplicate:
			item, _ := wire.ParseID(id)
			o.m, o.known = &nats.Msg{Data: wire.Accepted(item, true)}, true
		default:
			o.m, o.known = &nats.Msg{Data: wire.Accepted(notice.First+uint64(line-first), false)}, true
		}
	}
	return s.show()
}

// show prints what is known, as far as the order of the lines goes.
func (s *lineSender) show() error {
	for o := s.window[s.shown+1]; o != nil && o.known; o = s.window[s.shown+1] {
		s.shown++
		delete(s.window, s.shown)
		if err := s.showOne(o); err != nil {
			return err
		}
	}
	return nil
}

func (s *lineSender) showOne(o *outcome) error {
	switch {
	case o.err != nil:
		s.failed++
		return s.out.lineFailed(s.shown, o.m, o.err)
	case s.accepted:
		status, _ := wire.ParseStatus(o.m.Data)
		return s.out.lineAccepted(s.shown, o.m, status)
	}
	return s.out.lineReply(s.shown, o.m)
}
