package broker

import (
	"context"
	"time"

	"stint/broker/queue"
)

const (
	// flushTimeout is how long one try may take. A connection that is lost ends it sooner, and one that hangs is ended by the
	// library's own pings.
	flushTimeout = 10 * time.Second
	flushPause   = 10 * time.Millisecond
)

// flushing is somebody who waits until the server has what was published over one connection.
type flushing struct {
	links uint64
	// done is called once, unless the broker stops before. sure: the server has it. Otherwise that connection is lost, and nobody
	// knows. It must not wait: others do.
	done func(sure bool)
}

// links numbers the connections: how many there were before. The library counts a new one before it sends anything over it.
func (b *bus) links() uint64 { return b.nc.Stats().Reconnects }

// ask sends a final, by publish, if an outside server says that somebody listens, and lets the actor know by the event that settled
// makes. known: that has taken no question.
func (b *bus) ask(a *actor, subject string, publish func(), settled func(queue.Outcome) queue.Event) (delivered, known bool) {
	if !b.nc.IsConnected() {
		return false, true
	}
	b.inquire(subject, func(listening bool) {
		if !listening {
			a.post(settled(queue.Outcome{}))
			return
		}
		links := b.links()
		publish()
		b.await(flushing{links, func(sure bool) { a.tell(settled(queue.Outcome{Delivered: sure, Unsure: !sure, Link: links})) }})
	})
	return false, false
}

// flush lets the actor know when the server has taken what was published so far, unless the connection that the actor knows of is
// lost: then it hears of that.
func (b *bus) flush(a *actor, token uint64) {
	f := flushing{a.q.Link(), func(sure bool) {
		if sure {
			a.tell(queue.Flushed{Token: token})
		}
	}}
	select {
	case b.flushes <- f:
	default:
		go b.await(f)
	}
}

// await has f done. It waits while too many are waiting. Their number is bounded by that of the finals under way.
func (b *bus) await(f flushing) {
	select {
	case b.flushes <- f:
	case <-b.ctx.Done():
	}
}

// flusher flushes for all who wait by then: a flush is a round trip to the server, whoever asks for it. It ends with the broker, or
// when the connection is closed for good.
func (b *bus) flusher() {
	var waiting []flushing
	for {
		if waiting = b.waiting(waiting); waiting == nil {
			return
		}
		ok := b.roundTrip()
		if b.ctx.Err() != nil || b.nc.IsClosed() {
			return
		}
		links := b.links()
		left := waiting[:0]
		for _, f := range waiting {
			switch {
			case f.links != links:
				f.done(false)
			case ok:
				f.done(true)
			default: // a slow server is no lost one
				left = append(left, f)
			}
		}
		clear(waiting[len(left):])
		waiting = left
		if !ok {
			select {
			case <-time.After(flushPause):
			case <-b.ctx.Done():
			}
		}
	}
}

// waiting adds those who have come. With none at all it waits for one; nil: the broker stops.
func (b *bus) waiting(w []flushing) []flushing {
	if len(w) == 0 {
		select {
		case f := <-b.flushes:
			w = append(w, f)
		case <-b.ctx.Done():
			return nil
		}
	}
	for {
		select {
		case f := <-b.flushes:
			w = append(w, f)
		default:
			return w
		}
	}
}

// roundTrip says whether the server has answered, on the connection that is there now.
func (b *bus) roundTrip() bool {
	ctx, cancel := context.WithTimeout(b.ctx, flushTimeout)
	defer cancel()
	return b.nc.FlushWithContext(ctx) == nil && b.nc.IsConnected()
}
