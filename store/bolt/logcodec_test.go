package bolt

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"stint/store"
	"stint/store/storetest"
)

// opOf is an operation of a kind with every field set.
func opOf(kind store.OpKind) store.Op {
	r := sample()
	return store.Op{
		Kind: kind, ID: r.ID, From: r.Place, To: store.Place{Area: store.Ready, Priority: 3}, Marks: r.Marks, Expires: r.Expires,
		Size: r.Size(), Leased: true, Record: &r,
		Lease:        store.Lease{ID: r.ID, Attempt: 4, Processor: "p", Timeout: 30000},
		Reply:        &store.Reply{ID: r.ID, Subject: "s", Expires: 5, Header: r.Header, Body: r.Body},
		Registration: store.Registration{Processor: "p", Capacity: 3, Batch: 8, Seen: 7},
		Dedup:        store.Dedup{MsgID: "m", ID: r.ID, Expires: 9, ReplyHash: 1 << 60},
	}
}

// allKinds are those that the contract knows, of which the codec may have been forgotten.
func allKinds() (kinds []store.OpKind) {
	for kind := store.OpKind(1); ; kind++ {
		b := store.Batch{Ops: []store.Op{opOf(kind)}}
		if err := b.Check(); err != nil {
			return kinds
		}
		kinds = append(kinds, kind)
	}
}

// TestEveryKind: the log can hold every kind of operation and replay it, and one of which any part is missing is an error.
func TestEveryKind(t *testing.T) {
	kinds := allKinds()
	if len(kinds) < int(store.OpPruneDedup) {
		t.Fatalf("only %d kinds pass the check", len(kinds))
	}
	db := mustOpen(t, t.TempDir(), logged)
	q := storetest.Queue(t, db, "q").(*Queue)
	var scratch [2 * maxPlaceKey]byte
	for _, kind := range kinds {
		op := opOf(kind)
		content := appendPart(nil, q, []store.Op{op, op}, &scratch)
		n := 0
		err := eachOp(content, func(queue []byte, got *logOp) error {
			if n++; got.kind != kind || !bytes.Equal(queue, q.name) {
				t.Errorf("kind %d of %q came back as %d of %q", kind, q.name, got.kind, queue)
			}
			return nil
		})
		if err != nil || n != 2 {
			t.Errorf("kind %d: %d operations, %v", kind, n, err)
		}
		for cut := 1; cut < len(content); cut++ {
			err := eachOp(content[:cut], func([]byte, *logOp) error { return nil })
			if !errors.Is(err, errShort) {
				t.Errorf("kind %d, cut to %d of %d: %v", kind, cut, len(content), err)
			}
		}
		storetest.Commit(t, q, op)
		storetest.Load(t, q) // a round, which fails for a kind that cannot be replayed
	}
}

// FuzzEachOp: any bytes are an error or operations that lie within them.
func FuzzEachOp(f *testing.F) {
	var scratch [2 * maxPlaceKey]byte
	var all []store.Op
	for _, kind := range allKinds() {
		all = append(all, opOf(kind))
		f.Add(appendPart(nil, &Queue{name: []byte("q")}, []store.Op{opOf(kind)}, &scratch))
	}
	f.Add(appendPart(nil, &Queue{name: []byte("queue/a")}, all, &scratch))
	f.Add([]byte("\x01q\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x05\x01"))
	f.Add([]byte("\x00\x00"))
	f.Add([]byte(strings.Repeat("\xff", 30)))
	good := appendPart(nil, &Queue{name: []byte("good")}, all[:3], &scratch)
	f.Fuzz(func(t *testing.T, data []byte) {
		n, size := 0, 0
		err := eachOp(append(bytes.Clone(good), data...), func(queue []byte, op *logOp) error {
			if n++; n <= 3 && (string(queue) != "good" || op.kind != all[n-1].Kind) {
				t.Errorf("operation %d is of kind %d, of %q", n, op.kind, queue)
			}
			size += 1 + len(op.key) + len(op.value)
			return nil
		})
		if n < 3 || size > len(good)+len(data) {
			t.Errorf("%d operations of %d bytes, %v", n, size, err)
		}
	})
}

// TestEachOpStops: the error of the one who reads ends it.
func TestEachOpStops(t *testing.T) {
	var scratch [2 * maxPlaceKey]byte
	op := opOf(store.OpPut)
	content := appendPart(nil, &Queue{name: []byte("q")}, []store.Op{op, op}, &scratch)
	stop, n := errors.New("stop"), 0
	if err := eachOp(content, func([]byte, *logOp) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("%d operations, %v", n, err)
	}
}
