package pool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"stint/processor"
)

// run is the process of one item in mode Exec. Its handler's goroutine drives it; the owner knows it for the statistics and
// passes on its end.
type run struct {
	n      int
	work   *processor.Work
	began  time.Time
	exited chan *report // has room for one
	tooBig chan int64   // likewise: it takes so much memory
}

// outputs is what a process of mode Exec writes, each on a goroutine of its own until it is done.
type outputs struct {
	reply   []byte
	tail    tail
	over    bool // the reply is too long
	replied chan struct{}
	told    chan struct{}
	fed     chan struct{}
	in      *os.File // nil: there is no body
	out     *os.File
	said    *os.File
}

// exec is the handler of mode Exec.
func (p *Pool) exec(ctx context.Context, w *processor.Work) ([]byte, error) {
	r := &run{n: int(p.runs.Add(1)), work: w, began: time.Now(), exited: make(chan *report, 1), tooBig: make(chan int64, 1)}
	o, files, err := p.plumb(w)
	if err != nil {
		return nil, err
	}
	if !p.post(func(own *owner, _ time.Time) { own.startRun(r, o) }) {
		o.close()
		for _, fd := range files.ours() {
			fd.Close()
		}
		return nil, processor.Release(0)
	}
	files.follow(p, w.Body)
	end, verdict := p.await(ctx, r, files)
	files.wait()
	return p.judge(ctx, w, files, end, verdict)
}

// close is for an order that nobody gets.
func (o *order) close() {
	for _, fd := range o.files {
		closeFD(fd)
	}
}

// plumb makes the pipes. An item without a body has /dev/null to read.
func (p *Pool) plumb(w *processor.Work) (order, *outputs, error) {
	o := order{Start: true, Files: []int{-1, 0, 1}, Env: []string{
		envQueue + "=" + w.Address, envProtocol + "=1", envID + "=" + w.Item, envAttempt + "=" + strconv.Itoa(w.Attempt),
	}}
	if t := p.timeout(w); t > 0 {
		o.Env = append(o.Env, envDeadline+"="+strconv.FormatInt(time.Now().Add(t).UnixMilli(), 10))
	}
	ways := 2
	if len(w.Body) > 0 {
		ways, o.Files[0] = 3, 2
	}
	var fds [6]int
	for i := 0; i < 2*ways; i += 2 {
		if err := newPipe(fds[i : i+2]); err != nil {
			for _, fd := range fds[:i] {
				closeFD(fd)
			}
			return o, nil, processor.Retry(fmt.Errorf("making pipes for a child: %w", err), time.Second)
		}
	}
	o.files = append(o.files, fds[1], fds[3])
	out := &outputs{
		out: ours(fds[0], "stdout"), said: ours(fds[2], "stderr"),
		replied: make(chan struct{}), told: make(chan struct{}), fed: make(chan struct{}),
	}
	if ways == 3 {
		out.in = ours(fds[5], "stdin")
		o.files = append(o.files, fds[4])
	}
	return o, out, nil
}

func (f *outputs) ours() []*os.File {
	if f.in == nil {
		return []*os.File{f.out, f.said}
	}
	return []*os.File{f.out, f.said, f.in}
}

// follow starts the goroutines that read and write.
func (f *outputs) follow(p *Pool, body []byte) {
	f.tail.out = p.o.Output
	go func() {
		defer close(f.replied)
		var b bytes.Buffer
		_, err := b.ReadFrom(io.LimitReader(f.out, int64(p.o.MaxOutput)+1))
		f.reply, f.over = b.Bytes(), b.Len() > p.o.MaxOutput
		if err == nil && f.over {
			f.out.Close() // its next write fails
		}
	}()
	go func() {
		defer close(f.told)
		f.tail.readAll(f.said)
	}()
	go func() {
		defer close(f.fed)
		if f.in != nil {
			f.in.Write(body) //nolint:errcheck // a program need not read what it does not want
			f.in.Close()
		}
	}()
}

// wait waits for the rest of what the process has said. It has ended, and its group with it.
func (f *outputs) wait() {
	late := time.Now().Add(lastWords)
	f.out.SetReadDeadline(late)  //nolint:errcheck // it may be closed
	f.said.SetReadDeadline(late) //nolint:errcheck // likewise
	if f.in != nil {
		f.in.SetWriteDeadline(time.Now()) //nolint:errcheck // likewise
	}
	<-f.replied
	<-f.told
	<-f.fed
	f.out.Close()
	f.said.Close()
}

// startRun notes a process and has it started. It runs on the owner's goroutine.
func (own *owner) startRun(r *run, o order) {
	own.exec.started++
	own.procs[r.n] = &proc{n: r.n, run: r}
	o.Child = r.n
	o.Env = append(o.Env, envChild+"="+strconv.Itoa(r.n))
	own.order(o)
}

// await waits for the process and ends it when it has to end. verdict is why, if it was.
func (p *Pool) await(ctx context.Context, r *run, f *outputs) (end *report, verdict error) {
	limit := time.NewTimer(max(p.timeout(r.work), 0))
	defer limit.Stop()
	if p.timeout(r.work) <= 0 {
		limit.Stop()
	}
	shutdown, replied := ctx.Done(), f.replied
	doom := func(why error, sig syscall.Signal) {
		if verdict == nil {
			verdict = why
			limit.Reset(p.o.ExitTimeout)
		}
		p.post(func(own *owner, _ time.Time) { own.order(order{Child: r.n, Sig: sig}) })
	}
	for {
		select {
		case end = <-r.exited:
			return end, verdict
		case <-p.over:
			return &report{Err: "the pool has ended"}, processor.Release(0)
		case <-limit.C:
			if verdict != nil {
				doom(nil, syscall.SIGKILL)
				continue
			}
			doom(fmt.Errorf("no answer from the child after %v", p.timeout(r.work)), syscall.SIGTERM)
		case size := <-r.tooBig:
			doom(fmt.Errorf("the child took %d bytes of memory: max_memory is %d", size, p.o.MaxMemory), syscall.SIGKILL)
		case <-replied:
			replied = nil
			if f.over {
				doom(fmt.Errorf("the child wrote more than %d bytes", p.o.MaxOutput), syscall.SIGTERM)
			}
		case <-shutdown:
			shutdown = nil
			if errors.Is(context.Cause(ctx), processor.ErrShutdown) {
				doom(processor.Release(0), syscall.SIGKILL)
			}
		}
	}
}

// judge says what the end of a process means.
func (p *Pool) judge(ctx context.Context, w *processor.Work, f *outputs, end *report, verdict error) ([]byte, error) {
	var err error
	switch {
	case verdict != nil:
		err = verdict
	case end.Err == errGuardLost.Error():
		err = processor.Release(0)
	case end.Err != "":
		err = processor.Retry(end.ending(), maxHold) // no attempt can help, but a mended system can
	case end.Code == 0 && end.Signal == 0:
		p.note(func(c *counts) { c.done++ })
		return f.reply, nil
	case f.tail.String() != "":
		err = errors.New(f.tail.String())
	default:
		err = end.ending()
	}
	if verdict != nil && f.tail.String() != "" {
		err = fmt.Errorf("%w: %s", err, f.tail.String())
	}
	p.note(func(c *counts) { c.failed++ })
	return nil, err
}

// note counts in mode Exec.
func (p *Pool) note(f func(*counts)) {
	p.post(func(own *owner, _ time.Time) { f(&own.exec) })
}
