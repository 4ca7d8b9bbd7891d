package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// roundLimit is far more than a round takes that gets on: filling ten million items through the slowest kind included.
const roundLimit = 2 * time.Hour

// round is the processes of one kind at work, once.
type round struct {
	exe        string
	spec       spec
	progress   func(event)
	ctx        context.Context // ends with the round, and the processes with it
	server     *process
	sender     *process
	processors []*process
}

// run does the whole round and leaves nothing behind.
func (r *round) run(ctx context.Context, dir string) (f Figures, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, roundLimit, fmt.Errorf("the round is not over after %s", roundLimit))
	r.ctx = ctx
	r.spec.Dir, err = os.MkdirTemp(dir, "stint-bench-")
	if err != nil {
		cancel()
		return nil, fmt.Errorf("making a directory for the data: %w", err)
	}
	defer func() {
		cancel()
		r.end()
		err = errors.Join(err, os.RemoveAll(r.spec.Dir))
	}()
	if err := r.start(); err != nil {
		return nil, err
	}
	return r.work()
}

// start brings up the server, and then all others at once.
func (r *round) start() error {
	var err error
	if r.server, err = start(r.ctx, r.exe, RoleServer, r.spec); err != nil {
		return err
	}
	e, err := r.server.expect(r.ctx, isReady, nil)
	if err != nil {
		return err
	}
	r.spec.URL = e.URL
	for i := range r.spec.Processors {
		s := r.spec
		s.Index = i
		p, err := start(r.ctx, r.exe, RoleProcessor, s)
		if p != nil {
			r.processors = append(r.processors, p)
		}
		if err != nil {
			return err
		}
	}
	if r.sender, err = start(r.ctx, r.exe, RoleSender, r.spec); err != nil {
		return err
	}
	for _, p := range append(r.processors, r.sender) {
		if _, err := p.expect(r.ctx, isReady, nil); err != nil {
			return err
		}
	}
	return nil
}

// work is the part that is measured, and the filling before it.
func (r *round) work() (Figures, error) {
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	pid := r.server.cmd.Process.Pid
	memory := watchMemory(ctx, pid)
	if r.spec.Mode == Drain || r.spec.Backlog > 0 {
		if _, err := r.send(doFill); err != nil {
			return nil, err
		}
	}
	if err := r.server.obey(ctx, doBegin); err != nil {
		return nil, err
	}
	before := readUsage(pid)
	seen, err := r.measure()
	if err != nil {
		return nil, err
	}
	after := readUsage(pid)
	cancel()
	m := measured{result: *seen, before: before, after: after, memory: <-memory}
	return m.figures(&r.spec), r.server.obey(r.ctx, doFinish)
}

// measure lets the processors work. To drain or to pass a backlog, the sender has to watch before they begin.
func (r *round) measure() (*result, error) {
	waiting := r.spec.Mode == Drain || r.spec.Backlog > 0
	if waiting {
		if err := r.sender.order(doMeasure); err != nil {
			return nil, err
		}
	}
	for _, p := range r.processors {
		if err := p.order(doWork); err != nil {
			return nil, err
		}
	}
	for _, p := range r.processors {
		if _, err := p.expect(r.ctx, isDone, nil); err != nil {
			return nil, err
		}
	}
	if !waiting {
		return r.send(doMeasure)
	}
	return r.sent()
}

// send gives the sender a command that takes its time.
func (r *round) send(command string) (*result, error) {
	if err := r.sender.order(command); err != nil {
		return nil, err
	}
	return r.sent()
}

func (r *round) sent() (*result, error) {
	e, err := r.sender.expect(r.ctx, isDone, r.progress)
	if err != nil {
		return nil, errors.Join(err, r.others())
	}
	if e.Result == nil {
		e.Result = &result{}
	}
	return e.Result, nil
}

// others tells what the server and the processors have complained about: the cause of what the sender suffers.
func (r *round) others() error {
	var errs []error
	for _, p := range append(r.processors, r.server) {
		if text := p.stderr.quote(); text != "" {
			errs = append(errs, fmt.Errorf("the %s%s", p.name, text))
		}
	}
	return errors.Join(errs...)
}

// end waits for the processes, which the end of the context kills.
func (r *round) end() {
	for _, p := range append(r.processors, r.sender, r.server) {
		if p != nil {
			p.kill()
		}
	}
}
