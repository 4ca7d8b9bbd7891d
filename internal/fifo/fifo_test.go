package fifo

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestListIsASliceThatIsTakenFromTheFront(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l List[*int]
		var want []*int
		for range rapid.IntRange(1, 20).Draw(t, "turns") {
			for range rapid.IntRange(0, 3*keep).Draw(t, "in") {
				x := new(int)
				l.Push(x)
				want = append(want, x)
			}
			for range rapid.IntRange(0, 3*keep).Draw(t, "out") {
				if len(want) == 0 {
					break
				}
				if l.First() != want[0] || l.Pop() != want[0] {
					t.Fatal("what came out is not what was put in first")
				}
				want = want[1:]
			}
			if l.Len() != len(want) || !slices.Equal(l.All(), want) {
				t.Fatalf("%d are in the list, not %d", l.Len(), len(want))
			}
			for i, x := range l.items[:cap(l.items)] {
				if (i < l.head || i >= len(l.items)) && x != nil {
					t.Fatal("the list holds on to something that is not in it")
				}
			}
		}
	})
}

func TestALongListThatIsEmptyKeepsNoMemory(t *testing.T) {
	var l List[int]
	for range 100 * keep {
		l.Push(1)
	}
	for l.Len() > 0 {
		l.Pop()
	}
	if cap(l.items) > 4*keep {
		t.Errorf("it keeps room for %d", cap(l.items))
	}
}
