package pool

import (
	"syscall"
	"time"

	"stint/processor"
)

// item is an item in the pool's hands. Its handler waits for done; the rest belongs to the roster.
type item struct {
	work    *processor.Work
	line    []byte // for a child
	limit   int    // where the line has its deadline
	timeout time.Duration
	done    chan result // has room for one

	child   *child // that has it; nil: it waits
	from    int64  // where its line begins in all that the child was written
	ends    time.Time
	began   time.Time
	release bool // whatever becomes of the child, the item goes back
	settled bool
}

// result is what becomes of an item.
type result struct {
	body    []byte
	headers map[string][]string
	err     error
}

// state is where a child is in its life.
type state uint8

const (
	starting state = iota // it gets no work until it has shown that it lives
	working               // it may get work
	retiring              // it gets no more work
	stopping              // it holds nothing and has been told to end
	doomed                // something is wrong with it: it has been sent SIGTERM
)

var stateNames = [...]string{"starting", "working", "retiring", "stopping", "killed"}

// child is a process of the pool, for the roster. The part that moves bytes is in pipes, which the roster does not look at.
type child struct {
	n         int
	state     state
	good      bool // it has said ready, answered something, or lived for a while
	saysReady bool
	born      time.Time
	idle      time.Time // since when
	held      []*item   // in the order of their lines; the first is in hand
	written   int64     // bytes of lines
	handled   int64
	pid       int
	memory    int64
	reported  []byte // its last stats

	verdict error // doomed: why
	guilty  *item // doomed: the item it was at
	killAt  time.Time
	last    bool // killAt is for SIGKILL, or there is no more to do

	pipes *pipes
}

func (c *child) head() *item {
	if len(c.held) == 0 {
		return nil
	}
	return c.held[0]
}

// room is how many items it can be given.
func (c *child) room(ahead, maxUse int) int {
	if c.state != working {
		return 0
	}
	n := ahead - len(c.held)
	if maxUse > 0 {
		n = min(n, maxUse-int(c.handled)-len(c.held))
	}
	return n
}

// pop takes the first item out.
func (c *child) pop() {
	c.held[0].child = nil
	c.held[0] = nil
	c.held = c.held[1:]
}

// effects is what the roster has done to the world.
type effects interface {
	// start makes the process of a child. gone follows, sooner or later.
	start(c *child)
	// write sends a line. It keeps nothing of it.
	write(c *child, line []byte)
	// finish closes what the child reads from, behind all that was written.
	finish(c *child)
	// signal is for the child and its group.
	signal(c *child, sig syscall.Signal)
	// settle tells the item's handler. It is called once for each item.
	settle(it *item, r result)
	// progress passes an intermediate reply on.
	progress(it *item, body []byte)
}
