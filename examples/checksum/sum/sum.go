// Package sum is a real job done through a queue: the SHA-256 of every file below a directory, one item for each file,
// in as many processor processes as one likes, on any machine that sees the same files.
//
// It is an example, and the parts worth copying are these. The sender keeps a bounded window of items that are not
// finished; it gives each a Nats-Msg-Id, so that it can send again, without harm, what nobody confirmed; it takes a
// reply as proof of acceptance, for an item that is finished at once may be confirmed behind its reply or, if the
// broker is killed at that moment, not at all. The handler is a function that knows nothing of queues.
package sum

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"stint/processor"
	"stint/wire"
)

// Request is the body of an item.
type Request struct {
	Path string `json:"path"`
}

// Answer is the body of its reply.
type Answer struct {
	Sum     string `json:"sha256"`
	Bytes   int64  `json:"bytes"`
	PID     int    `json:"pid"`     // the processor process
	Attempt int    `json:"attempt"` // 1 unless the item was given out before
}

// Handle computes the checksum of the file that an item names. A file that cannot be read is refused for ever: another
// attempt would not help.
func Handle(ctx context.Context, w *processor.Work) ([]byte, error) {
	var req Request
	if err := json.Unmarshal(w.Body, &req); err != nil {
		return nil, processor.Reject(fmt.Errorf("reading the item: %w", err))
	}
	f, err := os.Open(req.Path)
	if err != nil {
		return nil, processor.Reject(err)
	}
	defer f.Close()
	digits, n, err := digest(&interruptible{ctx, f})
	if err != nil {
		return nil, err
	}
	return json.Marshal(Answer{Sum: digits, Bytes: n, PID: os.Getpid(), Attempt: w.Attempt})
}

// Of is the checksum of a file, computed here.
func Of(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	digits, _, err := digest(f)
	return digits, err
}

func digest(r io.Reader) (digits string, n int64, err error) {
	h := sha256.New()
	n, err = io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), n, err
}

// interruptible ends a long read when nobody waits for it any more.
type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	if err := context.Cause(i.ctx); err != nil {
		return 0, err
	}
	return i.r.Read(p)
}

// Files are the regular files below dir, sorted, at most limit of them if limit is not 0.
func Files(dir string, limit int) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.Type().IsRegular() {
			files = append(files, path)
		}
		if limit > 0 && len(files) == limit {
			return fs.SkipAll
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing the files below %s: %w", dir, err)
	}
	slices.Sort(files)
	return files, nil
}

// Options is what Send is told.
type Options struct {
	Address string
	// Window is how many items may be unfinished at once. Default 256.
	Window int
	// Resend is how long to wait for word of an item before it is sent again. Default 2 seconds.
	Resend time.Duration
	// Watch, if set, is called after each change, from the goroutine of Send.
	Watch func(Progress)
}

// Progress counts items.
type Progress struct {
	Sent, Accepted, Answered, Redelivered, Failed int
	Bytes                                         int64
	By                                            map[int]int // answered by processor process
}

// Result is what came of it. Sums and Errors have one entry for each file between them.
type Result struct {
	Progress
	Sums    map[string]string
	Errors  map[string]string
	Elapsed time.Duration
}

// sender is the state of Send, owned by its goroutine.
type sender struct {
	nc    *nats.Conn
	o     Options
	files []string
	run   string // makes message ids and subjects this run's own
	sent  int    // files sent so far
	open  map[int]*open
	res   Result
}

type open struct {
	last     time.Time // when it was last sent
	accepted bool
}

// Send has the checksums of the files computed through the queue and gathers them. It ends when every file has its
// outcome, or with ctx's error and what there is.
func Send(ctx context.Context, nc *nats.Conn, files []string, o Options) (Result, error) {
	if o.Window <= 0 {
		o.Window = 256
	}
	if o.Resend <= 0 {
		o.Resend = 2 * time.Second
	}
	s := &sender{nc: nc, o: o, files: files, run: nc.NewInbox(), open: map[int]*open{}}
	s.res.Sums, s.res.Errors, s.res.By = map[string]string{}, map[string]string{}, map[int]int{}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	incoming := make(chan *nats.Msg, 2*o.Window)
	sub, err := nc.Subscribe(s.run+".*.*", func(m *nats.Msg) {
		select {
		case incoming <- m:
		case <-ctx.Done():
		}
	})
	if err != nil {
		return s.res, fmt.Errorf("subscribing for replies: %w", err)
	}
	defer sub.Unsubscribe()
	start := time.Now()
	err = s.loop(ctx, incoming)
	s.res.Elapsed = time.Since(start)
	return s.res, err
}

func (s *sender) loop(ctx context.Context, incoming <-chan *nats.Msg) error {
	tick := time.NewTicker(s.o.Resend / 4)
	defer tick.Stop()
	for s.sent < len(s.files) || len(s.open) > 0 {
		if s.sent < len(s.files) && len(s.open) < s.o.Window {
			if err := s.send(s.sent); err != nil {
				return err
			}
			s.sent++
			select {
			case m := <-incoming:
				s.take(m)
			default:
			}
			continue
		}
		select {
		case m := <-incoming:
			s.take(m)
		case <-tick.C:
			if err := s.sendAgain(); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (s *sender) send(i int) error {
	body, err := json.Marshal(Request{s.files[i]})
	if err != nil {
		return fmt.Errorf("writing the item for %s: %w", s.files[i], err)
	}
	n := strconv.Itoa(i)
	m := &nats.Msg{Subject: s.o.Address, Reply: s.run + ".reply." + n, Data: body, Header: nats.Header{
		wire.HeaderAcceptedReply: {s.run + ".accepted." + n},
		wire.HeaderMsgID:         {s.run + n},
	}}
	if err := s.nc.PublishMsg(m); err != nil {
		return fmt.Errorf("sending the item for %s: %w", s.files[i], err)
	}
	if s.open[i] == nil {
		s.open[i] = &open{}
		s.res.Sent++
	}
	s.open[i].last = time.Now()
	return nil
}

// sendAgain repeats what nobody confirmed: the broker was away, or is.
func (s *sender) sendAgain() error {
	for i, it := range s.open {
		if !it.accepted && time.Since(it.last) > s.o.Resend {
			if err := s.send(i); err != nil {
				return err
			}
		}
	}
	return nil
}

// passes are the refusals that may not be there at the next try.
var passes = map[wire.Code]bool{
	wire.CodeBusy: true, wire.CodeQueueFull: true, wire.CodeDiskFull: true, wire.CodeStoreFailed: true,
	wire.CodeShuttingDown: true, wire.CodeUnconfirmed: true,
}

// take deals with an accept notice, a refusal or a reply.
func (s *sender) take(m *nats.Msg) {
	kind, n, _ := strings.Cut(strings.TrimPrefix(m.Subject, s.run+"."), ".")
	i, err := strconv.Atoi(n)
	it := s.open[i]
	if err != nil || it == nil {
		return // again, what was known
	}
	if m.Header.Get("Status") != "" {
		return // from NATS: nobody serves the queue at the moment; it is sent again
	}
	st, isStatus := wire.ParseStatus(m.Data)
	refused := isStatus && st.Status == "error"
	switch {
	case kind == "accepted" && isStatus && st.Status == "accepted":
		s.accepted(it)
	case refused && !it.accepted && passes[wire.Code(st.Code)]:
		// It is sent again after a while, until the broker takes it.
	case refused:
		s.finish(i, it, Answer{}, st.Message)
	case kind == "accepted":
		// No notice that we know.
	default:
		var a Answer
		if err := json.Unmarshal(m.Data, &a); err != nil {
			s.finish(i, it, a, "the reply is no answer: "+err.Error())
			return
		}
		s.finish(i, it, a, "")
	}
	if s.o.Watch != nil {
		s.o.Watch(s.res.Progress)
	}
}

func (s *sender) accepted(it *open) {
	if !it.accepted {
		it.accepted = true
		s.res.Accepted++
	}
}

func (s *sender) finish(i int, it *open, a Answer, problem string) {
	delete(s.open, i)
	if problem != "" {
		s.res.Failed++
		s.res.Errors[s.files[i]] = problem
		return
	}
	s.accepted(it)
	s.res.Answered++
	s.res.Bytes += a.Bytes
	s.res.By[a.PID]++
	if a.Attempt > 1 {
		s.res.Redelivered++
	}
	s.res.Sums[s.files[i]] = a.Sum
}

// Print writes the sums as sha256sum does, sorted by path.
func (r *Result) Print(w io.Writer) error {
	paths := make([]string, 0, len(r.Sums))
	for p := range r.Sums {
		paths = append(paths, p)
	}
	slices.Sort(paths)
	for _, p := range paths {
		if _, err := fmt.Fprintf(w, "%s  %s\n", r.Sums[p], p); err != nil {
			return err
		}
	}
	return nil
}
