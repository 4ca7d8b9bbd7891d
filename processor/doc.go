// Package processor is the worker's side of Stint for Go programs: [Run] registers a processor with a queue, hands
// each item it is given to a [Handler], keeps the item's lease alive while the handler works, and sends the outcome.
//
// It stands on the wire and on nothing else: a connection of nats.go and the subjects, headers and words of package
// wire. Any other NATS client can do what is done here; this package is the careful version of it.
//
// # What holds
//
//   - At most Options.Capacity handlers run at once. An item that comes when all are busy is given back at once, so
//     nothing waits here while another processor is idle. The refusal asks for a short delay, or a broker that has
//     lost count (it was restarted while handlers of this process went on) would offer the same item again and again
//     at the speed of the network.
//   - Each item gets one outcome from here. Whatever a handler does (it returns, panics, ends its goroutine, gives a
//     reply that cannot be sent) an answer leaves for the lease; a panic never ends the process.
//   - While a handler works the lease is kept: a sign of life leaves at a third of the process timeout, and at least
//     every 10 seconds. The handler's context ends when the lease is lost, so that work nobody waits for stops.
//   - A reply is opaque and reaches the sender byte for byte. The few bodies the protocol reads as a word (+ACK, +WPI,
//     -NAK, +TERM) cannot be replies; such a one is reported as a failure and is not sent.
//   - Registration is repeated until the broker says ok: at the start, after each reconnect, and after a minute
//     without work, which brings back a processor that a broker without a store has forgotten.
//   - When Run returns its goroutines, timers and subscription are gone. The one exception is a handler that does not
//     heed its context; Run says so with [ErrUnfinished].
//
// It never opens or closes the connection, replaces none of the connection's handlers, has no global state, and keeps
// no queue of items of its own.
//
// # Life of an item here
//
//	receive ── all busy ──────────────────────────────► -NAK {"delay":...}
//	   │   └── shutting down ─────────────────────────► -NAK
//	   ▼
//	in hand ── sign of life ──► in hand
//	   │   └── deadline, another attempt, connection closed ──► context ends; in hand until the handler returns
//	   ▼
//	handler returned ──► its slot is free ──► answer published
//
// The slot is freed before the answer leaves: the broker may send the next item the moment it has the answer, and that
// item must not be refused.
//
// # When a lease is lost
//
// The deadline of a lease is the last sign of life plus the process timeout. A sign of life counts only when it was
// sent over a connection that was up; while the connection is down none are sent, since a late heap of them is worth
// nothing. A cut connection alone does not end a handler's context: a broker that finds the connection gone gives the
// item to another processor, but one that was itself restarted still waits for the answer, and the first answer wins.
// Another attempt of an item that is still in hand is proof that the first lease has ended, so the first handler's context
// ends. The same attempt once more changes nothing: a broker that was restarted gives it out again, and the handler that is
// at work on it will answer.
//
// After a reconnect everything that has to be said waits until the broker has answered to the registration, whatever it
// says: a broker restarted together with its server may not listen before. Then every item in hand sends its sign of life,
// and the outcomes that were reached meanwhile leave. At most Options.Capacity of those are kept.
//
// An outcome that a handler reaches after its lease was lost is sent all the same. It may still be the first one, and
// it tells the broker that this processor is alive again.
//
// # Why the signs of life are so frequent
//
// The broker does not tell a processor the queue's process timeout. A processor left at the default (5 minutes) in
// front of a queue with 30 seconds would lose every long item if it took a third of its own figure, and 10 seconds
// cost one small publish. Items that are done within 10 seconds send none. For a queue with a timeout below half a
// minute set Options.ProcessTimeout to it. The header Stint-Timeout of an item overrides both.
//
// # Batches
//
// A processor with room for several items lets the broker send several in one message (Options.Batch), and answers those
// that are ready at one time in one. The first answer that is ready lets the goroutines that can run go before it, and then
// takes all answers there are with it; while the items of a message are still being handed to their handlers no answer leaves. So
// nothing waits for time to pass, and a lone answer leaves at once, as a message of its own. Only items that came in a batch
// are answered in one: a broker that knows no batches would take it for the reply to a single item.
//
// # Rejected
//
//   - A hook for errors: a handler can be wrapped in another, which sees every error; what it cannot see is logged.
//   - A deadline on the handler's context: it would move with each sign of life, and the things that read a context's
//     deadline read it once. [Work.Deadline] tells the present one.
//   - Taking up another attempt of an item with the handler that is still at work on it: right after a short cut of
//     the connection, wrong for the handler that hangs, and the two look the same from here.
//   - Registering with a capacity smaller by the handlers that outlived a reconnect: a broker that still counts their
//     leases would subtract them twice.
package processor
