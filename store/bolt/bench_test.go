package bolt

import (
	"fmt"
	"testing"

	"stint/store"
	"stint/store/storetest"
)

func BenchmarkEncode(b *testing.B) {
	r := sample()
	k, key, value := encode(&r)
	buf := make([]byte, 0, len(value))
	b.ReportAllocs()
	for b.Loop() {
		appendRecord(buf[:0], k, key, &r.Item, &r.Marks)
	}
}

func BenchmarkDecode(b *testing.B) {
	r := sample()
	k, key, value := encode(&r)
	b.ReportAllocs()
	for b.Loop() {
		if err := decodeRecord(k, key, value, &r); err != nil {
			b.Fatal(err)
		}
	}
}

const benchBody = 168

// BenchmarkPut reports time and allocations per item, in batches of a size.
func BenchmarkPut(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			q := storetest.Queue(b, mustOpen(b, b.TempDir(), small), "q")
			b.ReportAllocs()
			b.ResetTimer()
			putBatches(b, q, 1, b.N, n)
		})
	}
}

func putBatches(b *testing.B, q store.Queue, from, to, n int) {
	rs := make([]store.Record, n)
	ops := make([]store.Op, n)
	bodies := make([]byte, benchBody)
	for at := from; at <= to; at += n {
		size := min(n, to-at+1)
		for i := range size {
			rs[i] = store.Record{Item: store.Item{ID: uint64(at + i), Body: bodies}, Place: store.Place{Area: store.Ready}}
			ops[i] = store.Op{Kind: store.OpPut, Record: &rs[i]}
		}
		if err := storetest.Submit(q, ops[:size]...); err != nil {
			b.Fatal(err)
		}
	}
}

func deleteBatches(b *testing.B, q store.Queue, from, to, n int) {
	ops := make([]store.Op, n)
	for at := from; at <= to; at += n {
		size := min(n, to-at+1)
		for i := range size {
			ops[i] = store.Op{Kind: store.OpDelete, ID: uint64(at + i), From: store.Place{Area: store.Ready}, Size: benchBody}
		}
		if err := storetest.Submit(q, ops[:size]...); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDrain deletes a backlog from its head.
func BenchmarkDrain(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			q := storetest.Queue(b, mustOpen(b, b.TempDir(), small), "q")
			putBatches(b, q, 1, b.N, 1000)
			b.ReportAllocs()
			b.ResetTimer()
			deleteBatches(b, q, 1, b.N, n)
		})
	}
}

// BenchmarkFlow puts at the end and deletes at the head of a backlog of 10,000, in one batch.
func BenchmarkFlow(b *testing.B) {
	for _, n := range []int{100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			q := storetest.Queue(b, mustOpen(b, b.TempDir(), small), "q")
			const backlog = 10000
			putBatches(b, q, 1, backlog, 1000)
			b.ReportAllocs()
			b.ResetTimer()
			flow(b, q, backlog, n)
		})
	}
}

func flow(b *testing.B, q store.Queue, backlog, n int) {
	body := make([]byte, benchBody)
	rs := make([]store.Record, n)
	ops := make([]store.Op, 2*n)
	for at := 1; at <= b.N; at += n {
		for i := range n {
			rs[i] = store.Record{Item: store.Item{ID: uint64(backlog + at + i), Body: body}, Place: store.Place{Area: store.Ready}}
			ops[i] = store.Op{Kind: store.OpPut, Record: &rs[i]}
			ops[n+i] = store.Op{Kind: store.OpDelete, ID: uint64(at + i), From: store.Place{Area: store.Ready}, Size: benchBody}
		}
		if err := storetest.Submit(q, ops...); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPage reads a backlog in pages of 100.
func BenchmarkPage(b *testing.B) {
	q := storetest.Queue(b, mustOpen(b, b.TempDir(), small), "q")
	putBatches(b, q, 1, b.N, 1000)
	b.ReportAllocs()
	b.ResetTimer()
	var at store.Cursor
	for {
		p, err := q.Ready(at, store.Limit{Records: 100})
		if err != nil {
			b.Fatal(err)
		}
		if !p.More {
			return
		}
		at.ID = p.Records[len(p.Records)-1].ID
	}
}
