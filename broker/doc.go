// Package broker puts queues to work: it takes what comes in over NATS, lets the rules of the queue decide (package
// broker/queue), has the store write it down (package store), and says what may be said.
//
// Who owns what:
//
//	actor   one goroutine for each queue. It owns the queue's rules and is the only one to step them. Nothing in here is
//	        locked: what others know reaches the actor through its channels.
//	bus     bus.go and batch.go, the only files that speak NATS. Its callbacks run on nats.go's goroutines, one for each subscription; they
//	        translate and check, and post to the actor's mailbox. They own nothing.
//	Broker  starts, watches and stops the set. Its watcher goroutine looks for processors whose subscription is gone.
//
// An actor's round: take what waits in the mailbox, up to a bound; step each event; publish what may leave at once;
// read what the rules want read; hand the writer the next batch if none is under way; sleep until something comes or
// time is up. What is tied to a commit leaves when the commit's result has come back, and only if it was good.
//
// Replies to items of a batch whose sender wants them gathered wait in the gatherer until the round has nothing else to say, and
// leave in one message for each subject; only then do the rules hear that they were delivered. So an accept notice that
// follows from a delivery cannot leave before the reply, as with a reply by itself.
//
// The mailbox is bounded. When it is full the callbacks wait, NATS' own buffers fill, and when those hold more than
// maxBacklog the item is refused with code "busy": a sender is told, nothing is dropped in silence. (nats.go by itself
// drops what exceeds a subscription's limit, without a word to the publisher; so its limit is off and ours is in
// front of it.)
//
// Never here: a rule about an item, the layout of a record, a NATS server.
package broker
