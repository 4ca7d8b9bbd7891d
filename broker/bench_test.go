package broker_test

import (
	"log/slog"
	"testing"

	"github.com/nats-io/nats.go"

	"stint/broker"
	"stint/wire"
)

// BenchmarkItem is one item through the bus and the rules, from the send to the reply, with everything in one process: in
// memory, where there is nothing but messages, and durable. Allocations are those of the server, the sender and the
// processor as well.
func BenchmarkItem(b *testing.B) {
	for name, options := range map[string]broker.QueueOptions{"memory": inMemory(address), "durable": durable(address)} {
		b.Run(name, func(b *testing.B) {
			h := newHouse(b, options)
			h.opt.Logger = slog.New(slog.DiscardHandler)
			h.start()
			defer h.stop()
			processor, sender := h.connect(), h.connect()
			defer processor.Close()
			defer sender.Close()
			_, err := processor.Subscribe("bench.processor", func(m *nats.Msg) {
				if err := m.Respond(m.Data); err != nil {
					b.Error(err)
				}
			})
			ok(b, err)
			register(b, processor, "bench.processor", benchWindow)
			b.ReportAllocs()
			b.ResetTimer()
			sendAll(b, sender, b.N)
		})
	}
}

// benchWindow is how many items are on their way at a time.
const benchWindow = 256

func sendAll(b *testing.B, nc *nats.Conn, items int) {
	room := make(chan struct{}, benchWindow)
	inbox := nats.NewInbox()
	_, err := nc.Subscribe(inbox, func(m *nats.Msg) {
		if code := m.Header.Get(wire.HeaderErrorCode); code != "" {
			b.Errorf("error %s: %s", code, m.Header.Get(wire.HeaderError))
		}
		<-room
	})
	ok(b, err)
	body := make([]byte, 128)
	for range items {
		room <- struct{}{}
		ok(b, nc.PublishRequest(address, inbox, body))
	}
	for range benchWindow {
		room <- struct{}{}
	}
}
