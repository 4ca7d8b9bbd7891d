package main

import (
	"fmt"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

// door lets clients in while the broker starts. A processor that has finished its work while there was no server keeps
// the answer and sends it the moment it is connected; where nobody is subscribed the answer would be lost, and its item
// left to the process timeout. (A sender is told by the server that nobody is there, and so is whoever registers.)
//
// If the broker connects inside the process, the server listens only when the broker has subscribed. Over TCP it cannot
// connect before the server listens, so a connection inside the process keeps the answers until then. An answer that
// reaches both is taken twice, of which the second changes nothing: it is for an attempt that has ended.
type door struct {
	server *embedded
	nc     *nats.Conn // nil: nothing is kept
	subs   []*nats.Subscription
	kept   chan *nats.Msg
}

// doorRoom is how many answers are kept at most.
const doorRoom = 64 << 10

// newDoor prepares for a broker that connects next.
func newDoor(e *embedded, addresses []string) (*door, error) {
	d := &door{server: e}
	if e.login.inside {
		return d, nil
	}
	if len(e.login.options) == 0 { // the operator's own user may not do this
		if err := d.keep(addresses); err != nil {
			return nil, err
		}
	}
	return d, e.listen()
}

func (d *door) keep(addresses []string) error {
	nc, err := nats.Connect("", nats.InProcessServer(d.server.server), nats.NoReconnect())
	if err != nil {
		return fmt.Errorf("connecting to the NATS server inside the process: %w", err)
	}
	d.nc, d.kept = nc, make(chan *nats.Msg, doorRoom)
	for _, a := range addresses {
		sub, err := nc.ChanSubscribe(wire.LeasePattern(a), d.kept)
		if err != nil {
			return fmt.Errorf("subscribing to answers of queue %s: %w", a, err)
		}
		d.subs = append(d.subs, sub)
	}
	if err := nc.Flush(); err != nil {
		return fmt.Errorf("subscribing to answers: %w", err)
	}
	return nil
}

// open lets clients in for good, when the broker has subscribed: it hears what was kept.
func (d *door) open() error {
	if d.server.login.inside {
		return d.server.listen()
	}
	if d.nc == nil {
		return nil
	}
	defer d.nc.Close()
	// What the server has given out so far is here after this; what comes later has reached the broker too. The
	// subscriptions end only then, for with them goes what is still on its way.
	if err := d.nc.Flush(); err != nil {
		return fmt.Errorf("waiting for kept answers: %w", err)
	}
	for _, s := range d.subs {
		if err := s.Unsubscribe(); err != nil {
			return fmt.Errorf("ending the keeping of answers: %w", err)
		}
	}
	for len(d.kept) > 0 {
		if err := d.nc.PublishMsg(<-d.kept); err != nil {
			return fmt.Errorf("passing a kept answer on: %w", err)
		}
	}
	if err := d.nc.Flush(); err != nil {
		return fmt.Errorf("passing kept answers on: %w", err)
	}
	return nil
}
