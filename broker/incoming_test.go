package broker

import (
	"reflect"
	"testing"

	"github.com/nats-io/nats.go"

	"stint/broker/queue"
	"stint/wire"
)

// Each subject of a queue leads to its route, also where an address ends like a lease.
func TestFinder(t *testing.T) {
	addresses := []string{"a", "a.b", "a.1", "a.b.1.2", "1"}
	var intakes []*intake
	for _, address := range addresses {
		k := newIntake(newOwner(1))
		k.add(nil, &actor{cfg: queue.Config{Address: address}})
		intakes = append(intakes, k)
	}
	find := finder(intakes)
	for i, k := range intakes {
		a := addresses[i]
		for tag, subjects := range [][]string{
			{wire.LeaseSubject(a, 1<<60, 1), wire.LeaseSubject(a, 0, 987654321)},
			{wire.TalkSubject(a, 77, 0), wire.TalkSubject(a, 1, 9)},
			{wire.RegisterSubject(a)},
			{wire.UnregisterSubject(a)},
			{a},
		} {
			for _, subject := range subjects {
				if lane, got := find([]byte(subject)); lane != k.lane || got != tag {
					t.Errorf("%s leads to route %d, or that of another queue, not to %d of %s", subject, got, tag, a)
				}
			}
		}
	}
	for _, subject := range []string{"b", "a.", "a.c", "a.lease", "a.lease.1", ".1", "1.", "a.event.1.2", "a.leases.1.2"} {
		if lane, _ := find([]byte(subject)); lane != nil {
			t.Errorf("%s leads to a route", subject)
		}
	}
}

// FuzzLeanSend: a header block that is read in place means what it means when it is decoded.
func FuzzLeanSend(f *testing.F) {
	f.Add([]byte("NATS/1.0\r\nStint-Accepted-Reply: a.b\r\n\r\n"), []byte("x"))
	f.Add([]byte("NATS/1.0\r\nStint-Accepted-Reply: a.*\r\n\r\n"), []byte(`{"accepted_reply":"b"}`))
	f.Add([]byte("NATS/1.0\r\nStint-Accepted-Reply:  a\r\n\r\n"), []byte(""))
	f.Add([]byte("NATS/1.0\r\nStint-Accepted-Reply: a\r\nStint-Accepted-Reply: b\r\n\r\n"), []byte(""))
	f.Add([]byte("NATS/1.0\r\nStint-Accepted-Reply: \r\n\r\n"), []byte(""))
	f.Add([]byte("NATS/1.0\r\nStint-Accepted-Reply: $a\r\n\r\n"), []byte(""))
	f.Add([]byte(""), []byte(`{"accepted_reply":"b"}`))
	f.Add([]byte(""), []byte(`{"accepted_reply":"b c"}`))
	f.Fuzz(func(t *testing.T, block, body []byte) {
		got, err, ok := wire.ParseLeanSend(block, body)
		if !ok {
			return
		}
		var h nats.Header
		if len(block) > 0 {
			var bad error
			if h, bad = nats.DecodeHeadersMsg(block); bad != nil {
				t.Fatalf("%q was read, and cannot be decoded: %v", block, bad)
			}
		}
		want, wantErr := wire.ParseSend(wire.Header(h), body)
		if !reflect.DeepEqual(got, want) || !reflect.DeepEqual(err, wantErr) {
			t.Errorf("%q gives %+v, %v; decoded %+v, %v", block, got, err, want, wantErr)
		}
		if wire.OfItem(wire.Header(h)) != nil {
			t.Errorf("%q has headers of the item's", block)
		}
	})
}
