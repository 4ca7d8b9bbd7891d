package pool

import (
	"fmt"
	"slices"
	"time"

	"stint/processor"
)

// How children are replaced: all of them one by one, and each of them when it has ended.

// replaceAll replaces all children by new ones, one at a time.
func (r *roster) replaceAll(now time.Time, why string) {
	if r.draining {
		return
	}
	if r.candidate != nil { // it may be of a version before: another is tried when it is gone
		r.leaving, r.candidate = r.candidate, nil
		r.retire(now, r.leaving)
	}
	r.roll = nil
	for _, c := range r.children {
		if c.state <= working {
			r.roll = append(r.roll, c)
		}
	}
	r.log.Info("the children are replaced one by one", "why", why, "children", len(r.roll))
	if r.leaving == nil {
		r.stepRoll(now)
	}
	r.place(now)
}

// stepRoll starts the next replacement.
func (r *roster) stepRoll(now time.Time) {
	if r.draining {
		return
	}
	for len(r.roll) > 0 && r.roll[0].state > working {
		r.roll = r.roll[1:]
	}
	if len(r.roll) == 0 {
		r.log.Info("all children have been replaced")
		return
	}
	if !r.crowded() { // otherwise when somebody is gone
		r.candidate = r.start(now, starting)
	}
}

// replaced is the first good sign of a replacement: the old child goes, and the next one's turn comes.
func (r *roster) replaced(now time.Time, c *child) {
	old := r.roll[0]
	r.roll, r.candidate = r.roll[1:], nil
	if r.retire(now, old); r.live() > r.o.Children {
		r.retire(now, c) // the old one had died meanwhile, and another has its place
	}
	r.stepRoll(now)
}

// gone is the end of a child's process, of its group, and of all that it has said. read is how much of what it was written it
// has read; how says how it ended.
func (r *roster) gone(now time.Time, c *child, how error, read int64) {
	r.children = slices.DeleteFunc(r.children, func(x *child) bool { return x == c })
	asked := c.state == stopping
	if !asked {
		r.counts.died++
		if c.verdict == nil {
			c.verdict = how
		}
	}
	held := c.held
	c.held = nil
	lost := c.lost(held, read)
	var back []*item
	for _, it := range held {
		it.child = nil
		switch {
		case it.release:
			r.giveBack(it, 0)
		case it == lost:
			r.failed(it, c.verdict)
		default:
			back = append(back, it)
		}
	}
	r.again(back)
	if !asked {
		c.state = doomed
	}
	switch {
	case asked:
	case c == r.candidate:
		r.rollFailed(c)
	default:
		r.death(now, c)
	}
	if c == r.leaving {
		r.leaving = nil
	}
	if len(r.roll) > 0 && r.candidate == nil && r.leaving == nil {
		r.stepRoll(now)
	}
	if r.notBefore.Sub(now) > maxHold && r.live() == 0 {
		r.releaseAll(min(r.notBefore.Sub(now), maxRelease))
	}
	r.place(now)
}

// lost is the item that a child's end costs an attempt: the one it was at when it was doomed, or else the one in its hand, if
// it has read any of it.
func (c *child) lost(held []*item, read int64) *item {
	if c.state == doomed {
		if c.guilty != nil && !c.guilty.settled {
			return c.guilty
		}
		return nil
	}
	if len(held) > 0 && held[0].from < read {
		return held[0]
	}
	return nil
}

// again puts items that nobody began in front of what waits.
func (r *roster) again(back []*item) {
	if r.draining {
		for _, it := range back {
			r.giveBack(it, 0)
		}
		return
	}
	r.waiting = slices.Insert(r.waiting, 0, back...)
}

func (r *roster) releaseAll(delay time.Duration) {
	for _, it := range r.waiting {
		r.giveBack(it, delay)
	}
	r.waiting = nil
}

// failed is an item that has ended a child.
func (r *roster) failed(it *item, why error) {
	kills := r.suspects.add(it.work.Item)
	if r.o.MaxKills > 0 && kills >= r.o.MaxKills {
		r.suspects.clear(it.work.Item)
		r.counts.rejected++
		r.settle(it, result{err: processor.Reject(fmt.Errorf("the item ended %d children in a row: %w", kills, why))})
		return
	}
	r.counts.failed++
	r.settle(it, result{err: why})
}

func (r *roster) rollFailed(c *child) {
	left := len(r.roll)
	r.roll, r.candidate = nil, nil
	r.log.Error("the new child ended at its start: the others stay as they are", "child", c.n, "how", c.verdict, "not_replaced", left)
}

// death counts towards a streak. Good children may die a few times, as they do of bad items; others, and more, make a loop.
func (r *roster) death(now time.Time, c *child) {
	if now.Sub(c.born) >= longLife {
		r.streak = 0
	}
	r.streak++
	r.deaths.note(r.log, now, c, r.streak)
	free := 0
	if c.good {
		free = max(freeDeaths, r.o.Children)
	}
	if n := r.streak - free; n > 0 {
		r.looping = true
		r.notBefore = now.Add(min(firstBackoff<<min(n-1, 20), maxBackoff))
	}
}
