package pool

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"stint/processor"
)

// run is the process of one item in mode Exec. Its handler's goroutine drives it; the owner knows it for the statistics and
// passes on what becomes of it.
type run struct {
	n      int
	work   *processor.Work
	began  time.Time     // the owner's
	runs   chan struct{} // closed when it has run for a while; one that ends at once never does
	exited chan *report  // has room for one
	tooBig chan int64    // likewise: it takes so much memory
}

// maxPlaces bounds the items that wait for their process to be started with all that it needs, above those that have one.
const maxPlaces = 256

// tally counts in mode Exec, where handlers do what the owner does otherwise.
type tally struct{ started, done, failed atomic.Int64 }

func (t *tally) counts() counts {
	return counts{started: t.started.Load(), done: t.done.Load(), failed: t.failed.Load()}
}

// exec is the handler of mode Exec.
func (p *Pool) exec(ctx context.Context, w *processor.Work) ([]byte, error) {
	select {
	case p.places <- struct{}{}:
		defer func() { <-p.places }()
	case <-ctx.Done():
		if cause := context.Cause(ctx); !errors.Is(cause, processor.ErrShutdown) {
			return nil, cause
		}
		return nil, processor.Release(0)
	}
	r := &run{
		n: int(p.tally.started.Add(1)), work: w,
		runs: make(chan struct{}), exited: make(chan *report, 1), tooBig: make(chan int64, 1),
	}
	o := p.startOrder(w, r.n)
	f, err := p.plumb(w.Body, &o)
	if err != nil {
		return nil, err
	}
	if !p.post(func(own *owner, _ time.Time) { own.startRun(r, o) }) {
		o.close()
		f.close()
		return nil, processor.Release(0)
	}
	end, verdict := p.await(ctx, r, f)
	f.finish()
	return p.judge(w, f, end, verdict)
}

// startOrder has the process started. Its input is none unless plumb has something for it.
func (p *Pool) startOrder(w *processor.Work, n int) order {
	return order{Start: true, Child: n, Timeout: max(p.timeout(w), 0), Files: []int{-1, 0, 1}, Env: []string{
		envQueue + "=" + w.Address, envProtocol + "=1", envChild + "=" + strconv.Itoa(n), envID + "=" + w.Item,
		envAttempt + "=" + strconv.Itoa(w.Attempt),
	}}
}

// startRun notes a process and has it started. It runs on the owner's goroutine.
func (own *owner) startRun(r *run, o order) {
	own.procs[r.n] = &proc{n: r.n, run: r}
	own.order(o)
}

// await waits for the process and ends it when it has to end. verdict is why, if it was.
func (p *Pool) await(ctx context.Context, r *run, f *outputs) (end *report, verdict error) {
	var limit *time.Timer
	var late <-chan time.Time
	defer func() {
		if limit != nil {
			limit.Stop()
		}
	}()
	within := func(d time.Duration) {
		if limit != nil {
			limit.Stop()
		}
		limit = time.NewTimer(d)
		late = limit.C
	}
	doom := func(why error, sig syscall.Signal) {
		if verdict == nil {
			verdict = why
			within(p.o.ExitTimeout)
		}
		p.post(func(own *owner, _ time.Time) { own.order(order{Child: r.n, Sig: sig}) })
	}
	runs, shutdown := r.runs, ctx.Done()
	for {
		select {
		case end = <-r.exited:
			return end, verdict
		case <-runs:
			runs = nil
			f.follow()
			if t := p.timeout(r.work); t > 0 && verdict == nil {
				within(t)
			}
		case <-p.over:
			return &report{Err: "the pool has ended"}, processor.Release(0)
		case <-late:
			if verdict != nil {
				late = nil
				doom(nil, syscall.SIGKILL)
				continue
			}
			doom(fmt.Errorf("no answer from the child after %v", p.timeout(r.work)), syscall.SIGTERM)
		case size := <-r.tooBig:
			doom(fmt.Errorf("the child took %d bytes of memory: max_memory is %d", size, p.o.MaxMemory), syscall.SIGKILL)
		case <-f.flood:
			doom(fmt.Errorf("the child wrote more than %d bytes", p.o.MaxOutput), syscall.SIGTERM)
		case <-shutdown:
			shutdown = nil
			if errors.Is(context.Cause(ctx), processor.ErrShutdown) {
				doom(processor.Release(0), syscall.SIGKILL)
			}
		}
	}
}

// judge says what the end of a process means.
func (p *Pool) judge(w *processor.Work, f *outputs, end *report, verdict error) ([]byte, error) {
	var err error
	switch said := f.tail.String(); {
	case verdict != nil && said != "":
		err = fmt.Errorf("%w: %s", verdict, said)
	case verdict != nil:
		err = verdict
	case end.Err == errGuardLost.Error():
		err = processor.Release(0)
	case end.Err != "":
		err = processor.Retry(end.ending(), maxHold) // no attempt can help, but a mended system can
	case end.Code != 0 || end.Signal != 0:
		if err = end.ending(); said != "" {
			err = errors.New(said)
		}
	case f.over:
		err = fmt.Errorf("the child wrote more than %d bytes", p.o.MaxOutput)
	default:
		p.tally.done.Add(1)
		return f.reply, nil
	}
	p.tally.failed.Add(1)
	return nil, err
}
