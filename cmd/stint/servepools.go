package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"stint/processor/pool"
)

// pools are those of a configuration, at work in the process of the broker. Each has a connection of its own, so that the broker
// notices its end as that of any other processor.
type pools struct {
	list   atomic.Pointer[[]*pool.Pool] // nil until they have been started
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

// startPools starts the pools. What is wrong with one of them now is an error; one that fails later is said in the log, and the
// broker goes on.
func (h *house) startPools() error {
	ctx, cancel := context.WithCancel(context.Background())
	h.pools.cancel = cancel
	var list []*pool.Pool
	for i := range h.config.Pools {
		o, err := h.config.Pools[i].options()
		if err != nil {
			return fmt.Errorf("%s: %w", poolPath(i), err)
		}
		if o.Name == "" && len(h.config.Pools) > 1 {
			o.Name = fmt.Sprintf("%s-%d", pool.DefaultName(), i+1)
		}
		o.Logger, o.Output = h.log, os.Stderr
		p, err := pool.New(o)
		if err != nil {
			return fmt.Errorf("%s: %w", poolPath(i), err)
		}
		nc, err := h.poolConn(o.Name)
		if err != nil {
			return fmt.Errorf("%s: %w", poolPath(i), err)
		}
		list = append(list, p)
		h.pools.ended.Go(func() {
			defer nc.Close()
			if err := p.Run(ctx, nc); err != nil {
				h.log.Error("a pool has ended; the broker goes on without it", "pool", poolPath(i), "error", err)
			}
		})
	}
	h.pools.list.Store(&list)
	return nil
}

// poolConn is a connection as the broker's own.
func (h *house) poolConn(name string) (*nats.Conn, error) {
	options := []nats.Option{nats.Name("stint pool " + name), nats.MaxReconnects(-1), nats.ReconnectWait(reconnectWait)}
	if h.server != nil {
		return h.server.connect(options...)
	}
	own, err := h.config.NATS.options()
	if err != nil {
		return nil, err
	}
	nc, err := nats.Connect(h.config.NATS.URL, append(own, options...)...)
	if err != nil {
		return nil, failf(exitConnect, "cannot connect to the NATS server of nats.url, %s: %w", redactURLs(h.config.NATS.URL), err)
	}
	return nc, nil
}

func (h *house) reloadPools() {
	list := h.pools.list.Load()
	if list == nil {
		return
	}
	for _, p := range *list {
		p.Reload()
	}
}

// stop waits until all pools have given back what they cannot finish.
func (p *pools) stop() {
	if p.cancel != nil {
		p.cancel()
	}
	p.ended.Wait()
}
