package pool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"syscall"
	"time"

	"stint/processor"
)

// Times of the rules that nobody needs to set.
const (
	settleTime    = time.Second      // a child that has lived so long is good, unless the pool's children say ready
	readyTime     = 30 * time.Second // the same for those that do
	longLife      = 10 * time.Second // who dies after this has not died of its start
	firstBackoff  = 100 * time.Millisecond
	maxBackoff    = 30 * time.Second
	maxHold       = time.Second     // items wait so long for a child that can be started again
	maxRelease    = 5 * time.Second // and are given back for so long
	freeDeaths    = 3               // deaths in a row of good children without a backoff
	maxSuspects   = 1000            // items that have killed a child and are remembered
	deathLogEvery = time.Second
	loopLogEvery  = time.Minute
)

// roster is the rules of a pool in mode Lines: who gets which item, who is started, who has to go. It has no goroutine, clock,
// lock or input and output; what it wants done it says to effects.
type roster struct {
	o        Options
	do       effects
	log      *slog.Logger
	children []*child // all that are not gone, in the order of their numbers
	waiting  []*item
	last     int  // number given to a child
	draining bool // no more items
	wake     time.Time

	saysReady bool      // some child has said ready
	streak    int       // deaths in a row without an answer between
	looping   bool      // the children die and die
	notBefore time.Time // for the next start
	suspects  suspects

	roll      []*child // to be replaced
	candidate *child   // that is to replace the first of them
	leaving   *child   // a candidate that had to go since replacing began anew
	rollAt    time.Time

	counts counts
	deaths deathLog
}

// counts is since the start.
type counts struct {
	done, failed, rejected, returned int64
	started, died                    int64
}

func newRoster(o Options, do effects, now time.Time) *roster {
	r := &roster{o: o, do: do, log: o.Logger, suspects: suspects{kills: map[string]int{}}}
	if o.RollOver > 0 {
		r.rollAt = now.Add(o.RollOver)
		r.at(r.rollAt)
	}
	r.ensure(now)
	return r
}

// at asks for a tick.
func (r *roster) at(t time.Time) {
	if r.wake.IsZero() || t.Before(r.wake) {
		r.wake = t
	}
}

// arrive is an item that the broker has given us.
func (r *roster) arrive(now time.Time, it *item) {
	if r.draining {
		r.giveBack(it, 0)
		return
	}
	if wait := r.notBefore.Sub(now); wait > maxHold && r.live() == 0 {
		r.giveBack(it, min(wait, maxRelease))
		return
	}
	r.waiting = append(r.waiting, it)
	if !r.looping && r.live() < r.o.Children && !r.crowded() && !r.idleChild() {
		r.start(now, working)
	}
	r.place(now)
}

// abandon is the end of a handler's context. A lease that is lost changes nothing for a child that is at work: its answer may
// still be the first.
func (r *roster) abandon(now time.Time, it *item, cause error) {
	shutdown := errors.Is(cause, processor.ErrShutdown)
	switch {
	case it.settled:
	case it.child == nil:
		r.waiting = slices.DeleteFunc(r.waiting, func(w *item) bool { return w == it })
		if shutdown {
			r.giveBack(it, 0)
		} else {
			r.settle(it, result{err: cause})
		}
	case shutdown:
		it.release = true
		r.doom(now, it.child, cause, syscall.SIGKILL)
		r.ensure(now)
	}
}

func (r *roster) giveBack(it *item, delay time.Duration) {
	r.counts.returned++
	r.settle(it, result{err: processor.Release(delay)})
}

func (r *roster) settle(it *item, res result) {
	it.settled = true
	r.do.settle(it, res)
}

// live counts the children that have work or may get it.
func (r *roster) live() (n int) {
	for _, c := range r.children {
		if c.state == working || c.state == starting && c != r.candidate {
			n++
		}
	}
	return n
}

func (r *roster) idleChild() bool {
	return slices.ContainsFunc(r.children, func(c *child) bool {
		return len(c.held) == 0 && c.room(r.o.Ahead, r.o.MaxUseCount) > 0
	})
}

// place hands out what waits, to the child that has least; the eldest of equals, so that the others may go idle.
func (r *roster) place(now time.Time) {
	placed := 0
	for _, it := range r.waiting {
		c := r.best()
		if c == nil {
			break
		}
		r.give(now, c, it)
		placed++
	}
	r.waiting = slices.Delete(r.waiting, 0, placed)
	r.ensure(now)
}

func (r *roster) best() *child {
	var best *child
	for _, c := range r.children {
		if c.room(r.o.Ahead, r.o.MaxUseCount) < 1 || best != nil && len(best.held) <= len(c.held) {
			continue
		}
		if best = c; len(c.held) == 0 {
			break
		}
	}
	return best
}

func (r *roster) give(now time.Time, c *child, it *item) {
	it.child, it.from = c, c.written
	c.written += int64(len(it.line))
	c.held = append(c.held, it)
	if it.timeout > 0 {
		setDeadline(it.line, it.limit, now.Add(it.timeout).UnixMilli())
	}
	r.do.write(c, it.line)
	if len(c.held) == 1 {
		r.begin(now, it)
	}
}

// begin starts the clock of the item that is a child's turn now.
func (r *roster) begin(now time.Time, it *item) {
	it.began = now
	r.extend(now, it)
}

func (r *roster) extend(now time.Time, it *item) {
	if it.timeout > 0 {
		it.ends = now.Add(it.timeout)
		r.at(it.ends)
	}
}

// ensure starts children that are missing: up to the least number, and for work that nobody has room for. After deaths one is
// tried at a time, and not before its time.
func (r *roster) ensure(now time.Time) {
	for !r.draining && !r.crowded() {
		live := r.live()
		if live >= r.o.Children || live >= r.o.MinChildren && len(r.waiting) == 0 {
			return
		}
		if r.notBefore.After(now) {
			r.at(r.notBefore)
			return
		}
		if !r.looping {
			r.start(now, working)
			r.placeOn(now)
			continue
		}
		if !slices.ContainsFunc(r.children, func(c *child) bool { return c.state == starting }) {
			r.start(now, starting)
		}
		return
	}
}

// crowded bounds the processes that are there at one time, those that are ending included: twice Children and
// one.
func (r *roster) crowded() bool { return len(r.children) > 2*r.o.Children }

// placeOn gives what waits to the child that was just started.
func (r *roster) placeOn(now time.Time) {
	c := r.children[len(r.children)-1]
	n := min(max(c.room(r.o.Ahead, r.o.MaxUseCount), 0), len(r.waiting))
	for _, it := range r.waiting[:n] {
		r.give(now, c, it)
	}
	r.waiting = slices.Delete(r.waiting, 0, n)
}

// start makes a child. In a loop of deaths it has to show that it lives before it gets work, so that a program that is
// broken spends no more attempts of items.
func (r *roster) start(now time.Time, s state) *child {
	if r.looping {
		s = starting
	}
	r.last++
	r.counts.started++
	c := &child{n: r.last, state: s, born: now, idle: now}
	r.children = append(r.children, c)
	r.do.start(c)
	line := appendStart(nil, r.o.Address, c.n, c.n == 1)
	c.written += int64(len(line))
	r.do.write(c, line)
	r.at(now.Add(r.settleTime()))
	r.idleFrom(now, c)
	return c
}

func (r *roster) settleTime() time.Duration {
	if r.saysReady {
		return readyTime
	}
	return settleTime
}

func (r *roster) idleFrom(now time.Time, c *child) {
	c.idle = now
	if r.o.IdleTimeout > 0 {
		r.at(now.Add(r.o.IdleTimeout))
	}
}

// answers is what a child has said.
func (r *roster) answers(now time.Time, c *child, all []answer) {
	for i := range all {
		if err := r.answer(now, c, &all[i]); err != nil {
			r.doom(now, c, err, syscall.SIGTERM)
			break
		}
	}
	r.place(now)
}

func (r *roster) answer(now time.Time, c *child, a *answer) error {
	switch a.kind {
	case answerReady:
		r.saysReady, c.saysReady = true, true
		r.proven(now, c)
		return nil
	case answerStats:
		c.reported = a.stats
		return nil
	case answerLog:
		r.log.Log(context.Background(), level(a.level), "a child says", "child", c.n, "message", clip(a.message, maxLogged))
		return nil
	}
	it := c.head()
	switch {
	case it == nil:
		return errors.New("the child answers although it has no item")
	case a.id != "" && a.id != it.work.Item:
		return fmt.Errorf("the child answers to %.40q while it has item %s", a.id, it.work.Item)
	case a.kind == answerProgress:
		r.extend(now, it)
		r.do.progress(it, a.body)
	case a.kind == answerExtend:
		r.extend(now, it)
	default:
		r.outcome(now, c, it, a)
	}
	return nil
}

// outcome is the end of the item in a child's hand.
func (r *roster) outcome(now time.Time, c *child, it *item, a *answer) {
	c.pop()
	c.handled++
	r.proven(now, c)
	r.answered(now, it)
	if a.kind == answerDone {
		r.counts.done++
		r.settle(it, result{body: a.body, headers: a.headers})
	} else {
		r.counts.failed++
		r.settle(it, result{err: a.failure()})
	}
	r.next(now, c)
}

// next is the rest of a child's life after an item.
func (r *roster) next(now time.Time, c *child) {
	if it := c.head(); it != nil {
		r.begin(now, it)
		return
	}
	r.idleFrom(now, c)
	used := r.o.MaxUseCount > 0 && c.handled >= int64(r.o.MaxUseCount)
	if c.state == retiring || c.state == working && (used || r.draining) {
		r.stop(now, c)
	}
}

// failure is the error for a failed line.
func (a *answer) failure() error {
	text := a.message
	switch {
	case text == "" && a.code == "":
		text = "the child said failed and no more"
	case text == "":
		text = a.code
	case a.code != "":
		text = a.code + ": " + text
	}
	switch err := errors.New(text); {
	case a.final:
		return processor.Reject(err)
	case a.delayed:
		return processor.Retry(err, a.delay)
	default:
		return err
	}
}

// proven is a sign that a child works.
func (r *roster) proven(now time.Time, c *child) {
	if c.good {
		return
	}
	c.good = true
	if c.state == starting {
		c.state = working
		r.idleFrom(now, c)
	}
	if c == r.candidate {
		r.replaced(now, c)
	}
}

// answered ends a streak of deaths: the children work.
func (r *roster) answered(now time.Time, it *item) {
	r.suspects.clear(it.work.Item)
	if r.streak > 0 {
		r.deaths.over(r.log, r.streak)
		r.streak, r.looping, r.notBefore = 0, false, time.Time{}
	}
}

// stop asks a child that holds nothing to end.
func (r *roster) stop(now time.Time, c *child) {
	c.state = stopping
	r.do.write(c, []byte(stopLine))
	r.do.finish(c)
	r.killLater(now, c)
}

// retire ends a child when it has finished what it holds.
func (r *roster) retire(now time.Time, c *child) {
	if c.state > working {
		return
	}
	c.state = retiring
	if len(c.held) == 0 {
		r.stop(now, c)
	}
}

// doom ends a child that something is wrong with. The item in its hand is settled when it is gone, so that nobody else has it
// before.
func (r *roster) doom(now time.Time, c *child, why error, sig syscall.Signal) {
	if c.state == doomed {
		if sig == syscall.SIGKILL {
			r.kill(c)
		}
		return
	}
	c.state, c.verdict, c.guilty = doomed, why, c.head()
	if sig == syscall.SIGKILL {
		r.kill(c)
		return
	}
	r.do.signal(c, sig)
	r.killLater(now, c)
	c.last = true
}

func (r *roster) killLater(now time.Time, c *child) {
	c.killAt = now.Add(r.o.ExitTimeout)
	r.at(c.killAt)
}

func (r *roster) kill(c *child) {
	r.do.signal(c, syscall.SIGKILL)
	c.killAt = time.Time{}
}

// unfit is for what the child's output has come to: it cannot be read, or has ended.
func (r *roster) unfit(now time.Time, c *child, err error) {
	if c.state == stopping || c.state == doomed {
		return
	}
	r.doom(now, c, err, syscall.SIGTERM)
	r.ensure(now)
}

// drain begins the end: what waits goes back, who has nothing to do stops.
func (r *roster) drain(now time.Time) {
	r.draining = true
	r.roll, r.candidate, r.rollAt = nil, nil, time.Time{}
	for _, it := range r.waiting {
		r.giveBack(it, 0)
	}
	r.waiting = nil
	for _, c := range r.children {
		if c.state <= retiring && len(c.held) == 0 {
			r.stop(now, c)
		}
	}
}

// abort ends all children that are left, the youngest first: the guard would start one that waits for another to end. The handlers
// have gone.
func (r *roster) abort(now time.Time) {
	if !r.draining {
		r.drain(now)
	}
	for _, c := range slices.Backward(r.children) {
		if c.state != stopping {
			r.doom(now, c, processor.ErrShutdown, syscall.SIGKILL)
		}
	}
}

// askStats asks the children that can be expected to understand.
func (r *roster) askStats() {
	for _, c := range r.children {
		if c.saysReady && c.state <= retiring {
			c.written += int64(len(statsLine))
			r.do.write(c, []byte(statsLine))
		}
	}
}

// tick does what is due, and finds out when to do so again.
func (r *roster) tick(now time.Time) {
	r.wake = time.Time{}
	if !r.rollAt.IsZero() && !r.rollAt.After(now) {
		r.rollAt = now.Add(r.o.RollOver)
		r.replaceAll(now, "roll-over")
	}
	for _, c := range slices.Clone(r.children) {
		r.tickChild(now, c)
	}
	r.place(now)
	if !r.rollAt.IsZero() {
		r.at(r.rollAt)
	}
}

func (r *roster) tickChild(now time.Time, c *child) {
	due := func(t time.Time) bool {
		if !t.After(now) {
			return true
		}
		r.at(t)
		return false
	}
	if !c.killAt.IsZero() && due(c.killAt) {
		r.press(now, c)
	}
	if it := c.head(); it != nil && !it.ends.IsZero() && c.state != doomed && due(it.ends) {
		err := fmt.Errorf("no answer from the child after %v", it.timeout)
		r.doom(now, c, err, syscall.SIGTERM)
	}
	if !c.good && c.state <= working && due(c.born.Add(r.settleTime())) {
		r.proven(now, c)
	}
	if r.o.IdleTimeout > 0 && c.state == working && len(c.held) == 0 && r.live() > r.o.MinChildren && due(c.idle.Add(r.o.IdleTimeout)) {
		r.stop(now, c)
	}
}

// press is the next step against a child that does not end.
func (r *roster) press(now time.Time, c *child) {
	if c.last {
		r.kill(c)
		return
	}
	c.last = true
	r.do.signal(c, syscall.SIGTERM)
	r.killLater(now, c)
}

// measured is how much memory a child and all below it take.
func (r *roster) measured(now time.Time, c *child, bytes int64) {
	c.memory = bytes
	switch limit := r.o.MaxMemory; {
	case limit == 0 || bytes <= limit:
	case bytes > limit+limit/2 && len(c.held) > 0:
		err := fmt.Errorf("the child took %d bytes of memory, half as much again as max_memory allows", bytes)
		r.doom(now, c, err, syscall.SIGKILL)
	case c.state <= working:
		r.log.Warn("a child has more memory than it may, and is replaced", "child", c.n, "memory", bytes, "max_memory", limit)
		r.retire(now, c)
	}
	r.ensure(now)
}
