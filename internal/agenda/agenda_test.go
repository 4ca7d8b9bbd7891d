package agenda

import (
	"container/heap"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

type entry struct {
	when  time.Time
	index int
}

func (e *entry) When() time.Time { return e.when }
func (e *entry) Index() *int     { return &e.index }

// TestHeap: whatever comes, goes and is put off, the first is on top and every entry knows its place.
func TestHeap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h Heap[*entry]
		var in []*entry
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			when := time.UnixMilli(rapid.Int64Range(0, 20).Draw(t, "when"))
			what := rapid.IntRange(0, 3).Draw(t, "what")
			switch {
			case what < 2 || len(in) == 0:
				e := &entry{when: when}
				in = append(in, e)
				heap.Push(&h, e)
			case what == 2:
				i := rapid.IntRange(0, len(in)-1).Draw(t, "which")
				if got := heap.Remove(&h, in[i].index); got != in[i] || in[i].index != -1 {
					t.Fatalf("took out %v with index %d, not %v", got, in[i].index, in[i])
				}
				in = slices.Delete(in, i, i+1)
			default:
				e := in[rapid.IntRange(0, len(in)-1).Draw(t, "which")]
				e.when = when
				heap.Fix(&h, e.index)
			}
			for i, e := range h {
				if e.index != i || e.when.Before(h[0].when) || !slices.Contains(in, e) {
					t.Fatalf("entry %d is %+v, the first %+v", i, e, h[0])
				}
			}
			if len(h) != len(in) {
				t.Fatalf("%d of %d are there", len(h), len(in))
			}
		}
	})
}
