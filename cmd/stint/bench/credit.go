package bench

import (
	"fmt"
	"strconv"
	"sync/atomic"

	"github.com/nats-io/nats.go"
)

// largestGrant is how many answers one grant allows at most: few enough that the backlog hardly moves, and enough that
// granting costs next to nothing.
const largestGrant = 64

// credit lets a processor answer as many items as the sender has added, so that a backlog keeps its length. Any number of
// goroutines may take.
type credit struct {
	left atomic.Int64
	more chan struct{} // of size 1: there may be credit again
}

func newCredit(n int64) *credit {
	c := &credit{more: make(chan struct{}, 1)}
	c.left.Store(n)
	return c
}

// take waits for credit for one answer.
func (c *credit) take() {
	for c.left.Add(-1) < 0 {
		if c.left.Add(1) <= 0 {
			<-c.more
		}
	}
	if c.left.Load() > 0 {
		c.signal() // for another one that waits
	}
}

// tryTake takes credit for one answer if there is some now.
func (c *credit) tryTake() bool {
	if c.left.Add(-1) >= 0 {
		return true
	}
	if c.left.Add(1) > 0 {
		c.signal() // for another one that waits
	}
	return false
}

func (c *credit) give(n int64) {
	c.left.Add(n)
	c.signal()
}

func (c *credit) signal() {
	select {
	case c.more <- struct{}{}:
	default:
	}
}

func creditSubject(processor int) string { return "credit." + strconv.Itoa(processor) }

// listenForCredit begins with enough for a full hand, so that the flow never waits for a grant on its way.
func (p *processor) listenForCredit() error {
	p.credit = newCredit(int64(p.Capacity) + largestGrant)
	return listen(p.nc, creditSubject(p.Index), func(m *nats.Msg) {
		n, err := strconv.ParseInt(string(m.Data), 10, 64)
		if err != nil || n <= 0 {
			p.fail(fmt.Errorf("a grant came that is not one: %.80q", m.Data))
			return
		}
		p.credit.give(n)
	})
}

// grant gives credit for what was added since the last grant, to one processor after the other. added counts from 1.
func (s *sender) grant(added int64) error {
	step := min(largestGrant, (int64(s.Window)+1)/2)
	if added%step != 0 {
		return nil
	}
	return s.giveCredit(int(added/step%int64(s.Processors)), step)
}

// grantAll lets the processors go, when nothing more is added.
func (s *sender) grantAll() error {
	for p := range s.Processors {
		if err := s.giveCredit(p, MaxItems); err != nil {
			return err
		}
	}
	return nil
}

func (s *sender) giveCredit(processor int, n int64) error {
	if err := s.nc.Publish(creditSubject(processor), strconv.AppendInt(nil, n, 10)); err != nil {
		return fmt.Errorf("granting credit to a processor: %w", err)
	}
	return nil
}
