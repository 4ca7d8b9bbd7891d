package wire

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxDelay is the longest delay that an answer can ask for; a longer one is cut to it.
const MaxDelay = 30 * 24 * time.Hour

// The control words, as the acknowledgement helpers of NATS clients send them.
const (
	WordAck     = "+ACK"
	WordWorking = "+WPI"
	WordNak     = "-NAK"
	WordTerm    = "+TERM"
)

// AnswerKind is what an answer means. The zero value means nothing.
type AnswerKind uint8

const (
	Done         AnswerKind = iota + 1 // the item is finished; Body goes to the sender
	Working                            // the deadline starts anew
	Nak                                // give it to someone else, after Delay if HasDelay
	Term                               // never again: dead letter, because of Reason
	Failed                             // the attempt failed, because of Code and Reason; try after Delay if HasDelay
	Progress                           // intermediate: Body goes to a sender that asked for it
	Turn                               // a turn of a conversation: Body goes to the sender, who may answer
	NoResponders                       // not from a processor: NATS says that nobody listens at its subject
)

var kindNames = [...]string{"none", "done", "working", "nak", "term", "failed", "progress", "turn", "no_responders"}

// String names the kind for logs.
func (k AnswerKind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "kind_" + strconv.Itoa(int(k))
}

// Answer is what came on a lease subject.
type Answer struct {
	Kind     AnswerKind
	Delay    time.Duration // Nak and Failed, 0 to MaxDelay
	HasDelay bool          // Delay was asked for; without it the queue's own backoff holds
	Reason   string        // Term and Failed: at most MaxMessage bytes of valid UTF-8
	Code     string        // Failed: the text of Nats-Service-Error-Code
	Body     []byte        // what to forward: for Done, Progress, Turn and Failed; empty for +ACK. Shared, not copied
}

// ParseAnswer reads what came on a lease subject; reply is its own reply subject or empty. Every input means something, as
// there is nobody to send an error to. In this order:
//
//  1. Status 503 and no body, which the NATS server sends for an absent processor: NoResponders.
//  2. Nats-Service-Error-Code or Nats-Service-Error, not empty: Failed. A Stint-Retry-Delay of whole milliseconds sets
//     Delay; one that cannot be read is ignored.
//  3. The control words: +ACK, +WPI, -NAK, +TERM, in capitals and from the first byte. +ACK and +WPI stand alone. -NAK may
//     carry {"delay":<nanoseconds>} or a Go duration; anything else after it is a -NAK with no delay, so nothing is lost.
//     +TERM may carry a reason after a space.
//  4. Stint-Progress with any value but false: Progress. A value that was meant otherwise must not settle the item.
//  5. A reply subject: Turn.
//  6. All else: Done.
func ParseAnswer(h Header, body []byte, reply string) Answer {
	if len(h) > 0 {
		if a, ok := answerByHeader(h, body); ok {
			return a
		}
	}
	if a, ok := controlWord(body); ok {
		return a
	}
	kind := Done
	switch {
	case len(h) > 0 && isProgress(h):
		kind = Progress
	case reply != "":
		kind = Turn
	}
	return Answer{Kind: kind, Body: body}
}

func answerByHeader(h Header, body []byte) (Answer, bool) {
	if len(body) == 0 && lookup(h, headerStatus) == "503" {
		return Answer{Kind: NoResponders}, true
	}
	code, reason := lookup(h, HeaderErrorCode), lookup(h, HeaderError)
	if code == "" && reason == "" {
		return Answer{}, false
	}
	a := Answer{Kind: Failed, Code: text(code), Reason: text(reason), Body: body}
	if ms, ok := parseDecimal(lookup(h, HeaderRetryDelay)); ok {
		a.HasDelay = true
		a.Delay = time.Duration(min(ms, uint64(MaxDelay/time.Millisecond))) * time.Millisecond
	}
	return a, true
}

func isProgress(h Header) bool {
	value := lookup(h, HeaderProgress)
	return value != "" && !strings.EqualFold(value, "false")
}

func controlWord(body []byte) (Answer, bool) {
	if len(body) < len(WordAck) || body[0] != '+' && body[0] != '-' {
		return Answer{}, false
	}
	switch {
	case string(body) == WordAck:
		return Answer{Kind: Done}, true
	case string(body) == WordWorking:
		return Answer{Kind: Working}, true
	}
	if rest, ok := afterWord(body, WordNak); ok {
		return nak(rest), true
	}
	if rest, ok := afterWord(body, WordTerm); ok {
		// A few bytes more than text keeps, so that it is text that cuts, between characters.
		return Answer{Kind: Term, Reason: text(string(rest[:min(len(rest), MaxMessage+utf8.UTFMax)]))}, true
	}
	return Answer{}, false
}

// afterWord gives what follows a control word. The word must end there: -NAKED is a body like any other. An object may
// follow without a space, as NATS reads it.
func afterWord(body []byte, word string) (rest []byte, ok bool) {
	if !hasPrefix(body, word) {
		return nil, false
	}
	rest = body[len(word):]
	if len(rest) > 0 && rest[0] != '{' && skipSpace(rest, 0) == 0 {
		return nil, false
	}
	return bytes.TrimSpace(rest), true
}

// maxNakOptions is more than any sensible object after -NAK; a longer one is not decoded.
const maxNakOptions = 256

func nak(options []byte) Answer {
	a := Answer{Kind: Nak}
	if len(options) == 0 || len(options) > maxNakOptions {
		return a
	}
	delay, ok := nakDelay(options)
	if !ok || delay < 0 {
		return a
	}
	a.Delay, a.HasDelay = min(delay, MaxDelay), true
	return a
}

func nakDelay(options []byte) (time.Duration, bool) {
	if options[0] != '{' {
		delay, err := time.ParseDuration(string(options))
		return delay, err == nil
	}
	var parsed struct{ Delay *float64 }
	if json.Unmarshal(options, &parsed) != nil || parsed.Delay == nil {
		return 0, false
	}
	return time.Duration(min(*parsed.Delay, float64(MaxDelay))), *parsed.Delay >= 0
}

// text makes what a processor wrote fit to be stored and shown.
func text(s string) string {
	return clip(strings.ToValidUTF8(strings.TrimSpace(s), "\uFFFD"), MaxMessage)
}

// NakBody is the answer that gives the item back, to be given out again after delay: at once when it is zero or less.
func NakBody(delay time.Duration) []byte {
	if delay <= 0 {
		return []byte(WordNak)
	}
	return append(strconv.AppendInt([]byte(WordNak+` {"delay":`), int64(delay), 10), '}')
}

// TermBody is the answer that makes the item a dead letter.
func TermBody(reason string) []byte {
	if reason = text(reason); reason == "" {
		return []byte(WordTerm)
	}
	return []byte(WordTerm + " " + reason)
}
