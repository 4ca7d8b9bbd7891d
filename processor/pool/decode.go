package pool

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"stint/wire"
)

// answerKind is what a line from a child says.
type answerKind uint8

const (
	answerReady answerKind = iota + 1
	answerProgress
	answerExtend
	answerDone
	answerFailed
	answerStats
	answerLog
)

// answer is a line from a child. Nothing in it shares memory with the line.
type answer struct {
	kind    answerKind
	id      string // empty: the item in hand
	body    []byte
	headers map[string][]string
	message string
	code    string
	level   string
	final   bool // failed with retry false
	delay   time.Duration
	delayed bool
	stats   []byte // of stats: the line
}

// maxStats is how long a line of stats may be, in bytes, since the last one of each child is kept.
const maxStats = 4096

var (
	errSyntax = errors.New("is no JSON object")
	errUTF8   = errors.New("is not UTF-8: a body that is not goes into body64")
)

// decodeAnswer reads a line from a child, without its newline. It takes what encoding/json takes, key for key; it is by hand
// as that took three times as long. Keys that are not known are passed over, as a later protocol may have more.
func decodeAnswer(line []byte) (answer, error) {
	if !utf8.Valid(line) {
		return answer{}, errUTF8
	}
	d := decoder{in: line}
	if err := d.object(d.member); err != nil {
		return answer{}, err
	}
	if d.space(); d.at != len(d.in) {
		return answer{}, errSyntax
	}
	return d.result()
}

// decoder reads one line.
type decoder struct {
	in  []byte
	at  int
	typ string
	a   answer
	raw int // how many of body and body64 are given
}

func (d *decoder) result() (answer, error) {
	switch d.typ {
	case "ready":
		d.a.kind = answerReady
	case "progress":
		d.a.kind = answerProgress
	case "extend":
		d.a.kind = answerExtend
	case "done":
		d.a.kind = answerDone
	case "failed":
		d.a.kind = answerFailed
	case "stats":
		d.a.kind = answerStats
		if len(d.in) > maxStats {
			return answer{}, fmt.Errorf("is stats of %d bytes: at most %d", len(d.in), maxStats)
		}
		d.a.stats = bytes.Clone(d.in)
	case "log":
		d.a.kind = answerLog
	case "":
		return answer{}, errors.New(`has no "type"`)
	default:
		return answer{}, fmt.Errorf("has the unknown type %.40q", d.typ)
	}
	if d.raw > 1 {
		return answer{}, errors.New("has both body and body64, or one of them twice")
	}
	return d.a, nil
}

// member reads the value of a key. The keys of free fields are not looked at.
func (d *decoder) member(key []byte) (err error) {
	switch string(key) {
	case "type":
		d.typ, err = d.text("type")
	case "id":
		d.a.id, err = d.text("id")
	case "body":
		d.raw++
		d.a.body, err = d.stringBytes("body")
	case "body64":
		d.raw++
		err = d.body64()
	case "headers":
		err = d.headers()
	case "message":
		d.a.message, err = d.text("message")
	case "code":
		d.a.code, err = d.text("code")
	case "level":
		d.a.level, err = d.text("level")
	case "retry":
		err = d.retry()
	case "delay":
		err = d.delay()
	default:
		_, err = d.skip(0)
	}
	return err
}

// object reads an object and calls member at each value, with its key.
func (d *decoder) object(member func(key []byte) error) error {
	if d.space(); !d.take('{') {
		return errSyntax
	}
	if d.space(); d.take('}') {
		return nil
	}
	for {
		d.space()
		key, err := d.quoted()
		if err != nil {
			return err
		}
		if d.space(); !d.take(':') {
			return errSyntax
		}
		d.space()
		if err := member(key); err != nil {
			return err
		}
		d.space()
		if d.take('}') {
			return nil
		}
		if !d.take(',') {
			return errSyntax
		}
	}
}

func (d *decoder) space() {
	for d.at < len(d.in) {
		switch d.in[d.at] {
		case ' ', '\t', '\n', '\r':
			d.at++
		default:
			return
		}
	}
}

func (d *decoder) take(c byte) bool {
	if d.at < len(d.in) && d.in[d.at] == c {
		d.at++
		return true
	}
	return false
}

func (d *decoder) text(key string) (string, error) {
	if d.at < len(d.in) && d.in[d.at] != '"' {
		return "", fmt.Errorf("has a %q that is no string", key)
	}
	s, err := d.quoted()
	if err != nil {
		return "", err
	}
	return knownText(s), nil
}

// knownText spares an allocation for the words that come most.
func knownText(s []byte) string {
	switch string(s) {
	case "done":
		return "done"
	case "progress":
		return "progress"
	}
	return string(s)
}

func (d *decoder) stringBytes(key string) ([]byte, error) {
	if d.at < len(d.in) && d.in[d.at] != '"' {
		return nil, fmt.Errorf("has a %q that is no string", key)
	}
	s, err := d.quoted()
	return bytes.Clone(s), err
}

func (d *decoder) body64() error {
	s, err := d.text("body64")
	if err != nil {
		return err
	}
	if d.a.body, err = base64.StdEncoding.DecodeString(s); err != nil {
		return errors.New("has a body64 that is no base64")
	}
	return nil
}

// headers reads {"Name":["value",...]}.
func (d *decoder) headers() error {
	start := d.at
	if _, err := d.skip(0); err != nil {
		return err
	}
	d.a.headers = nil
	if json.Unmarshal(d.in[start:d.at], &d.a.headers) != nil {
		return errors.New("has headers that are no object of lists of strings")
	}
	return nil
}

func (d *decoder) retry() error {
	start := d.at
	kind, err := d.skip(0)
	if err != nil {
		return err
	}
	if kind != 't' && kind != 'f' {
		return errors.New("has a retry that is neither true nor false")
	}
	d.a.final = string(d.in[start:d.at]) == "false"
	return nil
}

func (d *decoder) delay() error {
	start := d.at
	kind, err := d.skip(0)
	if err != nil {
		return err
	}
	ms, perr := strconv.ParseFloat(string(d.in[start:d.at]), 64)
	if kind != '0' || perr != nil || ms < 0 {
		return errors.New("has a delay that is no number of milliseconds")
	}
	d.a.delay = time.Duration(math.Ceil(min(ms, float64(wire.MaxDelay.Milliseconds())))) * time.Millisecond
	d.a.delayed = true
	return nil
}

// quoted reads a string. What it returns is part of the line unless it has escapes.
func (d *decoder) quoted() ([]byte, error) {
	if !d.take('"') {
		return nil, errSyntax
	}
	start := d.at
	for d.at < len(d.in) {
		switch c := d.in[d.at]; {
		case plain[c]:
			d.at++
		case c == '"':
			d.at++
			return d.in[start : d.at-1], nil
		case c == '\\':
			return d.escaped(start)
		default:
			return nil, errSyntax
		}
	}
	return nil, errSyntax
}

// escaped goes on with a string at its first escape.
func (d *decoder) escaped(start int) ([]byte, error) {
	out := append(make([]byte, 0, 2*(d.at-start)+16), d.in[start:d.at]...)
	for d.at < len(d.in) {
		c := d.in[d.at]
		d.at++
		switch {
		case plain[c]:
			from := d.at - 1
			for d.at < len(d.in) && plain[d.in[d.at]] {
				d.at++
			}
			out = append(out, d.in[from:d.at]...)
		case c == '"':
			return out, nil
		case c == '\\':
			var ok bool
			if out, ok = d.escape(out); !ok {
				return nil, errSyntax
			}
		default:
			return nil, errSyntax
		}
	}
	return nil, errSyntax
}

// simple are the escapes of one letter.
var simple = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// escape reads what stands behind a backslash.
func (d *decoder) escape(out []byte) ([]byte, bool) {
	if d.at >= len(d.in) {
		return out, false
	}
	c := d.in[d.at]
	d.at++
	if s := simple[c]; s != 0 {
		return append(out, s), true
	}
	if c != 'u' {
		return out, false
	}
	r, ok := d.hex(d.at)
	if !ok {
		return out, false
	}
	d.at += 4
	if utf16.IsSurrogate(r) {
		r = d.secondHalf(r)
	}
	return utf8.AppendRune(out, r), true
}

// secondHalf joins a surrogate with the one that follows, if one does. A lone half becomes U+FFFD, as encoding/json has it.
func (d *decoder) secondHalf(first rune) rune {
	if d.at+6 > len(d.in) || d.in[d.at] != '\\' || d.in[d.at+1] != 'u' {
		return utf8.RuneError
	}
	second, ok := d.hex(d.at + 2)
	if !ok {
		return utf8.RuneError
	}
	r := utf16.DecodeRune(first, second)
	if r != utf8.RuneError {
		d.at += 6
	}
	return r
}

func (d *decoder) hex(at int) (rune, bool) {
	if at+4 > len(d.in) {
		return 0, false
	}
	var r rune
	for _, c := range d.in[at : at+4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

// maxDepth bounds the nesting of a line's free fields.
const maxDepth = 64

// skip passes over any value. kind is its first byte, or '0' for a number.
func (d *decoder) skip(depth int) (kind byte, err error) {
	if d.at >= len(d.in) || depth > maxDepth {
		return 0, errSyntax
	}
	switch c := d.in[d.at]; c {
	case '{':
		return c, d.object(func([]byte) error {
			_, err := d.skip(depth + 1)
			return err
		})
	case '[':
		return c, d.list(depth)
	case '"':
		_, err := d.quoted()
		return c, err
	case 't':
		return c, d.word("true")
	case 'f':
		return c, d.word("false")
	case 'n':
		return c, d.word("null")
	}
	return '0', d.number()
}

func (d *decoder) list(depth int) error {
	d.at++
	if d.space(); d.take(']') {
		return nil
	}
	for {
		d.space()
		if _, err := d.skip(depth + 1); err != nil {
			return err
		}
		d.space()
		if d.take(']') {
			return nil
		}
		if !d.take(',') {
			return errSyntax
		}
	}
}

func (d *decoder) word(w string) error {
	if len(d.in)-d.at < len(w) || string(d.in[d.at:d.at+len(w)]) != w {
		return errSyntax
	}
	d.at += len(w)
	return nil
}

func (d *decoder) number() error {
	d.take('-')
	switch {
	case d.take('0'):
	case d.digits() == 0:
		return errSyntax
	}
	if d.take('.') && d.digits() == 0 {
		return errSyntax
	}
	if d.take('e') || d.take('E') {
		if !d.take('+') {
			d.take('-')
		}
		if d.digits() == 0 {
			return errSyntax
		}
	}
	return nil
}

func (d *decoder) digits() (n int) {
	for d.at < len(d.in) && d.in[d.at] >= '0' && d.in[d.at] <= '9' {
		d.at++
		n++
	}
	return n
}
