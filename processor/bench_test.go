package processor_test

import (
	"context"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"stint/processor"
	"stint/wire"
)

// BenchmarkWork is the whole way of an item through a processor: two hops over a server, the lease's context and timer,
// a handler that does nothing, and the answer. The scripted broker, nats.go and the server are in the figures too: of 23
// allocations an item BenchmarkBroker shows 14 to be theirs.
func BenchmarkWork(b *testing.B) {
	const capacity = 64
	bus := newBus(b, server.Options{})
	broker := newBroker(b, bus.connect())
	nc := bus.connect()
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	o := processor.Options{Address: address, Subject: subject, Capacity: capacity}
	go func() { ended <- processor.Run(ctx, nc, o, echo) }()
	<-broker.registered
	b.ReportAllocs()
	circulate(b, broker, capacity)
	b.StopTimer()
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}

// BenchmarkBroker is the same with the barest processor there can be: what BenchmarkWork has more is this package.
func BenchmarkBroker(b *testing.B) {
	bus := newBus(b, server.Options{})
	broker := newBroker(b, bus.connect())
	nc := bus.connect()
	if _, err := nc.Subscribe(subject, func(m *nats.Msg) { _ = nc.Publish(m.Reply, m.Data) }); err != nil {
		b.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	circulate(b, broker, 64)
}

// circulate keeps window items under way until b.N have been answered.
func circulate(b *testing.B, broker *broker, window int) {
	out, item := 0, uint64(0)
	for b.Loop() {
		for ; out < window; out++ {
			broker.give(item, 1, "body", nil)
			item++
		}
		m := <-broker.answers
		if a := wire.ParseAnswer(wire.Header(m.Header), m.Data, m.Reply); a.Kind != wire.Done {
			b.Fatalf("got %+v", a)
		}
		out--
	}
	for ; out > 0; out-- {
		<-broker.answers
	}
}

// BenchmarkWorkInBatches is BenchmarkWork with as many items in one message as there is room for.
func BenchmarkWorkInBatches(b *testing.B) {
	const capacity = 64
	bus := newBus(b, server.Options{})
	broker := newBroker(b, bus.connect())
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	o := processor.Options{Address: address, Subject: subject, Capacity: capacity}
	nc := bus.connect()
	go func() { ended <- processor.Run(ctx, nc, o, echo) }()
	<-broker.registered
	b.ReportAllocs()
	items := make([]uint64, capacity)
	for n := uint64(0); n < uint64(b.N); {
		for i := range items {
			items[i], n = n, n+1
		}
		broker.giveBatch(items...)
		for left := capacity; left > 0; {
			left -= len(answersIn(b, <-broker.answers))
		}
	}
	b.StopTimer()
	cancel()
	if err := <-ended; err != nil {
		b.Fatal(err)
	}
}
