// Package wire is the contract between senders, the broker and processors, as Go: the subjects, headers, bodies, codes
// and limits, and the checks of everything that comes from outside. A sender or processor needs none of it, only a NATS
// client and this page.
//
// # Words
//
// A queue has one address. A sender publishes an item there; the broker stores it and delivers it as work to a processor,
// which holds it under a lease. Each delivery is an attempt with a number of its own. A processor tells the broker of
// itself by a registration. What comes back to the sender is the reply.
//
// # Life of an item
//
//	                send
//	                  |
//	                  |  stored: "accepted"
//	                  v
//	            +-----------+   Nats-TTL ran out -----> expired
//	 +--------> |   ready   |   taken back -----------> cancelled
//	 |          +-----------+
//	 |            |       ^
//	 |  delivered |       |  -NAK, process timeout,
//	 |            v       |  nobody at the processor's subject
//	 |          +-----------+   answer ---------------> done
//	 |          |  leased   |
//	 |          +-----------+   +TERM, attempts spent -> dead  (kept; a person may requeue it: ready)
//	 | due        |
//	 |            |  -NAK with a delay, failed: backoff
//	 |            v
//	 |          +-----------+   Nats-TTL ran out -----> expired
//	 +--------- |  delayed  |   taken back -----------> cancelled
//	            +-----------+
//
//	+WPI, progress and the turns of a conversation keep it leased, with a new deadline.
//	done, dead, expired and cancelled each end in one final reply to the sender. Taking an item back and requeueing a
//	dead letter have their place in the contract and are not offered yet.
//
// # Subjects of a queue at address A
//
//	A                          sender     an item; the body is opaque bytes and is never changed
//	A.register                 processor  {"processor":"<subject>","capacity":N,"batch":N}
//	A.unregister               processor  {"processor":"<subject>"}
//	<processor's subject>      broker     work: body and headers as sent; the reply subject is the lease
//	A.lease.<item>.<attempt>   processor  the outcome of that attempt
//	A.talk.<item>.<n>          sender     the sender's turn in a conversation
//	A.event.<kind>             broker     events, off by default
//
// <item> is the item's id: 64 bits in base 36, lower case, no leading zeros. <attempt> is decimal, 1 to 4294967295; <n> is
// decimal from 0. Each number has one spelling, so one lease has one subject.
//
// An address is a literal subject of at most 256 bytes: no wildcard, no white space, not starting with $ or _, its last
// token none of register, unregister, lease, talk and event. No address lies at or under the reserved subjects of another.
//
// A subject that a client names (reply, accepted_reply, processor) is published to by the broker, in the broker's name. It
// must be literal, valid UTF-8, at most 1024 bytes, and must not start with $ or belong to the broker itself; an operator may
// allow certain patterns only. Anything else is an error with code invalid_subject or forbidden_subject, not silence.
//
// # Send
//
// The message's reply subject is where the final reply goes; without one nobody is told the outcome. The accept notice goes
// to the header Stint-Accepted-Reply or, without it, to the top-level string accepted_reply of a JSON body, also spelled
// accepted-reply; the first spelling goes before the second, and the last of repeated keys counts. The key must be written
// without escapes. Any other body is fine too.
//
//	Stint-Accepted-Reply  subject of the accept notice
//	Stint-Batch           the body is so many frames: see Batches
//	Stint-Batch-Replies   gathered: replies come as batches
//	Stint-Max-Attempts    1 to 1000000 attempts before the item is dead
//	Stint-Progress        true: intermediate replies are wanted; false
//	Stint-Timeout         process timeout of this item, 1 to 2592000000 milliseconds (30 days)
//	Nats-Msg-Id           deduplication, 1 to 256 bytes
//	Nats-TTL              expiry of waiting work: whole seconds, a duration (90s, 1h), or never; 1 ms to 10 years
//
// Names of these headers count in any case, each may be given once, and a Stint- header that is not in the list is refused:
// a typing error must not change what happens in silence. Stint-Priority, Stint-Delay, Stint-Not-Before, Stint-Key and
// Stint-Retain are refused with code unsupported. Nats- headers that are not in the list mean nothing here. All headers
// travel to the processor; all but Stint-, Nats- and Status come back on the reply.
//
// The accept notice is {"status":"accepted","id":"<item>"}: the item is on stable storage, or done already, and in a queue
// without a persistor it is in memory. When its Nats-Msg-Id was on record before, "duplicate":true is added. When anything stops the item
// from being queued, {"status":"error","message":"...","code":"..."} goes to the accept subject and to the reply subject.
//
// # Register and unregister
//
// The reply is {"status":"ok"} or an error as above. capacity is a whole number from 1 to 10000, 1 when absent: how many
// items the processor may hold at once. batch, 0 to 1000, 0 when absent: how many of them may come in one message; with 1 or more
// all work comes in batches. Registering again replaces both and never yields a second slot. Keys that
// are not known are ignored; a body has at most 16384 bytes.
//
// # Answers on the lease subject
//
//	Status: 503, no body                      sent by the NATS server: nobody listens at the processor's subject
//	Nats-Service-Error-Code or -Error         failed: counts an attempt; Stint-Retry-Delay: <ms> replaces the backoff
//	+ACK                                      done, with an empty reply
//	+WPI                                      still working: the deadline starts anew
//	-NAK or -NAK {"delay":<ns>} or -NAK 5s    someone else, now or after the delay
//	+TERM or +TERM <reason>                   never again: dead
//	Stint-Progress: true                      intermediate: forwarded if wanted; the deadline starts anew
//	with a reply subject of its own           a turn of a conversation: forwarded with A.talk.<item>.<n> as reply subject
//	anything else, or empty                   done: the body is forwarded
//
// The first line that fits counts. Delays are cut to 30 days. A first answer that ends the item wins; later ones change
// nothing.
//
// # Batches
//
// A message with the header Stint-Batch: <n>, 1 to 1000, has a body of exactly n frames, in all directions:
//
//	<key> SP <header bytes> SP <body bytes> LF <header block> <body> LF
//
// The key is 1 to 64 printable ASCII characters; the lengths are decimal without leading zeros; the header block is zero or
// more lines `Name: value` CR LF. In a send the keys are the sender's own, in work and answers <item>.<attempt>. Headers of a
// message that is sent hold for every item, those of a frame go before them. The reply subject of work is the lease of its first
// item; answers go to any lease subject of the queue. The one accept notice is
// {"status":"accepted","id":"<first>","count":n}, with consecutive ids in the order of the frames, and with "duplicates"
// ([{"key","id"}]) and "refused" ([{"code","message","keys"}]) for those that have none of their own. Replies have the header
// Stint-Batch-Key, or are frames under that key.
//
// # The final reply
//
// It is the processor's reply, or an error body with the headers Nats-Service-Error-Code (a number, as of HTTP) and
// Nats-Service-Error (a sentence). Exactly one comes for each item. Stint-Redelivered: true marks a reply that may have been
// sent before, by a broker that has been restarted since.
//
// # Codes
//
//	bad_request        400  correct the body
//	bad_header         400  correct or remove the header that is named
//	unsupported        501  remove the header that is named
//	invalid_subject    400  name a literal subject
//	forbidden_subject  403  name another subject, or ask the operator to allow it
//	too_large          413  send a smaller item, or raise the limit
//	queue_full         429  send later, add processors, or raise the queue's limit
//	busy               503  send later, and more slowly
//	store_failed       500  nothing is stored: send again; the operator must look at the store
//	disk_full          507  nothing is stored: send again when there is space
//	shutting_down      503  send again when the broker is back
//	unconfirmed        504  it may be stored or not: send again with the same Nats-Msg-Id
//	duplicate          409  it is there already
//	dead               502  all attempts are spent; it is kept for a person to look at
//	expired            410  it waited longer than its Nats-TTL
//	cancelled          499  it was taken back
//	unavailable        503  ask again later
//
// # What the package never does
//
// It has no goroutine, clock, connection or state, and depends on the standard library alone, so the rules, the broker, the
// commands and the processor package can all stand on it. It does not decide what happens to an item. Readers of outside
// bytes never panic, never recurse with the depth of the input, and refuse or bound whatever could be large. What runs for
// every item (ParseLease, AcceptedReply, ParseSend, ParseAnswer, CheckTarget) does not allocate beyond its result.
//
// # Why it is so
//
// AcceptedReply has a scanner of its own: decoding every body as JSON to find one field took a twelfth of the whole broker's
// time. It still insists on valid JSON to the end, so that a body that merely looks like JSON names no subject by accident.
//
// ParseAnswer has no error: there is nobody to send it to. Each doubtful input is read in the way that loses least, so a
// spoilt -NAK still gives the item back and a spoilt Stint-Progress does not end it.
//
// Header names are matched in any case, since some clients write them as HTTP does, but values are exact: "1e3" or " 5" as
// a number of attempts is more likely a mistake than a style.
//
// A frame says its lengths first and in text, so that any language reads it with a search for LF and two slices, and a person
// reads it in a trace. Rejected: a JSON array, which needs base 64 for bytes that are no text and a full decode for each message;
// fixed-width binary lengths, which save a few bytes and can be read in no trace; NATS' own header block with its
// status line and empty line, which says nothing more. The count stands in the header of the message so that a body that was cut
// at the end of a frame is noticed.
//
// A subject tree under one reserved token (A.stint.register) would keep addresses freer, but A.register is what processors of
// the original protocol use, and they must keep working.
package wire
