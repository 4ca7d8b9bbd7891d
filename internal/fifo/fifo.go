// Package fifo has a list from which what was put in first is taken out first. It gives its memory back, but never bounds itself:
// whoever puts in does that.
package fifo

// List is such a list. The zero value is empty.
type List[T any] struct {
	items []T
	head  int
}

// keep is how many places may be empty in front before the rest is moved up.
const keep = 1024

// Len is how many are in the list.
func (l *List[T]) Len() int { return len(l.items) - l.head }

// Push puts one in.
func (l *List[T]) Push(x T) { l.items = append(l.items, x) }

// First is the one that is taken next. The list must not be empty.
func (l *List[T]) First() T { return l.items[l.head] }

// All is what is in the list, the next first. It is good until the list changes.
func (l *List[T]) All() []T { return l.items[l.head:] }

// Pop takes one out. The list must not be empty.
func (l *List[T]) Pop() T {
	x := l.items[l.head]
	var none T
	l.items[l.head] = none
	l.head++
	switch {
	case l.head < len(l.items) && (l.head < keep || l.head*2 < len(l.items)):
		return x
	case l.head == len(l.items) && cap(l.items) > 4*keep:
		l.items, l.head = nil, 0
		return x
	}
	n := copy(l.items, l.items[l.head:])
	clear(l.items[n:])
	l.items, l.head = l.items[:n], 0
	return x
}
