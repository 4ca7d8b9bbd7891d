// Package inbox is the way of work into an engine: many goroutines put, one takes, and closing loses nothing.
//
// A plain channel cannot be closed while others send. The lock here is held for reading by those who put and for
// writing by the one who closes, so a value is either refused or certainly taken. No owner goroutine would do instead:
// it would be a second hop in front of the one that writes.
package inbox

import "sync"

// Inbox carries values to one taker. Make it with [New].
type Inbox[T any] struct {
	mu     sync.RWMutex // guards closed, and C against being closed during a Put
	closed bool
	c      chan T
}

// New makes an inbox with room for that many values. Put waits while it is full.
func New[T any](room int) *Inbox[T] {
	return &Inbox[T]{c: make(chan T, room)}
}

// Put hands v over; false: the inbox is closed and v was not taken.
func (in *Inbox[T]) Put(v T) bool {
	in.mu.RLock()
	defer in.mu.RUnlock()
	if in.closed {
		return false
	}
	in.c <- v
	return true
}

// C is where the taker receives. It is closed, after all that was put, by Close.
func (in *Inbox[T]) C() <-chan T { return in.c }

// Close refuses what comes later. It waits for those that are within Put, so the taker must go on until C ends.
// False: it was closed before.
func (in *Inbox[T]) Close() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return false
	}
	in.closed = true
	close(in.c)
	return true
}
