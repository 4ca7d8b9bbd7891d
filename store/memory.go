package store

import (
	"fmt"
	"math/rand/v2"
	"sync"

	"stint/store/internal/inbox"
)

// memoryRoom is how many batches may wait for the memory engine. Queues have one batch under way each, so it is full
// only with more queues than that.
const memoryRoom = 256

// Memory is the engine whose queues end with the process. It obeys the whole contract but for what survives.
//
// One goroutine applies the batches in the order of their submission and calls their Done, so the broker sees the same
// course as with a disk: nothing is done within Submit. The lock of a queue is there for the reads, which come from
// other goroutines; an owner goroutine for reads would make each of them wait behind the batches.
//
// What bounds its size is the queue's limits, which the rules enforce; it has none of its own.
type Memory struct {
	epoch uint32
	in    *inbox.Inbox[memoryWork]
	ended chan struct{}

	mu     sync.Mutex // guards queues and closed
	queues map[string]*memoryQueue
	closed bool
}

type memoryWork struct {
	q *memoryQueue
	b *Batch
}

// NewMemory makes a database in memory. Its epoch is random, 24 bits, so that the ids of two runs differ. The health
// function is never called: memory does not fill or fail in a way that can be told.
func NewMemory(Health) DB {
	m := &Memory{
		epoch:  1 + rand.Uint32N(1<<24-1),
		in:     inbox.New[memoryWork](memoryRoom),
		ended:  make(chan struct{}),
		queues: make(map[string]*memoryQueue),
	}
	go m.run()
	return m
}

func (m *Memory) run() {
	defer close(m.ended)
	for w := range m.in.C() {
		err := w.b.Check()
		if err == nil {
			w.q.apply(w.b.Ops)
		}
		w.b.Done(err)
	}
}

// Queue implements [DB].
func (m *Memory) Queue(name string) (Queue, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.closed:
		return nil, fmt.Errorf("queue %q: %w", name, ErrClosed)
	case name == "":
		return nil, fmt.Errorf("%w: a queue needs a name", ErrInvalid)
	case m.queues[name] != nil:
		return nil, fmt.Errorf("%w: queue %q is in use already; give each queue a collection of its own", ErrInvalid, name)
	}
	q := newMemoryQueue(m)
	m.queues[name] = q
	return q, nil
}

// Close implements [DB].
func (m *Memory) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.in.Close()
	<-m.ended
	return nil
}
