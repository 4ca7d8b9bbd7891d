package bench

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets whose width grows with the value, so that a quantile is off by less than one part
// in 128 however long it is, in a bounded space. The zero value is empty. It has one owner.
//
// Below 128 ns each bucket is one nanosecond wide. From there on each doubling has 128 buckets.
type histogram struct {
	counts   [buckets]uint64
	total    uint64
	smallest time.Duration
	largest  time.Duration
}

const (
	fineBits = 7  // 1<<fineBits buckets to each doubling
	topBits  = 40 // values of 1<<topBits ns, 18 minutes, and more count as a little less than that
	buckets  = (topBits - fineBits + 1) << fineBits
)

// add counts a duration. Negative ones, which a clock should not give, count as 0.
func (h *histogram) add(d time.Duration) {
	d = max(d, 0)
	if h.total == 0 || d < h.smallest {
		h.smallest = d
	}
	h.largest = max(h.largest, d)
	h.total++
	h.counts[bucketOf(uint64(d))]++
}

func bucketOf(ns uint64) int {
	ns = min(ns, 1<<topBits-1)
	if ns < 1<<fineBits {
		return int(ns)
	}
	shift := bits.Len64(ns) - fineBits - 1
	return shift<<fineBits + int(ns>>shift)
}

// bucketEnd is the largest value of a bucket.
func bucketEnd(bucket int) uint64 {
	if bucket < 2<<fineBits {
		return uint64(bucket)
	}
	shift := bucket>>fineBits - 1
	fine := uint64(bucket) - uint64(shift)<<fineBits
	return (fine+1)<<shift - 1
}

// quantile is the least value that a part q, from 0 to 1, of the durations does not exceed, and 0 of an empty histogram.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.total))
	if float64(rank) < q*float64(h.total) {
		rank++
	}
	rank = max(rank, 1)
	var seen uint64
	for bucket, n := range h.counts {
		if seen += n; n > 0 && seen >= rank {
			return min(max(time.Duration(bucketEnd(bucket)), h.smallest), h.largest)
		}
	}
	return h.largest
}

// latency is what is told of a histogram, in nanoseconds.
type latency struct {
	Count uint64        `json:"count"`
	P50   time.Duration `json:"p50"`
	P99   time.Duration `json:"p99"`
	P999  time.Duration `json:"p999"`
}

func (h *histogram) latency() latency {
	return latency{h.total, h.quantile(0.5), h.quantile(0.99), h.quantile(0.999)}
}
