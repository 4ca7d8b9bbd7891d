package wire

import (
	"bytes"
	"strconv"
	"strings"
)

// Limits of a batch.
const (
	MaxBatch    = 1000 // frames of one message
	MaxBatchKey = 64   // bytes of a frame's key
)

// The headers of batches.
const (
	HeaderBatch        = "Stint-Batch"         // how many frames the body of this message is
	HeaderBatchKey     = "Stint-Batch-Key"     // on a reply in a message of its own: the key of its item
	HeaderBatchReplies = "Stint-Batch-Replies" // on a send: gathered
)

// gathered is the one value of HeaderBatchReplies.
const gathered = "gathered"

// A batch is a message with the header Stint-Batch: <n> and a body of exactly n frames. A frame is
//
//	<key> SP <header bytes> SP <body bytes> LF <header block> <body> LF
//
// The key is a word of 1 to MaxBatchKey printable ASCII characters. The two lengths are decimal, without leading zeros. The
// header block is zero or more lines of `Name: value` CR LF; its length counts all of it, so 0 means none.

// Frame is one item, answer or reply of a batch. Its slices are parts of the message, not copies.
type Frame struct {
	Key   []byte
	Block []byte // the header block; see Header
	Body  []byte
}

// Header reads the frame's header block: nil for an empty one. Names are taken as NATS clients take them, with whatever
// stands before the colon. The error has the code bad_header.
func (f *Frame) Header() (Header, *Error) {
	if len(f.Block) == 0 {
		return nil, nil
	}
	h := make(Header, 2)
	for rest := f.Block; len(rest) > 0; {
		line, after, ok := bytes.Cut(rest, []byte("\r\n"))
		name, value, isHeader := bytes.Cut(line, []byte(":"))
		if !ok || !isHeader || len(name) == 0 || bytes.ContainsAny(line, "\r\n") {
			return nil, Errorf(CodeBadHeader, "the header block of frame %s has the line %s: end each line `Name: value` with CR and LF",
				f.Key, show(string(line)))
		}
		rest = after
		h[string(name)] = append(h[string(name)], string(bytes.TrimLeft(value, " \t")))
	}
	return h, nil
}

// isWord says whether b is printable ASCII without a space, and not empty.
func isWord(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return len(b) > 0
}

// Frames reads a batch, frame by frame.
//
//	for frames.Next() { use(frames.Frame) }
//	if err := frames.Err(); err != nil { ... }
//
// It does not allocate.
type Frames struct {
	Frame
	rest  []byte
	count int
	read  int
	flaw  string
}

// ReadFrames prepares to read the frames of a message with the value count in its header HeaderBatch. What is wrong shows
// in Err.
func ReadFrames(count string, body []byte) Frames {
	n, ok := parseDecimal(count)
	if !ok || n < 1 || n > MaxBatch {
		return Frames{flaw: "the header " + HeaderBatch + " is " + show(count) + ": give a whole number from 1 to " + strconv.Itoa(MaxBatch)}
	}
	return Frames{rest: body, count: int(n)}
}

// Count is how many frames the header promised, from 1 to MaxBatch; 0 if it could not be read.
func (f *Frames) Count() int { return f.count }

// Next reads the next frame; false: there is none, or it cannot be read.
func (f *Frames) Next() bool {
	if f.flaw != "" || f.read == f.count {
		return false
	}
	if f.flaw = f.next(); f.flaw != "" {
		return false
	}
	f.read++
	return true
}

// Err says what is wrong with the batch, nil if nothing. It is of use once Next has returned false. Frames that were read
// before are good. Its code is bad_request.
func (f *Frames) Err() *Error {
	switch {
	case f.flaw != "" && f.count == 0:
		return Errorf(CodeBadRequest, "%s", f.flaw)
	case f.flaw != "":
		return Errorf(CodeBadRequest, "frame %d of %d: %s", f.read+1, f.count, f.flaw)
	case f.read == f.count && len(f.rest) > 0:
		return Errorf(CodeBadRequest, "%d bytes follow the last of %d frames: the header %s must count all of them", len(f.rest), f.count, HeaderBatch)
	}
	return nil
}

// maxFrameLine is the longest line that a frame can begin with: the key and two lengths of 9 digits.
const maxFrameLine = MaxBatchKey + 2*10

func (f *Frames) next() string {
	if len(f.rest) == 0 {
		return "the body ends before it: the header " + HeaderBatch + " must count the frames that are there"
	}
	line := f.rest
	end := bytes.IndexByte(line[:min(len(line), maxFrameLine+1)], '\n')
	if end < 0 {
		return "it does not begin with a line: write key, length of the header block and length of the body, and LF"
	}
	key, lengths, _ := bytes.Cut(line[:end], []byte(" "))
	if len(key) > MaxBatchKey || !isWord(key) {
		return "its key is not a word: use 1 to " + strconv.Itoa(MaxBatchKey) + " printable ASCII characters without a space"
	}
	first, second, _ := bytes.Cut(lengths, []byte(" "))
	head, okHead := frameLength(first)
	size, okSize := frameLength(second)
	if !okHead || !okSize {
		return "its lengths cannot be read: write two decimal numbers, without leading zeros, each after one space"
	}
	rest := f.rest[end+1:]
	if head+size >= len(rest) {
		return "it is longer than what is left of the body: count the bytes of the header block and of the body, and end the frame with LF"
	}
	if rest[head+size] != '\n' {
		return "its end is not where its lengths say: count the bytes of the header block and of the body, and end the frame with LF"
	}
	f.Frame = Frame{Key: key, Block: rest[:head:head], Body: rest[head : head+size : head+size]}
	f.rest = rest[head+size+1:]
	return ""
}

// frameLength reads a length of at most 9 digits, so that the sum of two is no overflow anywhere.
func frameLength(b []byte) (int, bool) {
	if len(b) == 0 || len(b) > 9 || b[0] == '0' && len(b) > 1 {
		return 0, false
	}
	n := 0
	for _, c := range b {
		if !isDigit(c) {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, true
}

// AppendFrame appends a frame to dst. The key must be a word as above. Line breaks in a header's name or value become spaces,
// as they would end the line. Nothing is allocated if dst has room.
func AppendFrame[K string | []byte](dst []byte, key K, h Header, body []byte) []byte {
	dst = append(dst, key...)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, int64(blockSize(h)), 10)
	dst = append(dst, ' ')
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	dst = append(dst, '\n')
	for name, values := range h {
		for _, value := range values {
			dst = appendLine(dst, name)
			dst = append(dst, ": "...)
			dst = appendLine(dst, value)
			dst = append(dst, "\r\n"...)
		}
	}
	dst = append(dst, body...)
	return append(dst, '\n')
}

func appendLine(dst []byte, s string) []byte {
	at := len(dst)
	dst = append(dst, s...)
	if strings.ContainsAny(s, "\r\n") {
		for i, c := range dst[at:] {
			if c == '\r' || c == '\n' {
				dst[at+i] = ' '
			}
		}
	}
	return dst
}

func blockSize(h Header) int {
	n := 0
	for name, values := range h {
		for _, value := range values {
			n += len(name) + len(value) + len(": \r\n")
		}
	}
	return n
}

// FrameSize is at least what AppendFrame appends, and not much more.
func FrameSize(key int, h Header, body []byte) int {
	return key + len(" 123456789 123456789\n\n") + blockSize(h) + len(body)
}

// AppendWorkKey appends the key of work and of its answer: <item>.<attempt>, as in the lease subject.
func AppendWorkKey(dst []byte, item uint64, attempt uint32) []byte {
	dst = strconv.AppendUint(dst, item, idBase)
	dst = append(dst, '.')
	return strconv.AppendUint(dst, uint64(attempt), 10)
}

// ParseWorkKey reads a key that AppendWorkKey wrote, with an attempt of at least 1. It does not allocate.
func ParseWorkKey(key []byte) (item uint64, attempt uint32, ok bool) {
	if len(key) > maxIDLen+11 {
		return 0, 0, false
	}
	id, n, _ := bytes.Cut(key, []byte("."))
	item, okID := ParseID(string(id))
	attempt, okAttempt := parseCount(string(n))
	return item, attempt, okID && okAttempt && attempt > 0
}

// BatchCount is the value of HeaderBatch, "" if the message is no batch.
func BatchCount(h Header) string {
	if len(h) == 0 {
		return ""
	}
	return lookup(h, HeaderBatch)
}

// BatchHeader is the header of a message of n frames.
func BatchHeader(n int) Header { return Header{HeaderBatch: {strconv.Itoa(n)}} }

// Merged gives the headers of an item of a batch: its frame's, and those of the message whose names the frame does not have
// in any case. Either may be nil; the result may be one of the two.
func Merged(message, frame Header) Header {
	if len(frame) == 0 {
		return message
	}
	if len(message) == 0 {
		return frame
	}
	out := make(Header, len(message)+len(frame))
	for name, values := range message {
		if !has(frame, name) {
			out[name] = values
		}
	}
	for name, values := range frame {
		out[name] = values
	}
	return out
}

// has says whether h has the name in any case.
func has(h Header, name string) bool {
	for key := range h {
		if len(key) == len(name) && strings.EqualFold(key, name) {
			return true
		}
	}
	return false
}
