// Package agenda has a heap of what is to happen, what comes first on top. It keeps no time and wakes nobody.
package agenda

import "time"

// Entry is something that stands in a [Heap].
type Entry interface {
	// When is its time. It changes while the entry is in a heap only together with heap.Fix.
	When() time.Time
	// Index is where its place in the heap is kept, from 0; -1 once it has been taken out.
	Index() *int
}

// Heap is for package container/heap. The zero value is empty, and it is not bounded: whoever pushes sees to that.
type Heap[E Entry] []E

// Len implements heap.Interface.
func (h Heap[E]) Len() int { return len(h) }

// Less implements heap.Interface.
func (h Heap[E]) Less(i, j int) bool { return h[i].When().Before(h[j].When()) }

// Swap implements heap.Interface.
func (h Heap[E]) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	*h[i].Index(), *h[j].Index() = i, j
}

// Push implements heap.Interface.
func (h *Heap[E]) Push(x any) {
	e := x.(E)
	*e.Index() = len(*h)
	*h = append(*h, e)
}

// Pop implements heap.Interface.
func (h *Heap[E]) Pop() any {
	old := *h
	e := old[len(old)-1]
	var none E
	old[len(old)-1] = none
	*h = old[:len(old)-1]
	*e.Index() = -1
	return e
}
