package broker

import (
	"reflect"
	"testing"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

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
