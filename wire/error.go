package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Code is the stable machine word of an error.
type Code string

// The codes. What a sender can do about each is in the package comment.
const (
	CodeBadRequest       Code = "bad_request"       // a body that cannot be read
	CodeBadHeader        Code = "bad_header"        // a Stint- or Nats- header that is unknown, repeated or malformed
	CodeUnsupported      Code = "unsupported"       // a header whose feature does not exist yet
	CodeInvalidSubject   Code = "invalid_subject"   // not a literal NATS subject
	CodeForbiddenSubject Code = "forbidden_subject" // a subject the broker does not publish to
	CodeTooLarge         Code = "too_large"         // the item is above the size limit
	CodeQueueFull        Code = "queue_full"        // the queue's limit of items or bytes is reached
	CodeBusy             Code = "busy"              // the broker cannot take more at this moment
	CodeStoreFailed      Code = "store_failed"      // the store refused; nothing is stored
	CodeDiskFull         Code = "disk_full"         // no space; nothing is stored
	CodeShuttingDown     Code = "shutting_down"     // the broker is stopping
	CodeUnconfirmed      Code = "unconfirmed"       // the write failed so that its outcome is unknown
	CodeDuplicate        Code = "duplicate"         // an item with this id is already there
	CodeDead             Code = "dead"              // all attempts are spent; kept as a dead letter
	CodeExpired          Code = "expired"           // waited longer than its Nats-TTL
	CodeCancelled        Code = "cancelled"         // taken back before it was done
	CodeUnavailable      Code = "unavailable"       // what was asked for is not there now
)

var codeNumbers = map[Code]int{
	CodeBadRequest:       400,
	CodeBadHeader:        400,
	CodeUnsupported:      501,
	CodeInvalidSubject:   400,
	CodeForbiddenSubject: 403,
	CodeTooLarge:         413,
	CodeQueueFull:        429,
	CodeBusy:             503,
	CodeStoreFailed:      500,
	CodeDiskFull:         507,
	CodeShuttingDown:     503,
	CodeUnconfirmed:      504,
	CodeDuplicate:        409,
	CodeDead:             502,
	CodeExpired:          410,
	CodeCancelled:        499,
	CodeUnavailable:      503,
}

// Number is the HTTP-like number that goes out as Nats-Service-Error-Code; 500 for a code that is not listed here.
func (c Code) Number() int {
	if n, ok := codeNumbers[c]; ok {
		return n
	}
	return 500
}

// MaxMessage is the most bytes of a message or reason that travel.
const MaxMessage = 1024

// Error is what a sender or processor is told when something cannot be done: a stable word for programs, and a sentence
// for a person that names what to change.
type Error struct {
	Code    Code
	Message string
}

// Errorf makes an Error with a formatted message.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Body is the JSON body that carries the error: {"status":"error","message":"...","code":"..."}.
func (e *Error) Body() []byte {
	return marshal(struct {
		Status  string `json:"status"`
		Message string `json:"message"`
		Code    Code   `json:"code"`
	}{statusError, clip(e.Message, MaxMessage), e.Code})
}

// Header is the header block that carries the error, as NATS micro services send theirs. Its values never hold a line
// break or another control character, and are never empty.
func (e *Error) Header() Header {
	text := oneLine(e.Message)
	if text == "" {
		text = oneLine(string(e.Code))
	}
	if text == "" {
		text = statusError
	}
	return Header{HeaderErrorCode: {strconv.Itoa(e.Code.Number())}, HeaderError: {text}}
}

// oneLine makes any text fit for a header value.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.IsSpace(r) {
			return ' '
		}
		return r
	}, clip(s, MaxMessage))
	return strings.TrimSpace(s)
}

// marshal is json.Marshal that leaves <, > and & readable; what it is given here always encodes.
func marshal(v any) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		panic(fmt.Sprintf("wire: encode %T: %v", v, err))
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}
