package wire

import (
	"bytes"
	"strings"
	"time"
)

// Limits of a send.
const (
	MaxTimeout  = 30 * 24 * time.Hour       // of Stint-Timeout
	MaxTTL      = 10 * 365 * 24 * time.Hour // of Nats-TTL
	MaxAttempts = 1_000_000                 // of Stint-Max-Attempts
	MaxMsgID    = 256                       // of Nats-Msg-Id, bytes
)

// Send is what a send asks for besides its body. A zero field was not given, and the queue's own setting holds.
type Send struct {
	AcceptedReply string        // where the accept notice goes
	MsgID         string        // deduplication
	TTL           time.Duration // expiry of waiting work
	NoExpiry      bool          // Nats-TTL: never; TTL is then 0
	MaxAttempts   uint32        // attempts before the item is dead
	Timeout       time.Duration // process timeout
	Progress      bool          // intermediate replies are wanted
	Batch         string        // how many frames the body is, as it was sent; empty: it is one item
	Gathered      bool          // replies that are ready at one time may come in one message
}

// ParseSend reads the headers of a send, and from its body accepted_reply and nothing else; the header wins over the
// body. Names of Stint- and Nats- headers count in any case, values must be exact:
//
//	Stint-Accepted-Reply  a subject, as CheckSubject wants it
//	Stint-Batch           the body is a batch: see ReadFrames, which checks the value
//	Stint-Batch-Replies   gathered; with Stint-Batch only
//	Stint-Max-Attempts    a whole number, 1 to MaxAttempts
//	Stint-Progress        true or false
//	Stint-Timeout         milliseconds, 1 to MaxTimeout
//	Nats-Msg-Id           1 to MaxMsgID bytes
//	Nats-TTL              seconds, or a Go duration such as 90s or 1h (from one millisecond to MaxTTL), or never
//
// The code of an error is bad_header for an unknown Stint- header, a repeated header and a bad value; unsupported for
// Stint-Priority, -Delay, -Not-Before, -Key and -Retain; invalid_subject or forbidden_subject for the accept subject. Other
// Nats- headers are left alone. Of several errors the one of the first header by name is given.
//
// With an error the Send carries nothing but AcceptedReply, when a usable one was found in the header or else in the body,
// so that the error can be sent there. Whether the broker may publish to it is not decided here: see CheckTarget.
func ParseSend(h Header, body []byte) (Send, *Error) {
	var r sendReader
	for name, values := range h {
		if hasPrefixFold(name, prefixStint) || hasPrefixFold(name, prefixNats) {
			r.read(name, values)
		}
	}
	switch {
	case r.send.Batch != "":
		r.checkBatch()
	case r.send.Gathered:
		r.fail(HeaderBatchReplies, Errorf(CodeBadHeader, "header %s is for a batch: leave it out, or send one with %s", HeaderBatchReplies, HeaderBatch))
	}
	return r.end(body)
}

// leanHead is how the header block of a send begins that names its accept subject and nothing else.
const leanHead = "NATS/1.0\r\n" + HeaderAcceptedReply + ": "

// ParseLeanSend is ParseSend for a header block as it comes from the server, if that is empty or has nothing but
// Stint-Accepted-Reply, in this spelling: ok is false for any other. An item of such a send has no headers of its own.
func ParseLeanSend(block, body []byte) (s Send, err *Error, ok bool) {
	var r sendReader
	if len(block) > 0 {
		value, cut := bytes.CutPrefix(block, []byte(leanHead))
		value, end := bytes.CutSuffix(value, []byte("\r\n\r\n"))
		if !cut || !end || len(value) == 0 || value[0] == ' ' || value[0] == '\t' || bytes.IndexByte(value, '\r') >= 0 || bytes.IndexByte(value, '\n') >= 0 {
			return s, nil, false
		}
		r.fail(HeaderAcceptedReply, setAcceptedReply(&r.send, string(value)))
	}
	s, err = r.end(body)
	return s, err, true
}

// sendReader gathers a Send from headers in whatever order a map gives them.
type sendReader struct {
	send Send
	seen uint   // a bit for each of sendHeaders that came
	err  *Error // of the first header by name
	name string // that header
}

// sendHeaders are the headers that mean something on a send; an index here is a bit in sendReader.seen.
var sendHeaders = [...]string{
	HeaderAcceptedReply, HeaderMaxAttempts, HeaderProgress, HeaderTimeout, HeaderMsgID, HeaderTTL,
	HeaderPriority, HeaderDelay, HeaderNotBefore, HeaderKey, HeaderRetain, HeaderBatch, HeaderBatchReplies,
}

func (r *sendReader) read(name string, values []string) {
	for i, known := range sendHeaders {
		if len(name) == len(known) && strings.EqualFold(name, known) {
			r.apply(i, values)
			return
		}
	}
	if hasPrefixFold(name, prefixStint) {
		r.fail(name, Errorf(CodeBadHeader, "header %s is not known on a send: correct or remove it; known are %s, %s, %s, %s, %s and %s",
			show(name), HeaderAcceptedReply, HeaderBatch, HeaderBatchReplies, HeaderMaxAttempts, HeaderProgress, HeaderTimeout))
	}
}

func (r *sendReader) apply(index int, values []string) {
	name, bit := sendHeaders[index], uint(1)<<index
	if len(values) > 1 || r.seen&bit != 0 {
		r.fail(name, Errorf(CodeBadHeader, "header %s is given more than once: send it once", name))
	}
	r.seen |= bit
	value := ""
	if len(values) > 0 {
		value = values[0]
	}
	r.fail(name, r.set(name, value))
}

// set is a switch and not a table of functions, as a call through a table would put the reader on the heap.
func (r *sendReader) set(name, value string) *Error {
	switch name {
	case HeaderAcceptedReply:
		return setAcceptedReply(&r.send, value)
	case HeaderMaxAttempts:
		return setMaxAttempts(&r.send, value)
	case HeaderProgress:
		return setProgress(&r.send, value)
	case HeaderTimeout:
		return setTimeout(&r.send, value)
	case HeaderMsgID:
		return setMsgID(&r.send, value)
	case HeaderTTL:
		return setTTL(&r.send, value)
	case HeaderBatch:
		return setBatch(&r.send, value)
	case HeaderBatchReplies:
		return setBatchReplies(&r.send, value)
	}
	return Errorf(CodeUnsupported, "header %s is not supported by this version: remove it", name)
}

// checkBatch refuses what would be said of all items of a batch at once and makes no sense so.
func (r *sendReader) checkBatch() {
	if r.send.MsgID != "" {
		r.fail(HeaderMsgID, Errorf(CodeBadHeader, "header %s stands on a batch: give each item its own, in the header block of its frame", HeaderMsgID))
	}
}

// end gives what was read, once the headers are through.
func (r *sendReader) end(body []byte) (Send, *Error) {
	if r.send.AcceptedReply == "" && r.send.Batch == "" {
		r.readBody(body)
	}
	if r.err != nil {
		return Send{AcceptedReply: r.send.AcceptedReply}, r.err
	}
	return r.send, nil
}

func (r *sendReader) readBody(body []byte) {
	subject, found := AcceptedReply(body)
	if !found {
		return
	}
	if err := checkNamed(subject); err != nil {
		r.fail("accepted_reply", Errorf(err.Code, "accepted_reply in the body: %s", err.Message))
		return
	}
	r.send.AcceptedReply = subject
}

// fail keeps the error of the first header by name, and of one header the first.
func (r *sendReader) fail(name string, err *Error) {
	if err != nil && (r.err == nil || name < r.name) {
		r.err, r.name = err, name
	}
}

func setAcceptedReply(s *Send, value string) *Error {
	if err := checkNamed(value); err != nil {
		return Errorf(err.Code, "header %s: %s", HeaderAcceptedReply, err.Message)
	}
	s.AcceptedReply = value
	return nil
}

func setMaxAttempts(s *Send, value string) *Error {
	n, ok := parseDecimal(value)
	if !ok || n < 1 || n > MaxAttempts {
		return badValue(HeaderMaxAttempts, value, "a whole number from 1 to 1000000")
	}
	s.MaxAttempts = uint32(n)
	return nil
}

func setProgress(s *Send, value string) *Error {
	if value != "true" && value != "false" {
		return badValue(HeaderProgress, value, "true or false")
	}
	s.Progress = value == "true"
	return nil
}

func setTimeout(s *Send, value string) *Error {
	ms, ok := parseDecimal(value)
	if !ok || ms < 1 || ms > uint64(MaxTimeout/time.Millisecond) {
		return badValue(HeaderTimeout, value, "a whole number of milliseconds from 1 to 2592000000 (30 days)")
	}
	s.Timeout = time.Duration(ms) * time.Millisecond
	return nil
}

func setBatch(s *Send, value string) *Error {
	if value == "" {
		return badValue(HeaderBatch, value, "the number of frames in the body")
	}
	s.Batch = value
	return nil
}

func setBatchReplies(s *Send, value string) *Error {
	if value != gathered {
		return badValue(HeaderBatchReplies, value, gathered+", or leave it out")
	}
	s.Gathered = true
	return nil
}

// ParseFrameSend reads the headers of an item of a batch: those of its frame, and what Shared gives of the message. Headers
// that belong to the message as a whole are refused with bad_header.
func ParseFrameSend(h Header) (Send, *Error) {
	for _, name := range [...]string{HeaderAcceptedReply, HeaderBatch, HeaderBatchReplies, HeaderBatchKey} {
		if has(h, name) {
			return Send{}, Errorf(CodeBadHeader, "header %s stands in a frame: set it on the message", name)
		}
	}
	return ParseSend(h, nil)
}

func setMsgID(s *Send, value string) *Error {
	if value == "" {
		return Errorf(CodeBadHeader, "header %s is empty: give the item an id, or leave the header out", HeaderMsgID)
	}
	if len(value) > MaxMsgID {
		return Errorf(CodeBadHeader, "header %s is %d bytes long: use at most %d", HeaderMsgID, len(value), MaxMsgID)
	}
	s.MsgID = value
	return nil
}

func setTTL(s *Send, value string) *Error {
	if strings.EqualFold(value, "never") {
		s.NoExpiry = true
		return nil
	}
	ttl, ok := parseTTL(value)
	if !ok || ttl < time.Millisecond || ttl > MaxTTL {
		return badValue(HeaderTTL, value, "whole seconds, a duration such as 90s or 1h (1ms to 10 years), or never")
	}
	s.TTL = ttl
	return nil
}

func parseTTL(value string) (time.Duration, bool) {
	if seconds, ok := parseDecimal(value); ok {
		if seconds > uint64(MaxTTL/time.Second) {
			return 0, false
		}
		return time.Duration(seconds) * time.Second, true
	}
	ttl, err := time.ParseDuration(value)
	return ttl, err == nil
}

func badValue(name, value, want string) *Error {
	return Errorf(CodeBadHeader, "header %s is %s: give %s", name, show(value), want)
}
