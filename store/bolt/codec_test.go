package bolt

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"stint/store"
)

var update = flag.Bool("update", false, "write the golden files anew")

func sample() store.Record {
	return store.Record{
		Item: store.Item{
			ID: 7<<40 | 3, Priority: 9, Accepted: 1700000000123, Expires: 1800000000456, Timeout: 30000, MaxAttempts: 5,
			Progress: true, Reply: "_INBOX.abc.1", MsgID: "m-1", Header: map[string][]string{"A": {"1", ""}}, Body: []byte("body"),
		},
		Marks: store.Marks{Epoch: 7, Deliveries: 4, Attempts: 3, Deaths: 2, Code: "dead", Reason: "failed three times"},
		Place: store.Place{Area: store.Delayed, Due: -1700000000999},
	}
}

func encode(r *store.Record) (k kind, key, value []byte) {
	k = areaKind(r.Place.Area)
	key = appendPlaceKey(nil, r.Place, r.ID)
	return k, key, appendRecord(nil, k, key, &r.Item, &r.Marks)
}

func drawRecord(t *rapid.T) store.Record {
	text := rapid.StringN(0, 20, -1)
	r := store.Record{
		Item: store.Item{
			ID: rapid.Uint64().Draw(t, "id"), Priority: rapid.Byte().Draw(t, "priority"),
			Accepted: rapid.Int64().Draw(t, "accepted"), Expires: rapid.Int64().Draw(t, "expires"),
			Timeout: rapid.Int64().Draw(t, "timeout"), MaxAttempts: rapid.Uint32().Draw(t, "max"),
			Progress: rapid.Bool().Draw(t, "progress"), Reply: text.Draw(t, "reply"), MsgID: text.Draw(t, "msgid"),
			Header: rapid.MapOfN(text, rapid.SliceOfN(text, 0, 3), 0, 4).Draw(t, "header"),
			Body:   rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "body"),
		},
		Marks: store.Marks{
			Epoch: rapid.Uint32().Draw(t, "epoch"), Deliveries: rapid.Uint32().Draw(t, "deliveries"),
			Attempts: rapid.Uint32().Draw(t, "attempts"), Deaths: rapid.Uint32().Draw(t, "deaths"),
			Code: text.Draw(t, "code"), Reason: text.Draw(t, "reason"),
		},
	}
	switch rapid.IntRange(1, 3).Draw(t, "area") {
	case 1:
		r.Place = store.Place{Area: store.Ready, Priority: rapid.Byte().Draw(t, "rank")}
	case 2:
		r.Place = store.Place{Area: store.Delayed, Due: rapid.Int64().Draw(t, "due")}
	default:
		r.Place = store.Place{Area: store.Dead}
	}
	return r
}

func TestCodecRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawRecord(t)
		k, key, value := encode(&want)
		var got store.Record
		if err := decodeRecord(k, key, value, &got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
		// New marks leave what was sent as it is, byte for byte.
		payload, _ := unseal(k, key, value)
		sent, _ := sentPart(payload)
		other := drawRecord(t)
		want.Marks = other.Marks
		value = appendRemarked(nil, k, key, sent, &want.Marks)
		if err := decodeRecord(k, key, value, &got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
	})
}

// TestCodecFlip changes every bit of a value and of its key, and the kind: all of it is noticed.
func TestCodecFlip(t *testing.T) {
	r := sample()
	k, key, value := encode(&r)
	flip := func(what string, b []byte, check func() error) {
		for i := range len(b) * 8 {
			b[i/8] ^= 1 << (i % 8)
			if err := check(); !errors.Is(err, store.ErrDamaged) {
				t.Errorf("%s, bit %d: %v", what, i, err)
			}
			b[i/8] ^= 1 << (i % 8)
		}
	}
	var got store.Record
	check := func() error { return decodeRecord(k, key, value, &got) }
	flip("value", value, check)
	flip("key", key, check)
	for i := range value {
		if err := decodeRecord(k, key, value[:i], &got); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("cut to %d bytes: %v", i, err)
		}
	}
	if err := check(); err != nil {
		t.Fatal(err)
	}
	dead := appendPlaceKey(nil, store.Place{Area: store.Dead}, r.ID)
	_, _, value = encode(&store.Record{Item: r.Item, Place: store.Place{Area: store.Dead}})
	if err := decodeRecord(kindReply, dead, value, &got); err == nil {
		t.Error("an item passes for a reply")
	}
	if _, err := unseal(kindReply, dead, value); err == nil {
		t.Error("an item's value passes in the bucket of replies")
	}
}

func TestPartsFlip(t *testing.T) {
	id := appendID(nil, 77)
	when := appendTimeKey(nil, 5, 77)
	for name, c := range map[string]struct {
		key, value []byte
		decode     func(key, value []byte) error
	}{
		"reply": {
			id, appendReply(nil, id, &store.Reply{Subject: "s", Header: map[string][]string{"a": {"b"}}, Body: []byte("x")}),
			func(k, v []byte) error { _, err := decodeReply(k, v); return err },
		},
		"lease": {
			id, appendLease(nil, id, &store.Lease{Attempt: 300, Processor: "p", Timeout: 4}),
			func(k, v []byte) error { _, err := decodeLease(k, v); return err },
		},
		"registration": {
			[]byte("proc"), appendRegistration(nil, &store.Registration{Processor: "proc", Capacity: 3, Seen: 9}),
			func(k, v []byte) error { _, err := decodeRegistration(k, v); return err },
		},
		"dedup": {
			[]byte("m-1"), appendDedup(nil, &store.Dedup{MsgID: "m-1", ID: 9, Expires: 5, ReplyHash: 3}),
			func(k, v []byte) error { _, err := decodeDedup(k, v); return err },
		},
		"expiry": {
			when, appendPlace(nil, when, store.Place{Area: store.Ready, Priority: 3}),
			func(k, v []byte) error { _, err := decodePlace(k, v); return err },
		},
		"counts": {
			nil, appendCounts(nil, &store.Counts{Ready: 5, Bytes: 70}),
			func(_, v []byte) error { _, err := decodeCounts(v); return err },
		},
		"meta": {
			epochKey, appendMeta(nil, epochKey, 12),
			func(k, v []byte) error { _, err := decodeMeta(k, v); return err },
		},
	} {
		if err := c.decode(c.key, c.value); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, b := range [][]byte{c.key, c.value} {
			b := b
			if name == "meta" && &b[0] == &epochKey[0] {
				continue // a constant
			}
			for i := range len(b) * 8 {
				b[i/8] ^= 1 << (i % 8)
				if err := c.decode(c.key, c.value); !errors.Is(err, store.ErrDamaged) {
					t.Errorf("%s, bit %d: %v", name, i, err)
				}
				b[i/8] ^= 1 << (i % 8)
			}
		}
	}
}

// TestCodecVersion: a record of a version that is not known is damage of its own kind, not misread.
func TestCodecVersion(t *testing.T) {
	r := sample()
	k, key, value := encode(&r)
	value[0] = recordVersion + 1
	seal(k, key, value)
	var got store.Record
	if err := decodeRecord(k, key, value, &got); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("a newer record: %v", err)
	}
}

// TestCodecGolden reads what the first release wrote. Never change the file: add one for each new version.
func TestCodecGolden(t *testing.T) {
	path := filepath.Join("testdata", "record-1.bin")
	want := sample()
	k, key, value := encode(&want)
	if *update {
		if err := os.WriteFile(path, value, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got store.Record
	if err := decodeRecord(k, key, golden, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !bytes.Equal(golden, value) {
		t.Error("records are written in another way than version 1")
	}
}

// FuzzDecode gives the decoder content under a right checksum, which is as far as damage can get.
func FuzzDecode(f *testing.F) {
	r := sample()
	_, _, value := encode(&r)
	f.Add(value)
	f.Add([]byte{})
	f.Add([]byte{1, 0, 0, 0, 0, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, value []byte) {
		var got store.Record
		key := appendPlaceKey(nil, store.Place{Area: store.Ready}, 1)
		decodeRecord(kindReady, key, value, &got)
		if len(value) < envelope {
			return
		}
		value = bytes.Clone(value)
		value[0] = recordVersion
		for k := kindReady; k < kinds; k++ {
			for _, key := range [][]byte{appendID(nil, 1), key, appendTimeKey(nil, 1, 1)} {
				seal(k, key, value)
				if err := decodeRecord(k, key, value, &got); err == nil {
					again(t, k, key, &got)
				}
				decodeReply(key, value)
				decodeLease(key, value)
				decodeRegistration(key, value)
				decodeDedup(key, value)
				decodePlace(key, value)
			}
		}
		seal(kindCounts, countsKey, value)
		decodeCounts(value)
		sizeOf(value)
	})
}

// again: what could be decoded can be encoded, and says the same.
func again(t *testing.T, k kind, key []byte, r *store.Record) {
	value := appendRecord(nil, k, key, &r.Item, &r.Marks)
	var got store.Record
	if err := decodeRecord(k, key, value, &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(*r, got) { // cmp would take most of the time
		t.Fatal(cmp.Diff(*r, got))
	}
}
