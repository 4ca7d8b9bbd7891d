package pool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// What goes through the socket between pool and guard: numbers as in encoding/binary, texts with their length before them.
// Several orders share a packet, and several reports.

// Kinds of order and report.
const (
	sayStart byte = iota + 1
	saySignal
	sayRuns
	sayEnded
	sayFailed
)

// Bounds of a packet: its length in bytes before the last thing that goes into it, its descriptors, what is said of an error.
const (
	maxPacket = 8 << 10
	maxFiles  = 60
	maxSaid   = 1 << 10

	maxOwnFiles = 3 // descriptors of one child that come with an order
)

var errPacket = errors.New("a packet between pool and guard cannot be read")

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendOrder(b []byte, o *order) []byte {
	if !o.Start {
		b = binary.AppendUvarint(append(b, saySignal), uint64(o.Child))
		return binary.AppendUvarint(b, uint64(o.Sig))
	}
	b = binary.AppendUvarint(append(b, sayStart), uint64(o.Child))
	b = binary.AppendVarint(b, int64(o.Timeout))
	b = binary.AppendUvarint(b, uint64(len(o.files)))
	b = binary.AppendUvarint(b, uint64(len(o.Files)))
	for _, place := range o.Files {
		b = binary.AppendVarint(b, int64(place))
	}
	b = binary.AppendUvarint(b, uint64(len(o.Env)))
	for _, entry := range o.Env {
		b = appendText(b, entry)
	}
	return b
}

// parseOrders reads a packet. The files that came with it belong to the orders then, or are closed.
func parseOrders(packet []byte, files []int) (all []order, err error) {
	c := cursor{rest: packet}
	for len(c.rest) > 0 && !c.bad {
		var o order
		switch c.byte() {
		case saySignal:
			o.Child, o.Sig = c.number(), syscall.Signal(c.number())
		case sayStart:
			o, files = c.start(files)
		default:
			c.bad = true
		}
		if !c.bad {
			all = append(all, o)
		}
	}
	if c.bad || len(files) > 0 {
		(&order{files: files}).close()
		return all, fmt.Errorf("%w: orders of %d bytes", errPacket, len(packet))
	}
	return all, nil
}

// start reads an order to start a child, and leaves the files that are not its.
func (c *cursor) start(files []int) (o order, rest []int) {
	o.Start, o.Child, o.Timeout = true, c.number(), time.Duration(c.signed())
	n := c.number()
	for range c.count() {
		place := int(c.signed())
		c.bad = c.bad || place < -1 || place >= n
		o.Files = append(o.Files, place)
	}
	for range c.count() {
		o.Env = append(o.Env, c.text())
	}
	if n > len(files) || c.bad {
		c.bad = true
		return o, files
	}
	o.files = files[:n:n]
	return o, files[n:]
}

func appendReport(b []byte, r *report) []byte {
	switch {
	case r.Err != "":
		b = binary.AppendUvarint(append(b, sayFailed), uint64(r.Child))
		return appendText(b, clip(r.Err, maxSaid))
	case r.Ended:
		b = binary.AppendUvarint(append(b, sayEnded), uint64(r.Child))
		return append(b, byte(r.Code), byte(r.Signal))
	default:
		b = binary.AppendUvarint(append(b, sayRuns), uint64(r.Child))
		return binary.AppendUvarint(b, uint64(r.PID))
	}
}

func parseReports(packet []byte) (all []report, err error) {
	c := cursor{rest: packet}
	for len(c.rest) > 0 && !c.bad {
		kind := c.byte()
		r := report{Child: c.number()}
		switch kind {
		case sayFailed:
			r.Err = c.text()
		case sayEnded:
			r.Ended, r.Code, r.Signal = true, int(c.byte()), syscall.Signal(c.byte())
		case sayRuns:
			r.PID = c.number()
		default:
			c.bad = true
		}
		all = append(all, r)
	}
	if c.bad {
		return nil, fmt.Errorf("%w: reports of %d bytes", errPacket, len(packet))
	}
	return all, nil
}

// cursor reads a packet. What is not there is 0, and bad from then on.
type cursor struct {
	rest []byte
	bad  bool
}

func (c *cursor) byte() byte {
	if len(c.rest) == 0 {
		c.bad = true
		return 0
	}
	b := c.rest[0]
	c.rest = c.rest[1:]
	return b
}

func (c *cursor) number() int {
	v, n := binary.Uvarint(c.rest)
	return int(c.skip(int64(v), n))
}

func (c *cursor) signed() int64 { return c.skip(binary.Varint(c.rest)) }

func (c *cursor) skip(v int64, n int) int64 {
	if n <= 0 || v > 1<<62 {
		c.bad, c.rest = true, nil
		return 0
	}
	c.rest = c.rest[n:]
	return v
}

// count is of things that have a byte each, at least.
func (c *cursor) count() int {
	n := c.number()
	if n < 0 || n > len(c.rest) {
		c.bad = true
		return 0
	}
	return n
}

func (c *cursor) text() string {
	n := c.count()
	s := string(c.rest[:n])
	c.rest = c.rest[n:]
	return s
}
