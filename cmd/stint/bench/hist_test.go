package bench

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBucketsAreInOrderAndNarrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ns := rapid.Uint64Range(0, 1<<topBits-1).Draw(t, "ns")
		bucket := bucketOf(ns)
		end := bucketEnd(bucket)
		if end < ns || float64(end-ns) > float64(ns)/(1<<fineBits) {
			t.Fatalf("%d lies in a bucket that ends at %d", ns, end)
		}
		if end+1 < 1<<topBits && bucketOf(end+1) != bucket+1 {
			t.Fatalf("after bucket %d, which ends at %d, comes %d", bucket, end, bucketOf(end+1))
		}
	})
}

func TestBucketsHaveRoomForEverything(t *testing.T) {
	if got := bucketOf(math.MaxUint64); got != buckets-1 {
		t.Fatalf("the largest value lies in bucket %d of %d", got, buckets)
	}
}

func TestQuantilesAreCloseToTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(0, int64(time.Minute)), 1, 300).Draw(t, "values")
		q := rapid.SampledFrom([]float64{0, 0.5, 0.9, 0.99, 0.999, 1}).Draw(t, "q")
		var h histogram
		for _, v := range values {
			h.add(time.Duration(v))
		}
		slices.Sort(values)
		want := values[max(0, int(math.Ceil(q*float64(len(values))))-1)]
		got := int64(h.quantile(q))
		if got < want || float64(got-want) > float64(want)/(1<<fineBits) {
			t.Fatalf("quantile %v of %v is %d, want %d or a little more", q, values, got, want)
		}
	})
}

func TestHistogramOfNothing(t *testing.T) {
	var h histogram
	if got := h.latency(); got != (latency{}) {
		t.Fatalf("an empty histogram has %+v", got)
	}
}

func TestHistogramTakesWhatNoClockShouldGive(t *testing.T) {
	var h histogram
	h.add(-time.Second)
	h.add(time.Hour)
	if got := h.latency(); got.P50 != 0 || got.P999 != 1<<topBits-1 || got.Count != 2 {
		t.Fatalf("got %+v", got)
	}
}
