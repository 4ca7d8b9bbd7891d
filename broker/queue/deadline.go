package queue

import (
	"container/heap"
	"time"
)

// deadlines are leases by deadline. Nearly all have the same timeout, so that each new one ends last: those stand in line, where
// it costs nothing to come or go. The others are in a heap.
type deadlines struct {
	line leaseList
	h    leaseHeap
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
