package pool

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"stint/broker/queue"
)

// BenchmarkLines is items through children and back, with a broker in memory in the same process: for profiles. The figures that
// count are those of package integration.
func BenchmarkLines(b *testing.B) {
	for _, ahead := range []int{1, 64} {
		b.Run(fmt.Sprintf("ahead=%d", ahead), func(b *testing.B) {
			w := newWorld(b, queue.Config{})
			r := w.pool("fast", Options{Children: 2, Ahead: ahead})
			measure(b, w, r)
		})
	}
}

// measure sends b.N items through the pool and ends it.
func measure(b *testing.B, w *world, r *running) {
	b.Helper()
	inbox, back := w.nc.NewInbox(), make(chan int, 1000)
	if _, err := w.nc.Subscribe(inbox, func(m *nats.Msg) {
		n, _ := strconv.Atoi(m.Header.Get("Stint-Batch"))
		back <- n
	}); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	pump(b, w.nc, inbox, back)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
	b.StopTimer()
	r.end()
}

func pump(b *testing.B, nc *nats.Conn, inbox string, back <-chan int) {
	b.Helper()
	const batch, window = 64, 2048
	var data []byte
	for sent, done := 0, 0; done < b.N; {
		for sent < b.N && sent-done+batch <= window {
			n := min(batch, b.N-sent)
			data = data[:0]
			for range n {
				data = append(data, "0 0 5\nhello\n"...)
			}
			h := nats.Header{"Stint-Batch": {strconv.Itoa(n)}, "Stint-Batch-Replies": {"gathered"}}
			if err := nc.PublishMsg(&nats.Msg{Subject: testQueue, Reply: inbox, Data: data, Header: h}); err != nil {
				b.Fatal(err)
			}
			sent += n
		}
		select {
		case n := <-back:
			done += n
		case <-time.After(patience):
			b.Fatal("no replies")
		}
	}
}

// BenchmarkExec is the same with a process for each item.
func BenchmarkExec(b *testing.B) {
	w := newWorld(b, queue.Config{})
	r := w.pool("x", Options{Mode: Exec, Children: 2, Command: []string{"/bin/true"}})
	measure(b, w, r)
}
