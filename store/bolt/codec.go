package bolt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"stint/store"
)

// The format of records.
//
// Every value in the file, of whatever kind, is
//
//	version   1 byte
//	checksum  4 bytes, little endian: CRC-32C over the kind (1 byte), the key, the version, the payload
//	payload
//
// so that a changed bit anywhere is found, and a record at a key or in a bucket that is not its own as well. Pages of
// bbolt carry no checksum; this one is all there is. Numbers are varints (signed ones zigzag), strings have their length
// in front as a varint, sections theirs as 4 bytes, little endian.
//
// The payload of an item is
//
//	marks     section: epoch, deliveries, attempts, deaths, code, reason
//	head      section: flags, priority, accepted, expires, timeout, max attempts, reply, message id,
//	          number of header names, and for each: name, number of values, values
//	body      the rest
//
// Head and body are what was sent: they are copied as they are when the marks change.
//
// To change it: a field that is added at the end of marks or of head is read as zero from older records and passed over
// by older programs, which then lose it when they rewrite the marks; so raise formatVersion all the same, and older
// programs will refuse the file as a whole. Any other change: raise recordVersion as well, keep the decoder of
// every version that was ever released, choose by the version byte, write only the newest. Never migrate at start: a
// backlog of any size must open at once. A golden file of each version stays in testdata.

// recordVersion is the version of records that are written.
const recordVersion = 1

// envelope is how many bytes stand before a payload.
const envelope = 5

// flagProgress: the sender asked for intermediate replies.
const flagProgress = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(k kind, key, value []byte) uint32 {
	head := [2]byte{byte(k), value[0]}
	sum := crc32.Update(0, castagnoli, head[:1])
	sum = crc32.Update(sum, castagnoli, key)
	sum = crc32.Update(sum, castagnoli, head[1:])
	return crc32.Update(sum, castagnoli, value[envelope:])
}

// begin appends the envelope of a value. Payload follows, then seal.
func begin(b []byte) []byte { return append(b, recordVersion, 0, 0, 0, 0) }

// seal writes the checksum of the value.
func seal(k kind, key, value []byte) []byte {
	binary.LittleEndian.PutUint32(value[1:], checksum(k, key, value))
	return value
}

// unseal checks a value and returns its payload. The error wraps store.ErrDamaged.
func unseal(k kind, key, value []byte) ([]byte, error) {
	if len(value) < envelope {
		return nil, fmt.Errorf("%w: %d bytes are too few", store.ErrDamaged, len(value))
	}
	if got, want := checksum(k, key, value), binary.LittleEndian.Uint32(value[1:]); got != want {
		return nil, fmt.Errorf("%w: its checksum is %08x, it was written with %08x", store.ErrDamaged, got, want)
	}
	if value[0] != recordVersion {
		return nil, fmt.Errorf("%w: its version is %d, this program knows %d", store.ErrDamaged, value[0], recordVersion)
	}
	return value[envelope:], nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// sectionHead is how many bytes hold the length of a section.
const sectionHead = 4

// appendSection appends what write appends, with its length in front.
func appendSection(b []byte, write func([]byte) []byte) []byte {
	start := len(b)
	b = write(append(b, 0, 0, 0, 0))
	binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start-sectionHead))
	return b
}

// appendRecord appends the value of an item at key.
func appendRecord(b []byte, k kind, key []byte, it *store.Item, m *store.Marks) []byte {
	start := len(b)
	b = appendSection(begin(b), func(b []byte) []byte { return appendMarks(b, m) })
	b = appendSection(b, func(b []byte) []byte { return appendHead(b, it) })
	b = append(b, it.Body...)
	seal(k, key, b[start:])
	return b
}

// appendRemarked appends the value of an item with new marks; sent is its head and body as they stand.
func appendRemarked(b []byte, k kind, key, sent []byte, m *store.Marks) []byte {
	start := len(b)
	b = appendSection(begin(b), func(b []byte) []byte { return appendMarks(b, m) })
	b = append(b, sent...)
	seal(k, key, b[start:])
	return b
}

func appendMarks(b []byte, m *store.Marks) []byte {
	b = binary.AppendUvarint(b, uint64(m.Epoch))
	b = binary.AppendUvarint(b, uint64(m.Deliveries))
	b = binary.AppendUvarint(b, uint64(m.Attempts))
	b = binary.AppendUvarint(b, uint64(m.Deaths))
	b = appendString(b, m.Code)
	return appendString(b, m.Reason)
}

func appendHead(b []byte, it *store.Item) []byte {
	var flags uint64
	if it.Progress {
		flags |= flagProgress
	}
	b = binary.AppendUvarint(b, flags)
	b = append(b, it.Priority)
	b = binary.AppendVarint(b, it.Accepted)
	b = binary.AppendVarint(b, it.Expires)
	b = binary.AppendVarint(b, it.Timeout)
	b = binary.AppendUvarint(b, uint64(it.MaxAttempts))
	b = appendString(b, it.Reply)
	b = appendString(b, it.MsgID)
	return appendHeader(b, it.Header)
}

func appendHeader(b []byte, h map[string][]string) []byte {
	b = binary.AppendUvarint(b, uint64(len(h)))
	for name, values := range h {
		b = appendString(b, name)
		b = binary.AppendUvarint(b, uint64(len(values)))
		for _, v := range values {
			b = appendString(b, v)
		}
	}
	return b
}

// splitRecord takes the payload of an item apart. Nothing is copied.
func splitRecord(payload []byte) (marks, head, body []byte, err error) {
	marks, rest, ok := cutSection(payload)
	if ok {
		head, body, ok = cutSection(rest)
	}
	if !ok {
		return nil, nil, nil, errShort
	}
	return marks, head, body, nil
}

// sentPart returns head and body of an item's payload, as they stand in the file.
func sentPart(payload []byte) ([]byte, error) {
	_, rest, ok := cutSection(payload)
	if !ok {
		return nil, errShort
	}
	return rest, nil
}

func cutSection(b []byte) (section, rest []byte, ok bool) {
	if len(b) < sectionHead {
		return nil, nil, false
	}
	n := uint64(binary.LittleEndian.Uint32(b))
	b = b[sectionHead:]
	if n > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}

// errShort: the checksum was right but the content is not what this program writes.
var errShort = fmt.Errorf("%w: its content makes no sense", store.ErrDamaged)

// decodeRecord reads the value of an item at key. What it returns refers to no memory of the engine's.
func decodeRecord(k kind, key, value []byte, r *store.Record) error {
	place, id, ok := splitPlaceKey(k, key)
	if !ok {
		return fmt.Errorf("%w: its key has %d bytes", store.ErrDamaged, len(key))
	}
	payload, err := unseal(k, key, value)
	if err != nil {
		return err
	}
	if err := decodePayload(payload, r); err != nil {
		return err
	}
	r.Place, r.ID = place, id
	return nil
}

func decodePayload(payload []byte, r *store.Record) error {
	marks, head, body, err := splitRecord(payload)
	if err != nil {
		return err
	}
	d := decoder{s: string(marks)}
	d.marks(&r.Marks)
	if d.bad {
		return errShort
	}
	d = decoder{s: string(head)}
	d.head(&r.Item)
	if d.bad {
		return errShort
	}
	r.Body = nil
	if len(body) > 0 {
		r.Body = append(make([]byte, 0, len(body)), body...)
	}
	return nil
}

// decoder reads from a string, so that the strings it returns are parts of one allocation.
type decoder struct {
	s   string
	bad bool
}

func (d *decoder) uvarint() uint64 {
	var v uint64
	for i := range min(len(d.s), binary.MaxVarintLen64) {
		c := d.s[i]
		if i == binary.MaxVarintLen64-1 && c > 1 {
			break
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c < 0x80 {
			d.s = d.s[i+1:]
			return v
		}
	}
	d.fail()
	return 0
}

func (d *decoder) fail() { d.bad, d.s = true, "" }

func (d *decoder) varint() int64 {
	u := d.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

func (d *decoder) uint32() uint32 {
	v := d.uvarint()
	if v > 1<<32-1 {
		d.fail()
		return 0
	}
	return uint32(v)
}

func (d *decoder) byte() byte {
	if d.s == "" {
		d.fail()
		return 0
	}
	c := d.s[0]
	d.s = d.s[1:]
	return c
}

func (d *decoder) string() string {
	n := d.uvarint()
	if n > uint64(len(d.s)) {
		d.fail()
		return ""
	}
	s := d.s[:n]
	d.s = d.s[n:]
	return s
}

// count reads a number of things that take at least one byte each.
func (d *decoder) count() int {
	n := d.uvarint()
	if n > uint64(len(d.s)) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) marks(m *store.Marks) {
	m.Epoch = d.uint32()
	m.Deliveries = d.uint32()
	m.Attempts = d.uint32()
	m.Deaths = d.uint32()
	m.Code = d.string()
	m.Reason = d.string()
}

func (d *decoder) head(it *store.Item) {
	it.Progress = d.uvarint()&flagProgress != 0
	it.Priority = d.byte()
	it.Accepted = d.varint()
	it.Expires = d.varint()
	it.Timeout = d.varint()
	it.MaxAttempts = d.uint32()
	it.Reply = d.string()
	it.MsgID = d.string()
	it.Header = d.header()
}

func (d *decoder) header() map[string][]string {
	n := d.count()
	if n == 0 {
		return nil
	}
	h := make(map[string][]string, n)
	flat := make([]string, 0, n)
	for range n {
		name := d.string()
		start := len(flat)
		for range d.count() {
			flat = append(flat, d.string())
		}
		h[name] = flat[start:len(flat):len(flat)]
	}
	return h
}

// sizeOf says what an item counts, even one that is damaged: then it is a guess.
func sizeOf(value []byte) (size int) {
	defer func() {
		if recover() != nil { // a damaged length may point anywhere
			size = 0
		}
	}()
	var r store.Record
	if len(value) < envelope || decodePayload(value[envelope:], &r) != nil {
		return len(value)
	}
	return r.Size()
}

func isDamage(err error) bool { return errors.Is(err, store.ErrDamaged) }
