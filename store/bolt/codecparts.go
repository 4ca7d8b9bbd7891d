package bolt

import (
	"encoding/binary"

	"stint/store"
)

// The payloads of all that is not an item. Each has its fields in the order in which they are appended here.

func appendReply(b []byte, key []byte, r *store.Reply) []byte {
	start := len(b)
	b = appendSection(begin(b), func(b []byte) []byte {
		b = appendString(b, r.Subject)
		b = binary.AppendVarint(b, r.Expires)
		return appendHeader(b, r.Header)
	})
	b = append(b, r.Body...)
	seal(kindReply, key, b[start:])
	return b
}

func decodeReply(key, value []byte) (r store.Reply, err error) {
	payload, err := unsealID(kindReply, key, value)
	if err != nil {
		return r, err
	}
	head, body, ok := cutSection(payload)
	d := decoder{s: string(head)}
	r.ID = keyID(key)
	r.Subject = d.string()
	r.Expires = d.varint()
	r.Header = d.header()
	if !ok || d.bad {
		return store.Reply{}, errShort
	}
	if len(body) > 0 {
		r.Body = append(make([]byte, 0, len(body)), body...)
	}
	return r, nil
}

// unsealID is unseal for parts whose key is an id.
func unsealID(k kind, key, value []byte) ([]byte, error) {
	if len(key) != 8 {
		return nil, errShort
	}
	return unseal(k, key, value)
}

func appendLease(b []byte, key []byte, l *store.Lease) []byte {
	start := len(b)
	b = binary.AppendUvarint(begin(b), uint64(l.Attempt))
	b = binary.AppendVarint(b, l.Timeout)
	b = appendString(b, l.Processor)
	seal(kindLease, key, b[start:])
	return b
}

func decodeLease(key, value []byte) (l store.Lease, err error) {
	payload, err := unsealID(kindLease, key, value)
	if err != nil {
		return l, err
	}
	d := decoder{s: string(payload)}
	l = store.Lease{ID: keyID(key), Attempt: d.uint32(), Timeout: d.varint(), Processor: d.string()}
	return l, d.err()
}

func (d *decoder) err() error {
	if d.bad {
		return errShort
	}
	return nil
}

func appendRegistration(b []byte, r *store.Registration) []byte {
	start := len(b)
	b = binary.AppendVarint(begin(b), int64(r.Capacity))
	b = binary.AppendVarint(b, r.Seen)
	b = binary.AppendVarint(b, int64(r.Batch))
	seal(kindRegister, []byte(r.Processor), b[start:])
	return b
}

func decodeRegistration(key, value []byte) (r store.Registration, err error) {
	payload, err := unseal(kindRegister, key, value)
	if err != nil {
		return r, err
	}
	d := decoder{s: string(payload)}
	r = store.Registration{Processor: string(key), Capacity: int(d.varint()), Seen: d.varint()}
	if d.s != "" { // format 1 ends here
		r.Batch = int(d.varint())
	}
	return r, d.err()
}

func appendDedup(b []byte, d *store.Dedup) []byte {
	start := len(b)
	b = binary.AppendUvarint(begin(b), d.ID)
	b = binary.AppendVarint(b, d.Expires)
	b = binary.LittleEndian.AppendUint64(b, d.ReplyHash)
	seal(kindDedup, []byte(d.MsgID), b[start:])
	return b
}

func decodeDedup(key, value []byte) (r store.Dedup, err error) {
	payload, err := unseal(kindDedup, key, value)
	if err != nil {
		return r, err
	}
	d := decoder{s: string(payload)}
	r = store.Dedup{MsgID: string(key), ID: d.uvarint(), Expires: d.varint()}
	if len(d.s) < 8 {
		return store.Dedup{}, errShort
	}
	r.ReplyHash = binary.LittleEndian.Uint64([]byte(d.s))
	return r, d.err()
}

// appendPlace writes an entry of the expiry index: where the item stands.
func appendPlace(b []byte, key []byte, p store.Place) []byte {
	start := len(b)
	b = append(begin(b), byte(p.Area), p.Priority)
	b = binary.AppendVarint(b, p.Due)
	seal(kindExpiry, key, b[start:])
	return b
}

func decodePlace(key, value []byte) (p store.Place, err error) {
	payload, err := unseal(kindExpiry, key, value)
	if err != nil {
		return p, err
	}
	d := decoder{s: string(payload)}
	p = store.Place{Area: store.Area(d.byte()), Priority: d.byte(), Due: d.varint()}
	if d.bad || len(key) != 16 || p.Area < store.Ready || p.Area > store.Dead {
		return store.Place{}, errShort
	}
	return p, nil
}

func appendCounts(b []byte, c *store.Counts) []byte {
	start := len(b)
	b = begin(b)
	for _, n := range []int64{
		int64(c.Ready), int64(c.Delayed), int64(c.Dead), c.Bytes, int64(c.Replies), int64(c.Damaged), int64(c.Dedup),
	} {
		b = binary.AppendVarint(b, n)
	}
	seal(kindCounts, countsKey, b[start:])
	return b
}

// maxNumbers is the longest value that holds nothing but numbers: a longer one is damage, and its end may lie anywhere.
const maxNumbers = 128

func decodeCounts(value []byte) (c store.Counts, err error) {
	if len(value) > maxNumbers {
		return c, errShort
	}
	payload, err := unseal(kindCounts, countsKey, value)
	if err != nil {
		return c, err
	}
	d := decoder{s: string(payload)}
	c.Ready, c.Delayed, c.Dead = int(d.varint()), int(d.varint()), int(d.varint())
	c.Bytes = d.varint()
	c.Replies, c.Damaged, c.Dedup = int(d.varint()), int(d.varint()), int(d.varint())
	return c, d.err()
}

// appendMeta writes a number of the file itself: its format or its epoch.
func appendMeta(b []byte, key []byte, n uint64) []byte {
	start := len(b)
	b = binary.AppendUvarint(begin(b), n)
	seal(kindMeta, key, b[start:])
	return b
}

func decodeMeta(key, value []byte) (uint64, error) {
	if len(value) > maxNumbers {
		return 0, errShort
	}
	payload, err := unseal(kindMeta, key, value)
	if err != nil {
		return 0, err
	}
	d := decoder{s: string(payload)}
	n := d.uvarint()
	return n, d.err()
}
