package bolt

import (
	"encoding/binary"
	"fmt"

	"stint/store"
)

// The content of a group in the log is a number of parts, one for each batch:
//
//	queue   string: the name of its bucket
//	ops     their number as a varint, then the operations
//
// An operation is its kind (1 byte) and the fields that the kind names in [logOp.walk], in that order. What is put is
// encoded as it will stand in the file, so that it is encoded once and carries its own checksum from the start.

// logOp is an operation of the log. Its bytes refer to the group.
type logOp struct {
	kind     store.OpKind
	leased   bool
	id       uint64
	from, to store.Place
	expires  int64
	size     int
	key      []byte // of a registration or a message id
	value    []byte // as it stands in the file; of OpMove: the marks
}

// appendPart appends the batch of one queue.
func appendPart(b []byte, q *Queue, ops []store.Op, scratch *[2 * maxPlaceKey]byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(q.name)))
	b = append(b, q.name...)
	b = binary.AppendUvarint(b, uint64(len(ops)))
	for i := range ops {
		b = appendOp(b, &ops[i], scratch)
	}
	return b
}

// appendOp appends an operation that has passed store.Batch.Check.
func appendOp(b []byte, op *store.Op, scratch *[2 * maxPlaceKey]byte) []byte {
	b = append(b, byte(op.Kind))
	key := scratch[:0]
	switch op.Kind {
	case store.OpPut:
		r := op.Record
		b = binary.AppendUvarint(b, r.ID)
		b = appendWhere(b, r.Place)
		b = binary.AppendVarint(b, r.Expires)
		b = binary.AppendUvarint(b, uint64(r.Size()))
		key = appendPlaceKey(key, r.Place, r.ID)
		return appendSection(b, func(b []byte) []byte {
			return appendRecord(b, areaKind(r.Place.Area), key, &r.Item, &r.Marks)
		})
	case store.OpMove:
		b = binary.AppendUvarint(b, op.ID)
		b = appendWhere(appendWhere(b, op.From), op.To)
		b = appendRest(b, op)
		return appendSection(b, func(b []byte) []byte { return appendMarks(b, &op.Marks) })
	case store.OpDelete:
		b = binary.AppendUvarint(b, op.ID)
		return appendRest(appendWhere(b, op.From), op)
	case store.OpSetAside:
		return appendWhere(binary.AppendUvarint(b, op.ID), op.From)
	case store.OpUnexpire:
		return binary.AppendVarint(binary.AppendUvarint(b, op.ID), op.Expires)
	case store.OpPutLease:
		b = binary.AppendUvarint(b, op.Lease.ID)
		key = appendID(key, op.Lease.ID)
		return appendSection(b, func(b []byte) []byte { return appendLease(b, key, &op.Lease) })
	case store.OpPutReply:
		b = binary.AppendUvarint(b, op.Reply.ID)
		key = appendID(key, op.Reply.ID)
		return appendSection(b, func(b []byte) []byte { return appendReply(b, key, op.Reply) })
	case store.OpDeleteLease, store.OpDeleteReply:
		return binary.AppendUvarint(b, op.ID)
	case store.OpPutRegistration:
		b = appendString(b, op.Registration.Processor)
		return appendSection(b, func(b []byte) []byte { return appendRegistration(b, &op.Registration) })
	case store.OpDeleteRegistration:
		return appendString(b, op.Registration.Processor)
	case store.OpPutDedup:
		b = appendString(b, op.Dedup.MsgID)
		return appendSection(b, func(b []byte) []byte { return appendDedup(b, &op.Dedup) })
	case store.OpPruneDedup:
		return binary.AppendVarint(b, op.Expires)
	}
	return b
}

func appendWhere(b []byte, p store.Place) []byte {
	b = append(b, byte(p.Area), p.Priority)
	return binary.AppendVarint(b, p.Due)
}

func appendRest(b []byte, op *store.Op) []byte {
	b = binary.AppendVarint(b, op.Expires)
	b = binary.AppendUvarint(b, uint64(op.Size))
	if op.Leased {
		return append(b, 1)
	}
	return append(b, 0)
}

// eachOp calls yield with every operation of a group, in order. The logOp is used again for the next.
func eachOp(content []byte, yield func(queue []byte, op *logOp) error) error {
	r := logReader{b: content}
	var op logOp
	for len(r.b) > 0 {
		queue := r.bytes(r.uvarint())
		for n := r.uvarint(); n > 0 && !r.bad; n-- {
			r.op(&op)
			if r.bad {
				break
			}
			if err := yield(queue, &op); err != nil {
				return err
			}
		}
		if r.bad {
			return fmt.Errorf("%w: a group of the log", errShort)
		}
	}
	return nil
}

// logReader reads the content of a group.
type logReader struct {
	b   []byte
	bad bool
}

func (r *logReader) op(op *logOp) {
	*op = logOp{kind: store.OpKind(r.byte())}
	switch op.kind {
	case store.OpPut:
		op.id, op.to, op.expires, op.size = r.uvarint(), r.place(), r.varint(), int(r.uvarint())
		op.value = r.section()
	case store.OpMove:
		op.id, op.from, op.to = r.uvarint(), r.place(), r.place()
		r.rest(op)
		op.value = r.section()
	case store.OpDelete:
		op.id, op.from = r.uvarint(), r.place()
		r.rest(op)
	case store.OpSetAside:
		op.id, op.from = r.uvarint(), r.place()
	case store.OpUnexpire:
		op.id, op.expires = r.uvarint(), r.varint()
	case store.OpPutLease, store.OpPutReply:
		op.id, op.value = r.uvarint(), r.section()
	case store.OpDeleteLease, store.OpDeleteReply:
		op.id = r.uvarint()
	case store.OpPutRegistration, store.OpPutDedup:
		op.key, op.value = r.bytes(r.uvarint()), r.section()
	case store.OpDeleteRegistration:
		op.key = r.bytes(r.uvarint())
	case store.OpPruneDedup:
		op.expires = r.varint()
	default:
		r.fail()
	}
}

func (r *logReader) rest(op *logOp) {
	op.expires, op.size, op.leased = r.varint(), int(r.uvarint()), r.byte() != 0
}

func (r *logReader) fail() { r.bad, r.b = true, nil }

func (r *logReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *logReader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *logReader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *logReader) bytes(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *logReader) section() []byte {
	v, rest, ok := cutSection(r.b)
	if !ok {
		r.fail()
		return nil
	}
	r.b = rest
	return v
}

func (r *logReader) place() store.Place {
	return store.Place{Area: store.Area(r.byte()), Priority: r.byte(), Due: r.varint()}
}
