package store

import (
	"slices"
	"sort"
)

// sortKey orders the entries of an index: a rank (priority or time), then an id.
type sortKey struct {
	rank uint64
	id   uint64
}

func (k sortKey) less(o sortKey) bool {
	return k.rank < o.rank || (k.rank == o.rank && k.id < o.id)
}

// timeRank turns a time into a rank, so that earlier sorts first, those before 1970 too.
func timeRank(ms int64) uint64 { return uint64(ms) ^ 1<<63 }

func rankTime(rank uint64) int64 { return int64(rank ^ 1<<63) }

// chunkSize is how many entries a chunk of an ordered index holds at most.
const chunkSize = 512

// ordered is a sorted index in chunks. To append at the end and to remove at the head, which is what a queue does, is
// cheap at any size; elsewhere it costs a move within one chunk. A tree would be as quick and longer.
type ordered[V any] struct {
	chunks [][]entry[V]
	n      int
}

type entry[V any] struct {
	key   sortKey
	value V
}

// find returns the position of the first entry that is not less than k; the chunk is len(chunks) at the end.
func (o *ordered[V]) find(k sortKey) (chunk, at int) {
	chunk = sort.Search(len(o.chunks), func(i int) bool {
		c := o.chunks[i]
		return !c[len(c)-1].key.less(k)
	})
	if chunk == len(o.chunks) {
		return chunk, 0
	}
	c := o.chunks[chunk]
	return chunk, sort.Search(len(c), func(i int) bool { return !c[i].key.less(k) })
}

func (o *ordered[V]) get(k sortKey) (v V, ok bool) {
	i, j := o.find(k)
	if i == len(o.chunks) || o.chunks[i][j].key != k {
		return v, false
	}
	return o.chunks[i][j].value, true
}

// set writes an entry; false: it replaced one.
func (o *ordered[V]) set(k sortKey, v V) bool {
	i, j := o.find(k)
	if i == len(o.chunks) {
		o.push(entry[V]{k, v})
		return true
	}
	if o.chunks[i][j].key == k {
		o.chunks[i][j].value = v
		return false
	}
	if len(o.chunks[i]) == chunkSize {
		o.split(i)
		i, j = o.find(k)
	}
	o.chunks[i] = slices.Insert(o.chunks[i], j, entry[V]{k, v})
	o.n++
	return true
}

// push adds an entry behind all others.
func (o *ordered[V]) push(e entry[V]) {
	o.n++
	if last := len(o.chunks) - 1; last >= 0 && len(o.chunks[last]) < chunkSize {
		o.chunks[last] = append(o.chunks[last], e)
		return
	}
	o.chunks = append(o.chunks, append([]entry[V](nil), e))
}

func (o *ordered[V]) split(i int) {
	c := o.chunks[i]
	half := slices.Clone(c[chunkSize/2:])
	clear(c[chunkSize/2:])
	o.chunks[i] = c[:chunkSize/2]
	o.chunks = slices.Insert(o.chunks, i+1, half)
}

func (o *ordered[V]) remove(k sortKey) (v V, ok bool) {
	i, j := o.find(k)
	if i == len(o.chunks) || o.chunks[i][j].key != k {
		return v, false
	}
	c := o.chunks[i]
	v = c[j].value
	o.n--
	switch {
	case len(c) == 1:
		o.dropChunk(i)
	case j == 0: // the head of a queue: no entry moves
		c[0] = entry[V]{}
		o.chunks[i] = c[1:]
	default:
		o.chunks[i] = slices.Delete(c, j, j+1)
	}
	return v, true
}

func (o *ordered[V]) dropChunk(i int) {
	if i == 0 {
		o.chunks[0] = nil
		o.chunks = o.chunks[1:]
		return
	}
	o.chunks = slices.Delete(o.chunks, i, i+1)
}

// from calls yield for the entries from k on, in order, until it returns false.
func (o *ordered[V]) from(k sortKey, yield func(sortKey, V) bool) {
	i, j := o.find(k)
	for ; i < len(o.chunks); i, j = i+1, 0 {
		for ; j < len(o.chunks[i]); j++ {
			if !yield(o.chunks[i][j].key, o.chunks[i][j].value) {
				return
			}
		}
	}
}

func (o *ordered[V]) first() (k sortKey, v V, ok bool) {
	if len(o.chunks) == 0 {
		return k, v, false
	}
	e := o.chunks[0][0]
	return e.key, e.value, true
}
