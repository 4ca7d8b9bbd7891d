package pool

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// guardLife is how long a guard must have lived to be replaced when it dies; one that dies sooner ends the pool.
const guardLife = 5 * time.Second

// maxDrain is how many events are looked at before what they led to is passed on.
const maxDrain = 256

// lostGuard is the cause of the end of a pool that cannot keep a guard.
type lostGuard struct{ err error }

func (l *lostGuard) Error() string { return "pool: " + l.err.Error() }
func (l *lostGuard) Unwrap() error { return l.err }

// owner holds all state of a pool that runs, on one goroutine. Everybody else sends it events.
type owner struct {
	pool   *Pool
	roster *roster // nil in mode Exec
	procs  map[int]*proc
	dirty  []*pipes // something is to be written
	timer  *time.Timer
	armed  time.Time // zero: it is not
	fail   context.CancelCauseFunc

	link    *link
	guarded time.Time // since when
	ending  bool      // as soon as nothing is left
	begun   time.Time
	asked   time.Time // the children, for statistics
}

// proc is a process that has not been gone for good.
type proc struct {
	n     int
	pid   int // 0: not started yet
	child *child
	run   *run
}

func newOwner(p *Pool, fail context.CancelCauseFunc) (*owner, error) {
	own := &owner{pool: p, procs: map[int]*proc{}, fail: fail, begun: time.Now(), timer: time.NewTimer(0)}
	if err := own.startGuard(); err != nil {
		return nil, err
	}
	if p.o.Mode != Exec {
		own.roster = newRoster(p.o, own, own.begun)
		own.flush()
		own.rearm()
	}
	return own, nil
}

func (own *owner) startGuard() error {
	l, err := startGuard(own.pool.spec, 4*own.pool.o.Children+64, own.hear)
	if err != nil {
		return err
	}
	own.link, own.guarded = l, time.Now()
	return nil
}

// hear is the guard's reader: it is called on a goroutine of its own.
func (own *owner) hear(all []report) {
	own.pool.post(func(own *owner, now time.Time) {
		if all == nil {
			own.guardLost(now)
		}
		for i := range all {
			if r := &all[i]; r.PID != 0 {
				own.runs(now, r)
			} else {
				own.exited(now, r)
			}
		}
	})
}

// run is the loop: gather, step, pass on.
func (own *owner) run() {
	for !own.ending || len(own.procs) > 0 {
		select {
		case e := <-own.pool.events:
			now := time.Now()
			e(own, now)
			own.gather(now)
			runtime.Gosched() // whoever is about to say something too shares the write
			own.gather(now)
		case <-own.timer.C:
			own.armed = time.Time{}
			if own.roster != nil {
				own.roster.tick(time.Now())
			}
		}
		own.flush()
		own.rearm()
	}
	own.timer.Stop()
	own.closeLink()
}

// gather takes what else has come.
func (own *owner) gather(now time.Time) {
	for range maxDrain {
		select {
		case e := <-own.pool.events:
			e(own, now)
		default:
			return
		}
	}
}

// closeLink ends the guard. What it says meanwhile is of no interest; that it ended among it.
func (own *owner) closeLink() {
	if own.link == nil {
		return
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		own.link.close()
	}()
	for {
		select {
		case <-own.pool.events:
		case <-closed:
			return
		}
	}
}

// rearm sets the timer to what the roster waits for, if that is sooner than what it is set to. Being early costs a look.
func (own *owner) rearm() {
	if own.roster == nil || own.roster.wake.IsZero() {
		return
	}
	if own.armed.IsZero() || own.roster.wake.Before(own.armed) {
		own.armed = own.roster.wake
		own.timer.Reset(time.Until(own.armed))
	}
}

func (own *owner) drain(now time.Time) {
	if own.roster != nil {
		own.roster.drain(now)
	}
}

// abort comes when no handler is left that would hear of anything.
func (own *owner) abort(now time.Time) {
	own.ending = true
	if own.roster != nil {
		own.roster.abort(now)
	}
	for _, p := range own.procs {
		if p.run != nil {
			own.order(order{Child: p.n, Sig: syscall.SIGKILL})
		}
	}
}

func (own *owner) reload(now time.Time) {
	if own.roster != nil {
		own.roster.replaceAll(now, "reload")
	}
}

// order tells the guard. Without one nothing can be started any more.
func (own *owner) order(o order) {
	if own.link != nil {
		own.link.orders <- o
		return
	}
	o.close()
	if o.Start {
		go own.pool.post(func(own *owner, now time.Time) { own.exited(now, &report{Child: o.Child, Err: errGuardLost.Error()}) })
	}
}

// runs is a process that has not ended at once.
func (own *owner) runs(now time.Time, r *report) {
	p := own.procs[r.Child]
	if p == nil {
		return
	}
	p.pid = r.PID
	if p.child != nil {
		p.child.pid = r.PID
		return
	}
	p.run.began = now
	close(p.run.runs)
}

// exited is the end of a process, or that it could not be started.
func (own *owner) exited(now time.Time, r *report) {
	p := own.procs[r.Child]
	switch {
	case p == nil:
	case p.run != nil:
		delete(own.procs, p.n)
		p.run.exited <- r
	case p.child.pipes != nil:
		p.child.pipes.exit(r.ending())
		own.settle1(now, p)
	}
}

// ending says how a process ended.
func (r *report) ending() error {
	switch {
	case r.Err != "":
		return errors.New(r.Err)
	case r.Signal != 0:
		return fmt.Errorf("the child was ended by signal %d (%s)", int(r.Signal), r.Signal)
	default:
		return fmt.Errorf("the child ended with exit code %d", r.Code)
	}
}

// guardLost kills what the guard has left behind, which is not much: the kernel kills children whose parent dies.
func (own *owner) guardLost(now time.Time) {
	if own.ending && len(own.procs) == 0 {
		return
	}
	own.pool.o.Logger.Error("the guard process has died: its children with it, their items go back")
	for _, p := range own.procs {
		if p.pid > 0 {
			syscall.Kill(-p.pid, syscall.SIGKILL) //nolint:errcheck // it may be gone
		}
		if p.child != nil {
			p.child.state, p.child.guilty, p.child.verdict = doomed, nil, errGuardLost
		}
	}
	own.link.close()
	own.link = nil
	short := now.Sub(own.guarded) < guardLife
	err := own.startGuard()
	if err == nil && short {
		err = errGuardLost
	}
	if err != nil {
		own.fail(&lostGuard{err})
	}
	for _, p := range own.procs {
		own.exited(now, &report{Child: p.n, Err: errGuardLost.Error()})
	}
}

// settle1 tells the roster once everything of a child is gone: the process, what it has said, and the goroutines.
func (own *owner) settle1(now time.Time, p *proc) {
	ps := p.child.pipes
	if !ps.exited || !ps.writeEnd || !ps.readEnd || !ps.saidEnd {
		return
	}
	delete(own.procs, p.n)
	how := ps.how
	if ps.tail != "" {
		how = fmt.Errorf("%w: %s", how, ps.tail)
	}
	own.roster.gone(now, p.child, how, ps.read)
}

// What follows is effects, for the roster.

func (own *owner) start(c *child) {
	own.procs[c.n] = &proc{n: c.n, child: c}
	o, err := own.pool.open(c)
	if err != nil {
		// There are no pipes: the child was never there.
		go own.pool.post(func(own *owner, now time.Time) {
			delete(own.procs, c.n)
			own.roster.gone(now, c, err, 0)
		})
		return
	}
	o.Env = own.pool.variables(c.n)
	own.order(o)
}

// variables are the child's own.
func (p *Pool) variables(n int) []string {
	in, out := "3", "4"
	if p.o.Stdio {
		in, out = "0", "1"
	}
	return []string{
		envQueue + "=" + p.o.Address, envChild + "=" + strconv.Itoa(n), envProtocol + "=1", envIn + "=" + in, envOut + "=" + out,
	}
}

func (own *owner) write(c *child, line []byte) {
	ps := c.pipes
	if ps == nil || ps.finished {
		return
	}
	if len(ps.pending) == 0 {
		own.dirty = append(own.dirty, ps)
	}
	ps.pending = append(ps.pending, line...)
}

func (own *owner) finish(c *child) {
	if ps := c.pipes; ps != nil && !ps.finished {
		ps.finished = true
		own.dirty = append(own.dirty, ps)
	}
}

func (own *owner) flush() {
	for _, ps := range own.dirty {
		ps.flush()
	}
	clear(own.dirty)
	own.dirty = own.dirty[:0]
}

func (own *owner) signal(c *child, sig syscall.Signal) { own.order(order{Child: c.n, Sig: sig}) }

func (own *owner) settle(it *item, r result) { it.done <- r }

func (own *owner) progress(it *item, body []byte) {
	if err := it.work.Progress(body); err != nil {
		own.pool.o.Logger.Debug("an intermediate reply could not be sent", "item", it.work.Item, "error", err)
	}
}
