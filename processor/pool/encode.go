package pool

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"stint/processor"
)

// The lines that go to a child. They are written by hand: encoding/json was a fifth of the pool's time. A fuzz test compares
// them with it.

const stopLine = `{"type":"stop"}` + "\n"

const statsLine = `{"type":"stats"}` + "\n"

// appendStart appends the first line that a child reads.
func appendStart(b []byte, queue string, child int, first bool) []byte {
	b = append(b, `{"type":"start","queue":`...)
	b = appendString(b, queue)
	b = append(b, `,"child":`...)
	b = strconv.AppendInt(b, int64(child), 10)
	b = append(b, `,"first":`...)
	b = strconv.AppendBool(b, first)
	return append(b, '}', '\n')
}

// deadlineDigits is how long a time in milliseconds since 1970 is until the year 2286.
const deadlineDigits = 13

const noDeadline = "0000000000000"

// appendWork appends the line of an item. If the item has a time limit, at is where setDeadline writes when it ends; that is
// known when the line leaves and not when it is made.
func appendWork(b []byte, w *processor.Work, limited bool) (line []byte, at int) {
	b = append(b, `{"type":"work","id":`...)
	b = appendString(b, w.Item)
	b = append(b, `,"attempt":`...)
	b = strconv.AppendInt(b, int64(w.Attempt), 10)
	b = append(b, `,"queue":`...)
	b = appendString(b, w.Address)
	if limited {
		b = append(b, `,"deadline":`...)
		at = len(b)
		b = append(b, noDeadline...)
	}
	b = appendHeaders(b, w.Header)
	b = appendBody(b, w.Body)
	return append(b, '}', '\n'), at
}

func setDeadline(line []byte, at int, ms int64) {
	if at > 0 {
		strconv.AppendInt(line[at:at:at+deadlineDigits], min(max(ms, 1e12), 1e13-1), 10)
	}
}

func appendHeaders(b []byte, h nats.Header) []byte {
	if len(h) == 0 {
		return b
	}
	b = append(b, `,"headers":{`...)
	first := true
	for name, values := range h {
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendString(b, name)
		b = append(b, ':', '[')
		for i, v := range values {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, v)
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

// appendBody appends the body as text, or in base64 when it is none.
func appendBody(b, body []byte) []byte {
	if utf8.Valid(body) {
		b = append(b, `,"body":`...)
		return appendQuoted(b, body)
	}
	b = append(b, `,"body64":"`...)
	b = base64.StdEncoding.AppendEncode(b, body)
	return append(b, '"')
}

// appendString appends a string of JSON. What is not UTF-8 in it, in a header say, is replaced.
func appendString(b []byte, s string) []byte {
	if !utf8.ValidString(s) {
		s = string([]rune(s))
	}
	return appendQuoted(b, s)
}

const hexDigits = "0123456789abcdef"

// plain says which bytes stand in a string of JSON as they are.
var plain = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= 0x20 && c != '"' && c != '\\'
	}
	return t
}()

// appendQuoted appends valid UTF-8.
func appendQuoted[T string | []byte](b []byte, s T) []byte {
	b = append(b, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if plain[c] {
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	b = append(b, s[from:]...)
	return append(b, '"')
}
