// Package broker puts queues to work: it takes what comes in over NATS, lets the rules of the queue decide (package
// broker/queue), has the store write it down (package store), and says what may be said.
//
// Who owns what:
//
//	owner   a goroutine for the queues of a database, or for a share of them on a large machine. It owns their actors: the
//	        rules of one queue each, and what is needed to do what they say. Nothing in here is locked: what others know
//	        reaches the owner through its channels.
//	intake  a goroutine for each owner. It takes messages from NATS, translates, checks, and sends the owner events for its
//	        actors, by the parcel.
//	bus     the broker's connection: what leaves, and what is asked of the server.
//	tap     the way past the client library for what arrives: see package tap. Over TLS, or without a TCP connection, everything
//	        comes through the library, and means the same.
//	Broker  starts, watches and stops the set. Its watcher goroutine looks for processors whose subscription is gone.
//
// An owner's round: take the results of batches, then what waits in the mailbox, up to a bound; step each event. Then for each
// actor that was concerned: publish what may leave at once; read what the rules want read; hand the writer the next batch if
// none is under way. Then sleep until something comes or time is up. What is tied to a commit leaves when the commit's result
// has come back, and only if it was good.
//
// Replies to items of a batch whose sender wants them gathered wait in the gatherer until the round has nothing else to say, and
// leave in one message for each subject; only then do the rules hear that they were delivered. So an accept notice that
// follows from a delivery cannot leave before the reply, as with a reply by itself.
//
// What an actor may have to step is bounded: its mailbox. When that is full, what comes for it waits in front of it, with the
// intake; when maxBacklog waits there the item is refused with code "busy": a sender is told, nothing is dropped in silence.
// (What the intake has not come to waits in the server, or where the library brings it in a channel with room for a tenth of a
// second, beyond which nats.go drops it without a word to the publisher. So the intake waits for nobody.)
//
// Rejected: a goroutine for each queue, which was simpler. With 1,000 busy queues each woke for its items alone, and an item cost
// eight times what it does when few wake-ups, one timer and one view of how busy things are serve all of them. And a
// callback of nats.go for each subscription: that is a goroutine each, five for a queue.
//
// Never here: a rule about an item, the layout of a record, a NATS server.
package broker
