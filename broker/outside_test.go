package broker_test

import (
	"testing"

	"github.com/nats-io/nats.go"
)

// outside makes the broker treat its server as one it knows nothing of.
func outside(t *testing.T) *house {
	h := newHouse(t, durable(address))
	h.outside = true
	return h.start()
}

func TestOutsideServerReplyWaitsForItsSender(t *testing.T) {
	h := outside(t)
	defer h.stop()
	nc := h.connect()
	defer nc.Close()
	register(t, nc, "p1", 1)
	work := listen(t, nc, "p1")
	publish(t, nc, &nats.Msg{Subject: address, Reply: "away"})
	ok(t, next(t, work).Respond([]byte("kept")))
	eventually(t, func() bool { return h.broker.Stats()[address].Replies == 1 })
	back := listen(t, nc, "away")
	if r := next(t, back); string(r.Data) != "kept" {
		t.Errorf("the reply is %q", r.Data)
	}
	if n, _, _ := back.Pending(); n != 0 {
		t.Error("it came more than once")
	}
}

func TestOutsideServerProcessorThatComesBack(t *testing.T) {
	h := outside(t)
	defer h.stop()
	nc := h.connect()
	defer nc.Close()
	register(t, nc, "p1", 1)
	replies := listen(t, nc, "replies")
	publish(t, nc, &nats.Msg{Subject: address, Reply: "replies"})
	eventually(t, func() bool { return h.broker.Stats()[address].Absent == 1 })
	ok(t, next(t, listen(t, nc, "p1")).Respond([]byte("here again")))
	if r := next(t, replies); string(r.Data) != "here again" {
		t.Errorf("the reply is %q", r.Data)
	}
}
