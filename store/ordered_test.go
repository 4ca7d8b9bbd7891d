package store

import (
	"cmp"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestOrdered compares the index with a map over random changes that cross the borders of its chunks.
func TestOrdered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var o ordered[int]
		want := map[sortKey]int{}
		key := func(n int) sortKey { return sortKey{uint64(n % 3), uint64(n)} }
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			from, n := rapid.IntRange(0, 4000).Draw(t, "from"), rapid.IntRange(1, 1500).Draw(t, "n")
			put := rapid.Bool().Draw(t, "put")
			for i := from; i < from+n; i++ {
				_, had := want[key(i)]
				if put {
					if o.set(key(i), i+n) == had {
						t.Fatalf("set %d: had it: %v", i, had)
					}
					want[key(i)] = i + n
					continue
				}
				v, ok := o.remove(key(i))
				if ok != had || v != want[key(i)] {
					t.Fatalf("remove %d: %v %v, want %v %v", i, v, ok, want[key(i)], had)
				}
				delete(want, key(i))
			}
			checkOrdered(t, &o, want, key(from))
		}
	})
}

func checkOrdered(t *rapid.T, o *ordered[int], want map[sortKey]int, at sortKey) {
	keys := slices.SortedFunc(maps.Keys(want), func(a, b sortKey) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.id, b.id))
	})
	if o.n != len(keys) {
		t.Fatalf("%d entries, want %d", o.n, len(keys))
	}
	if k, _, ok := o.first(); ok != (len(keys) > 0) || ok && k != keys[0] {
		t.Fatalf("first %v %v", k, ok)
	}
	keys = slices.DeleteFunc(keys, func(k sortKey) bool { return k.less(at) })
	o.from(at, func(k sortKey, v int) bool {
		if len(keys) == 0 || k != keys[0] || v != want[k] {
			t.Fatalf("%v = %v, want %v", k, v, keys)
		}
		got, ok := o.get(k)
		if !ok || got != v {
			t.Fatalf("get %v: %v %v", k, got, ok)
		}
		keys = keys[1:]
		return true
	})
	if len(keys) > 0 {
		t.Fatalf("missing: %v", keys)
	}
	for _, c := range o.chunks {
		if len(c) == 0 || len(c) > chunkSize {
			t.Fatalf("a chunk of %d", len(c))
		}
	}
}

func TestTimeRank(t *testing.T) {
	times := []int64{-1 << 63, -5, -1, 0, 1, 1700000000000, 1<<63 - 1}
	for i, ms := range times {
		if rankTime(timeRank(ms)) != ms {
			t.Errorf("%d becomes %d", ms, rankTime(timeRank(ms)))
		}
		if i > 0 && timeRank(times[i-1]) >= timeRank(ms) {
			t.Errorf("%d does not sort before %d", times[i-1], ms)
		}
	}
}
