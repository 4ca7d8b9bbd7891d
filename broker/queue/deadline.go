package queue

import (
	"container/heap"
	"time"
)

// deadlines are leases by deadline. Nearly all have the same timeout, so that each new one ends last: those stand in line, where
// it costs nothing to come or go. The others are in a heap.
type deadlines struct {
	head, tail *lease // the line
	h          leaseHeap
}

// inEnds is where a lease is among the deadlines.
type inEnds struct {
	inLine        bool
	ahead, behind *lease // in the line
	at            int    // index in the heap; -1: it is not there
}

func (e *inEnds) listed() bool { return e.inLine || e.at >= 0 }

func (d *deadlines) len() int {
	n := len(d.h)
	for l := d.head; l != nil; l = l.behind {
		n++
	}
	return n
}

// first is the lease that ends first; nil: none has a deadline.
func (d *deadlines) first() *lease {
	switch {
	case len(d.h) == 0:
		return d.head
	case d.head == nil || d.h[0].deadline.Before(d.head.deadline):
		return d.h[0]
	}
	return d.head
}

func (d *deadlines) push(l *lease) {
	if d.tail != nil && l.deadline.Before(d.tail.deadline) {
		heap.Push(&d.h, l)
		return
	}
	l.inLine, l.ahead = true, d.tail
	if d.tail != nil {
		d.tail.behind = l
	} else {
		d.head = l
	}
	d.tail = l
}

func (d *deadlines) move(l *lease, to time.Time) {
	d.remove(l)
	l.deadline = to
	d.push(l)
}

func (d *deadlines) remove(l *lease) {
	switch {
	case l.at >= 0:
		heap.Remove(&d.h, l.at)
		return
	case !l.inLine:
		return
	}
	if l.ahead != nil {
		l.ahead.behind = l.behind
	} else {
		d.head = l.behind
	}
	if l.behind != nil {
		l.behind.ahead = l.ahead
	} else {
		d.tail = l.ahead
	}
	l.inLine, l.ahead, l.behind = false, nil, nil
}

type leaseHeap []*lease

func (h leaseHeap) Len() int           { return len(h) }
func (h leaseHeap) Less(i, j int) bool { return h[i].deadline.Before(h[j].deadline) }
func (h leaseHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *leaseHeap) Push(x any) {
	l := x.(*lease)
	l.at = len(*h)
	*h = append(*h, l)
}

func (h *leaseHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	l.at = -1
	return l
}
