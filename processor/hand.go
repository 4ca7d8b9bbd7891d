package processor

import (
	"sync"
	"time"
)

// hand is the set of items in hand. It bounds how many there are and knows when the last goroutine is gone.
//
// Two counts: an item takes a slot until its handler has returned, and its goroutine runs until the answer is
// published. Only the first is limited, see the package comment.
type hand struct {
	mu       sync.Mutex       //nolint:forbidigo // guards all of it: the subscription, N handlers and Run come here
	items    map[string]*Work // by item id: the attempt that came last
	slots    int              // free ones
	running  int              // goroutines
	quiet    time.Time        // since when no goroutine is there; zero: there are some
	draining bool
	empty    chan struct{} // closed when draining and no goroutine is left
}

type verdict uint8

const (
	taken verdict = iota
	full
	closing
	again
)

func newHand(capacity int) *hand {
	return &hand{items: make(map[string]*Work), slots: capacity, quiet: time.Now(), empty: make(chan struct{})}
}

// take gives w a slot if there is one. older is another attempt of the same item that is still in hand: its lease has
// ended, for the broker gives each item to one at a time. The same attempt may come again from a broker that was
// restarted; the handler that is at work on it goes on.
func (h *hand) take(w *Work) (v verdict, older *Work) {
	h.mu.Lock()
	defer h.mu.Unlock()
	older = h.items[w.Item]
	switch {
	case older != nil && older.Attempt == w.Attempt && older.held():
		return again, nil
	case h.draining:
		return closing, older
	case h.slots == 0:
		return full, older
	}
	h.slots--
	h.running++
	h.quiet = time.Time{}
	h.items[w.Item] = w
	return taken, older
}

// free gives the slot back: the handler has returned.
func (h *hand) free(w *Work) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.slots++
	if h.items[w.Item] == w {
		delete(h.items, w.Item)
	}
}

// leave is the last thing a goroutine does.
func (h *hand) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running--
	if h.running == 0 {
		h.quiet = time.Now()
	}
	h.closeIfEmpty()
}

// quietSince is since when there has been no work; zero while there is some.
func (h *hand) quietSince() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.quiet
}

// drain refuses what comes from now on. It is called once.
func (h *hand) drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.draining = true
	h.closeIfEmpty()
}

// closeIfEmpty closes once: after drain no goroutine is added.
func (h *hand) closeIfEmpty() {
	if h.draining && h.running == 0 {
		close(h.empty)
	}
}

// wait waits for the last goroutine after drain, for d at most, and says how many are left.
func (h *hand) wait(d time.Duration) (left int) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-h.empty:
		return 0
	case <-timer.C:
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.running
}

// all is the items in hand. An attempt that another has replaced is not among them: its context has ended.
func (h *hand) all() []*Work {
	h.mu.Lock()
	defer h.mu.Unlock()
	works := make([]*Work, 0, len(h.items))
	for _, w := range h.items {
		works = append(works, w)
	}
	return works
}
