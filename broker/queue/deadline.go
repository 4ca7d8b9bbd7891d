package queue

import (
	"container/heap"
	"time"

	"stint/internal/agenda"
)

// deadlines are leases by deadline. Nearly all have the same timeout, so that each new one ends last: those stand in line, where
// it costs nothing to come or go. The others are in a heap.
type deadlines struct {
	line leaseList
	h    agenda.Heap[*lease]
}

func newDeadlines() deadlines { return deadlines{line: leaseList{kind: inLine}} }

// first is the lease that ends first; nil: none has a deadline.
func (d *deadlines) first() *lease {
	switch {
	case len(d.h) == 0:
		return d.line.head
	case d.line.head == nil || d.h[0].deadline.Before(d.line.head.deadline):
		return d.h[0]
	}
	return d.line.head
}

func (d *deadlines) push(l *lease) {
	if last := d.line.tail; last != nil && l.deadline.Before(last.deadline) {
		heap.Push(&d.h, l)
		return
	}
	d.line.push(l)
}

func (d *deadlines) move(l *lease, to time.Time) {
	d.remove(l)
	l.deadline = to
	d.push(l)
}

func (d *deadlines) remove(l *lease) {
	if l.at >= 0 {
		heap.Remove(&d.h, l.at)
		return
	}
	d.line.remove(l)
}

// When implements agenda.Entry.
func (l *lease) When() time.Time { return l.deadline }

// Index implements agenda.Entry.
func (l *lease) Index() *int { return &l.at }
