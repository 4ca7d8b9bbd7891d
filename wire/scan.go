package wire

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// The two spellings of the body's one key that counts: the documented one, and the one the original's code reads.
const (
	keyAccepted       = `"accepted_reply"`
	keyAcceptedHyphen = `"accepted-reply"`
	keyCommon         = `"accepted`
)

// maxDepth is how deep a body may nest, the limit that encoding/json has.
const maxDepth = 10_000

// AcceptedReply finds the top-level string accepted_reply (or accepted-reply; the first spelling goes before the second) in
// a body that is a JSON object. Of a repeated key the last counts. A value that is not a string counts as absent; so does
// everything when the body as a whole is not valid JSON, or nests deeper than 10,000. The key must be written as it is,
// without escapes. The value is not checked: it may be empty, and bytes that are not UTF-8 stay as they are, so that
// CheckSubject refuses them.
//
// A body without the name costs one search for it, and one that is no object not even that. Otherwise the body is walked
// once, in a loop, not by recursion; nothing is decoded but the value, which is the only allocation unless it has escapes.
func AcceptedReply(body []byte) (subject string, found bool) {
	start := skipSpace(body, 0)
	if start == len(body) || body[start] != '{' || !mentionsAccepted(body) {
		return "", false
	}
	raw, valid := acceptedValue(body, start)
	if !valid || raw == nil {
		return "", false
	}
	subject, err := unquote(raw)
	return subject, err == nil
}

// mentionsAccepted is the cheap test that nearly all bodies fail.
func mentionsAccepted(body []byte) bool {
	for {
		at := bytes.Index(body, []byte(keyCommon))
		if at < 0 {
			return false
		}
		body = body[at:]
		if hasPrefix(body, keyAccepted) || hasPrefix(body, keyAcceptedHyphen) {
			return true
		}
		body = body[len(keyCommon):]
	}
}

func hasPrefix(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix
}

// acceptedValue walks the object that starts at i and gives the quoted value that counts, or nil; valid says whether the
// body is JSON to its end.
func acceptedValue(b []byte, i int) (raw []byte, valid bool) {
	var underscore, hyphen []byte
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return nil, skipSpace(b, i+1) == len(b)
	}
	for {
		key := i
		if i = skipKey(b, i); i < 0 {
			return nil, false
		}
		value := i
		if i = skipValue(b, i); i < 0 {
			return nil, false
		}
		switch {
		case hasPrefix(b[key:], keyAccepted):
			underscore = stringOnly(b[value:i])
		case hasPrefix(b[key:], keyAcceptedHyphen):
			hyphen = stringOnly(b[value:i])
		}
		if i = skipSpace(b, i); i == len(b) {
			return nil, false
		}
		if b[i] == '}' {
			break
		}
		if b[i] != ',' {
			return nil, false
		}
		i = skipSpace(b, i+1)
	}
	if underscore == nil {
		underscore = hyphen
	}
	return underscore, skipSpace(b, i+1) == len(b)
}

func stringOnly(value []byte) []byte {
	if value[0] != '"' {
		return nil
	}
	return value
}

// unquote decodes a valid JSON string. Without escapes its bytes are the value; with bytes that are not UTF-8 they are
// left alone, for the subject check to refuse, where encoding/json would put other characters in their place.
func unquote(raw []byte) (string, error) {
	inner := raw[1 : len(raw)-1]
	if bytes.IndexByte(inner, '\\') < 0 || !utf8.Valid(inner) {
		return string(inner), nil
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err
}

// The skip functions take the place where something begins and give the place after it, or -1 when it is not valid JSON.

// nesting remembers for each open bracket whether it is an object's, a bit each, so that depth costs no memory.
type nesting struct {
	depth  int
	object [maxDepth/64 + 1]uint64
}

// push opens a bracket; the body's own is not counted here, so one less fits.
func (n *nesting) push(object bool) bool {
	if n.depth == maxDepth-1 {
		return false
	}
	word, bit := n.depth/64, uint64(1)<<(n.depth%64)
	n.object[word] &^= bit
	if object {
		n.object[word] |= bit
	}
	n.depth++
	return true
}

func (n *nesting) inObject() bool {
	at := n.depth - 1
	return n.object[at/64]&(1<<(at%64)) != 0
}

// skipValue skips one value of any kind.
func skipValue(b []byte, i int) int {
	if i < len(b) && b[i] != '{' && b[i] != '[' {
		return skipScalar(b, i)
	}
	return skipNested(b, i)
}

// skipNested skips an object or array with all it holds.
func skipNested(b []byte, i int) int {
	var open nesting
	for {
		if i = skipOpening(b, i, &open); i < 0 {
			return -1
		}
		if i = skipClosing(b, i, &open); i < 0 || open.depth == 0 {
			return i
		}
	}
}

// skipOpening skips brackets and keys up to and with the first scalar, or up to the closing bracket of an empty one.
func skipOpening(b []byte, i int, open *nesting) int {
	for i < len(b) && (b[i] == '{' || b[i] == '[') {
		object := b[i] == '{'
		if !open.push(object) {
			return -1
		}
		if i = skipSpace(b, i+1); i == len(b) {
			return -1
		}
		if b[i] == '}' && object || b[i] == ']' && !object {
			return i
		}
		if object {
			if i = skipKey(b, i); i < 0 {
				return -1
			}
		}
	}
	return skipScalar(b, i)
}

// skipClosing skips closing brackets, and then a comma (and key) up to the next value, if one is left open.
func skipClosing(b []byte, i int, open *nesting) int {
	for open.depth > 0 {
		if i = skipSpace(b, i); i == len(b) {
			return -1
		}
		object := open.inObject()
		switch {
		case b[i] == '}' && object, b[i] == ']' && !object:
			open.depth--
			i++
		case b[i] != ',':
			return -1
		case object:
			return skipKey(b, skipSpace(b, i+1))
		default:
			return skipSpace(b, i+1)
		}
	}
	return i
}

// skipKey skips a key, its colon and the space up to the value.
func skipKey(b []byte, i int) int {
	if i == len(b) || b[i] != '"' {
		return -1
	}
	if i = skipString(b, i); i < 0 {
		return -1
	}
	if i = skipSpace(b, i); i == len(b) || b[i] != ':' {
		return -1
	}
	return skipSpace(b, i+1)
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

func skipScalar(b []byte, i int) int {
	if i == len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case 't':
		return skipWord(b, i, "true")
	case 'f':
		return skipWord(b, i, "false")
	case 'n':
		return skipWord(b, i, "null")
	}
	return skipNumber(b, i)
}

func skipWord(b []byte, i int, word string) int {
	if !hasPrefix(b[i:], word) {
		return -1
	}
	return i + len(word)
}

func skipString(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"':
			return i + 1
		case c < ' ':
			return -1
		case c == '\\':
			if i = skipEscape(b, i); i < 0 {
				return -1
			}
		}
	}
	return -1
}

// skipEscape gives the place of an escape's last byte.
func skipEscape(b []byte, i int) int {
	if i++; i == len(b) {
		return -1
	}
	switch b[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i
	case 'u':
		if i+4 < len(b) && isHex(b[i+1]) && isHex(b[i+2]) && isHex(b[i+3]) && isHex(b[i+4]) {
			return i + 4
		}
	}
	return -1
}

func isHex(c byte) bool { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func skipNumber(b []byte, i int) int {
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if i = skipDigits(b, i); i < 0 {
		return -1
	}
	if i < len(b) && b[i] == '.' {
		if i = skipDigits(b, i+1); i < 0 {
			return -1
		}
	}
	if i == len(b) || b[i]|0x20 != 'e' {
		return i
	}
	if i++; i < len(b) && (b[i] == '+' || b[i] == '-') {
		i++
	}
	return skipDigits(b, i)
}

// skipDigits skips one digit or more.
func skipDigits(b []byte, i int) int {
	from := i
	for i < len(b) && isDigit(b[i]) {
		i++
	}
	if i == from {
		return -1
	}
	return i
}
