package wire

import "strings"

// Header is the header block of a NATS message: names as sent, each with its values in order.
type Header = map[string][]string

// The headers of a send. The values' grammar is in ParseSend.
const (
	HeaderAcceptedReply = "Stint-Accepted-Reply" // where the accept notice goes
	HeaderMaxAttempts   = "Stint-Max-Attempts"   // attempts before the item is dead
	HeaderTimeout       = "Stint-Timeout"        // process timeout of the item, milliseconds
	HeaderProgress      = "Stint-Progress"       // on a send: wanted; on an answer: this one is intermediate
	HeaderMsgID         = "Nats-Msg-Id"          // deduplication
	HeaderTTL           = "Nats-TTL"             // expiry of waiting work
)

// Headers of a send that this version refuses with code unsupported, so that nobody believes in them before they work.
const (
	HeaderPriority  = "Stint-Priority"
	HeaderDelay     = "Stint-Delay"
	HeaderNotBefore = "Stint-Not-Before"
	HeaderKey       = "Stint-Key"
	HeaderRetain    = "Stint-Retain"
)

// The headers of answers and replies.
const (
	HeaderRetryDelay  = "Stint-Retry-Delay"       // on a failure answer: milliseconds in place of the backoff
	HeaderRedelivered = "Stint-Redelivered"       // "true" on a reply that may have been sent before
	HeaderErrorCode   = "Nats-Service-Error-Code" // a number, as NATS micro services send it
	HeaderError       = "Nats-Service-Error"      // a sentence
)

// headerStatus is where NATS clients put the status of a message that the server itself made.
const headerStatus = "Status"

const (
	prefixStint = "stint-"
	prefixNats  = "nats-"
)

// hasPrefixFold is strings.HasPrefix that ignores the case of name; prefix is lower-case ASCII.
func hasPrefixFold(name, prefix string) bool {
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

// lookup gives the first value of a header whatever its case; the exact spelling goes before all others, and then the
// first in byte order, so that the same header block always reads the same.
func lookup(h Header, name string) string {
	if values := h[name]; len(values) > 0 {
		return values[0]
	}
	value, from := "", ""
	for key, values := range h {
		if len(key) == len(name) && len(values) > 0 && (from == "" || key < from) && strings.EqualFold(key, name) {
			value, from = values[0], key
		}
	}
	return value
}

// OfItem takes out of the headers of a send what concerns the message alone, the sender's accept subject and the headers of
// batches, and gives what applies to each of its items, is stored and travels. It is nil when nothing is left.
func OfItem(h Header) Header {
	for name := range h {
		if ofMessage(name) {
			delete(h, name)
		}
	}
	if len(h) == 0 {
		return nil
	}
	return h
}

func ofMessage(name string) bool {
	for _, own := range [...]string{HeaderAcceptedReply, HeaderBatch, HeaderBatchReplies} {
		if len(name) == len(own) && strings.EqualFold(name, own) {
			return true
		}
	}
	return false
}

// PassedOn gives the headers of a send that go back on its reply: all but Stint- and Nats- ones, and Status, which on an
// empty reply would read as "no responders". It is nil when none is left. The values are shared with h, not copied.
func PassedOn(h Header) Header {
	var out Header
	for name, values := range h {
		if hasPrefixFold(name, prefixStint) || hasPrefixFold(name, prefixNats) || strings.EqualFold(name, headerStatus) {
			continue
		}
		if out == nil {
			out = make(Header, len(h))
		}
		out[name] = values
	}
	return out
}
