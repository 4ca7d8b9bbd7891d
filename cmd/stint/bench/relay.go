package bench

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

// relay makes the hops of a broker and remembers nothing of an item. With no processors it only accepts.
type relay struct {
	nc     *nats.Conn
	failed chan error // of size 1
}

// start subscribes for every queue. The tokens of a queue stand for the processors' room; they are put in so that
// processors take turns.
func (r *relay) start(s *spec) error {
	for i, address := range s.Queues {
		q := &relayQueue{relay: r, prefix: "relay." + strconv.Itoa(i) + "."}
		if s.Processors > 0 {
			q.tokens = make(chan int, s.Processors*s.Capacity)
		}
		for range s.Capacity {
			for p := range s.Processors {
				q.tokens <- p
			}
		}
		for p := range s.Processors {
			q.processors = append(q.processors, processorSubject(p))
		}
		if err := listen(r.nc, address, q.take); err != nil {
			return err
		}
		if err := listen(r.nc, q.prefix+">", q.answer); err != nil {
			return err
		}
	}
	return r.nc.FlushTimeout(setupLimit)
}

func (r *relay) fail(err error) {
	select {
	case r.failed <- err:
	default: // the first one is enough
	}
}

// relayQueue is one address. Its two callbacks each have a goroutine.
type relayQueue struct {
	*relay
	prefix     string // of the reply subjects of work: prefix<processor>.<item>.<the sender's reply subject>
	processors []string
	tokens     chan int // room: indexes of processors; nil without processors
	taken      uint64   // the number of the last item; take's own
}

// take passes an item on to a processor that has room, waiting for one, and then accepts it.
func (q *relayQueue) take(m *nats.Msg) {
	q.taken++
	if q.tokens != nil {
		p := <-q.tokens
		reply := q.prefix + strconv.Itoa(p) + "." + strconv.FormatUint(q.taken, 36) + "." + m.Reply
		if err := q.nc.PublishMsg(&nats.Msg{Subject: q.processors[p], Reply: reply, Data: m.Data}); err != nil {
			q.fail(fmt.Errorf("passing on an item: %w", err))
		}
	}
	notice := wire.Accepted(q.taken, false)
	if err := q.nc.Publish(m.Header.Get(wire.HeaderAcceptedReply), notice); err != nil {
		q.fail(fmt.Errorf("accepting an item: %w", err))
	}
}

// answer passes a processor's answer on to the sender.
func (q *relayQueue) answer(m *nats.Msg) {
	parts := strings.SplitN(strings.TrimPrefix(m.Subject, q.prefix), ".", 3)
	p, err := strconv.Atoi(parts[0])
	if err != nil || len(parts) < 3 || p < 0 || p >= len(q.processors) {
		q.fail(fmt.Errorf("an answer came to %s", m.Subject))
		return
	}
	select {
	case q.tokens <- p:
	default:
		q.fail(fmt.Errorf("more answers than work came from %s", q.processors[p]))
	}
	if err := q.nc.Publish(parts[2], m.Data); err != nil {
		q.fail(fmt.Errorf("passing on an answer: %w", err))
	}
}
