// Package queue holds the rules of one queue.
//
// [Queue.Step] takes what happened and when, changes the queue's state, and says what is to be done now ([Out]).
// [Queue.Take] gives the changes that the store should make next, with what may be said once they are on disk
// ([Batch]). There is no goroutine, clock, lock or I/O in here: everything comes in as an event and leaves as a value,
// so the rules are tested exhaustively and the loop around them (package broker) stays short.
//
// # The life of an item
//
//	  send
//	   |
//	   v     lease
//	waiting ---------> leased ---- done ------------> completed (reply forwarded)
//	   ^   \             |  \
//	   |    \ expiry     |   `---- refused for ever,
//	   |     `-> expired |         attempts spent --> dead letter (error to the sender)
//	   |                 |
//	   +-----------------+ timed out, processor gone, handed back: at once, ahead of newer items
//	   |                 |
//	   `---- delayed <---' failed (backoff), handed back with a delay
//
// # What is in memory
//
// The head of what waits (the window) and everything leased. An item beyond the window is written and dropped
// (spilled); it is read back, in order, when the window has room. While anything is spilled new items are spilled too,
// so that the order of acceptance holds. cursor is the last position of the Ready area that has been in memory.
//
// # Speaking and writing
//
// An item may be given to a processor before it is on disk, for its sender has been told nothing. If it is answered
// before the writer took it, nothing is written at all: reply and accept notice leave at once. The reply goes first:
// should the process die between the two, the sender has its reply; the other way round it would wait for one that
// nobody remembers. If its write fails while it is with a processor, the outcome decides: answered, the sender hears
// accepted and the reply; anything else, and it hears the error and the item is not given out again.
//
// Once written, an item is settled by a commit that removes its record, and only then does the final leave. The
// commit leaves the reply in the record's place until the server has had time to put it on the sender's connection
// (settleDelay); a reply still there at start-up is sent again, marked wire.HeaderRedelivered.
//
// # Batches
//
// Items that were sent in one message are items like others from the first step on; what they have in common is who waits for
// their accept notice (waiter). It is said when the fate of the last of them is known, after the commit and not with it: while one
// item is being written another may be settled without having been written, and neither knows then which is the last.
//
// Work is given out one by one and in turn, whatever a processor takes in one message. An item joins the message that gathers for
// its processor in Out.Work until the caller takes that out, which it does at the end of its round. So nothing
// waits for a message to fill, and turns are as fair as without. The number of the message stays in the lease: that nobody
// heard is reported for its first item alone and concerns all.
//
// Replies do not join here: they say where they go and under which key (ReplyTo), and the caller puts together what leaves at
// one time.
//
// Rejected: a flag "being processed" in the item's record, as in the vert.x module: it costs a write for each
// delivery and says nothing about who has the item. Leases live in memory and are written only when they get old.
package queue

import (
	"time"

	"stint/store"
	"stint/wire"
)

const (
	// leaseWriteAfter is the age at which a lease is written, so that a restart does not run long work twice.
	leaseWriteAfter = 500 * time.Millisecond
	// reconnectGrace is how long after a start a processor that held work before it may take to come back. NATS clients
	// wait 2 seconds between two tries unless told otherwise.
	reconnectGrace = 5 * time.Second
	// settleDelay is how long a reply stays on record after it was handed to NATS. It covers the time between the
	// server taking it and the bytes being in the socket of the sender's connection.
	settleDelay = 20 * time.Millisecond
	// probeEvery and probesAtOnce set how kept replies look for their senders.
	probeEvery   = 50 * time.Millisecond
	probesAtOnce = 256
	// retryWrite is the pause before a batch is tried again on a store that is full.
	retryWrite = 250 * time.Millisecond
	// absentRetry is how long a processor that nobody answered for is left alone when its subscription cannot be
	// watched (an outside server).
	absentRetry = 500 * time.Millisecond
	// pageRecords and pageBytes bound one read, so that a queue stays responsive while it reads.
	pageRecords = 1024
	pageBytes   = 4 << 20
	// maxPendingOps and maxPendingBytes bound what gathers while a batch is under way; see Full.
	maxPendingOps   = 16 << 10
	maxPendingBytes = 32 << 20
	// freeNaks is how often in a row an item is handed back and given out again at once; after that it waits, longer
	// each time, so that an item nobody wants does not keep the queue busy.
	freeNaks = 3
	// maxAccepts is how many accept notices may wait for the write of one item.
	maxAccepts = 16
)

// Options are the circumstances of a queue, beside its Config.
type Options struct {
	Config
	// Persistent: what is written survives the process.
	Persistent bool
	// Watched: the subscriptions of processors are known, so that Presence events come when one goes or returns.
	Watched bool
	// Random seeds the jitter of the backoff.
	Random uint64
	// Flow is shared by queues that share a goroutine; nil: the queue has its own.
	Flow *Flow
	// MaxMessage bounds a message of work for several items, in bytes of its frames; one item always fits. 0: no bound.
	MaxMessage int
	// Link is the connection at the start, see [Reconnected].
	Link uint64
}

// Queue is the state of one queue. It belongs to one goroutine.
type Queue struct {
	opt   Options
	epoch uint32
	next  uint64 // id of the next item
	now   time.Time
	out   *Out // of the step under way

	items    map[uint64]*item // in memory: waiting, leased, or with a change under way
	memBytes int
	ready    readyList
	cursor   store.Cursor
	spilled  int  // items in Ready beyond the cursor, written or about to be
	paging   bool // a ReadReady is under way
	pageWait bool // the last one found nothing: the items are not committed yet

	regs     map[string]*registration
	leaving  map[string]*registration // unregistered with work still in hand
	absent   int                      // of regs
	nextDrop time.Time                // when to look for registrations to drop
	room     roomList                 // registrations that have room, in turn
	late     map[leaseKey]*lease
	byAge    leaseList // current leases that are not written, oldest first
	ends     deadlines // current leases and late ones with a deadline
	messages uint64    // messages of work for several items so far
	// graceEnd: until then a lease from before the gap outlives the absence of its processor. Zero: it has passed.
	graceEnd time.Time

	replies   map[uint64]*reply // on record or about to be
	sent      []*reply          // delivered, oldest first; their records can go after settleDelay
	kept      []*reply          // undelivered, oldest first; may hold some that are gone
	keptLive  int
	probeAt   int
	link      uint64 // the connection, see Reconnected
	flushing  uint64 // token of the Flush under way, 0: none
	flushSeq  uint64
	flushedTo time.Time // what was sent before this is covered by the Flush under way

	recent map[string]*item // message ids whose first send is not committed yet

	// What the next batch is made of.
	dirty      []*item
	dirtyBytes int
	hopes      hopes // items beside dirty that are perhaps answered before they have to be written
	regChanges []regChange
	replyPuts  []*reply
	replyDrops []uint64
	extra      []store.Op
	aside      map[uint64]bool // damaged records that extra or the batch under way sets aside
	underway   *Batch
	// What the gathering of a batch goes by; see gatherUntil.
	flow     *Flow
	lastTake time.Time
	lastDone time.Time // when a batch was written
	lastSize int       // of it, in changes
	// lastBytes are those of the items in the last batch that was taken.
	lastBytes int
	usual     time.Duration // from an item's arrival to its answer; 0: none has come
	spare     memory        // of the last batch
	said      []saying      // of earlier ones
	retryAt   time.Time

	down     error // the store does not take items
	broken   bool  // the outcome of a write is unknown: nothing is said any more
	stopping bool
	ending   bool // what is left ends now

	nextDue    int64 // Unix milliseconds, 0: none
	nextExpiry int64
	dueBusy    bool // items read as due or expired have a change under way
	expiryBusy bool
	nextProbe  time.Time
	dedupAges  []dedupAge // message ids on record by when they expire, oldest first

	counts  store.Counts
	stats   Stats
	notes   map[string]noted
	maxTalk uint32
}

// New makes a queue from what the store remembers.
func New(opt Options, snap store.Snapshot, now time.Time) *Queue {
	q := &Queue{
		opt: opt, epoch: snap.Epoch, now: now, link: opt.Link, next: uint64(snap.Epoch) << store.EpochShift,
		ends: newDeadlines(), items: map[uint64]*item{}, regs: map[string]*registration{}, leaving: map[string]*registration{}, late: map[leaseKey]*lease{},
		replies: map[uint64]*reply{}, recent: map[string]*item{}, notes: map[string]noted{}, aside: map[uint64]bool{},
		said:   make([]saying, 0, 2),
		counts: snap.Counts, nextDue: snap.NextDue, nextExpiry: snap.NextExpiry,
		spilled: snap.Counts.Ready,
	}
	q.stats.Since = now
	if q.flow = opt.Flow; q.flow == nil {
		q.flow = &Flow{}
	}
	if n := snap.Counts.Dedup; n > 0 {
		q.dedupAges = []dedupAge{{expires: millis(now.Add(opt.DedupWindow)) + 1, n: n}}
	}
	for _, r := range snap.Registrations {
		q.addRegistration(r.Processor, r.Capacity, r.Seen).batch = r.Batch
	}
	for i := range snap.Leases {
		q.restoreLease(&snap.Leases[i])
		q.graceEnd = now.Add(reconnectGrace)
	}
	q.room.tidy() // whoever has no room now is the last to get what times out
	for _, h := range snap.Replies {
		q.restoreReply(h)
	}
	return q
}

// Step lets ev happen at now and adds what is to be done to out.
func (q *Queue) Step(now time.Time, ev Event, out *Out) {
	q.now, q.out = now, out
	if q.broken {
		q.stepBroken(ev)
		q.out = nil
		return
	}
	switch e := ev.(type) {
	case *Sent:
		q.send(e)
	case *Answered:
		q.answer(e)
	case *SentBatch:
		q.sendBatch(e)
	case *AnsweredBatch:
		for i := range e.Answers {
			q.answer(&e.Answers[i])
		}
	case *SettledBatch:
		for _, id := range e.Items {
			q.finalSettled(id, e.Outcome)
		}
	case Settled: // frees room in memory, and nothing else
		q.finalSettled(e.Item, e.Outcome)
		q.page()
		q.out = nil
		return
	case Committed:
		q.committed(e.Err)
	case *Registered:
		q.register(e)
	case *Unregistered:
		q.unregister(e)
	case *Talked:
		q.talked(e)
	case Presence:
		q.presence(e)
	case *Paged:
		q.paged(e)
	case Listening:
		q.listening(e.Item)
	case *Loaded:
		q.loaded(e)
	case Flushed:
		q.flushed(e.Token)
	case Reconnected:
		q.reconnected(e.Link)
	case Stored:
		q.stored(e.Err)
	case Drain:
		q.stopping = true
	case Leave:
		q.leave()
	case Tick:
	}
	q.timers()
	q.dispatch()
	q.dismiss()
	q.page()
	q.out = nil
}

// stepBroken lets ev happen to a queue whose state on disk is unknown: it refuses, and says nothing else.
func (q *Queue) stepBroken(ev Event) {
	switch e := ev.(type) {
	case *Sent:
		q.send(e)
	case *SentBatch:
		q.sendBatch(e)
	case *Registered:
		q.register(e)
	case *Unregistered:
		q.sayTo(e.Reply, wire.Errorf(wire.CodeShuttingDown, "the broker is shutting down: unregister when it is back"))
	case Committed:
		if b := q.underway; b != nil {
			q.underway = nil
			q.breakDown(q.down, b)
		}
	}
}

// Next is when the queue wants a Tick at the latest; the zero time: not before something else happens.
func (q *Queue) Next() time.Time {
	var t time.Time
	if q.broken {
		return t
	}
	sooner := func(u time.Time) {
		if !u.IsZero() && (t.IsZero() || u.Before(t)) {
			t = u
		}
	}
	if l := q.ends.first(); l != nil {
		sooner(l.deadline)
	}
	sooner(q.graceEnd)
	if q.opt.Persistent && q.byAge.head != nil {
		sooner(q.byAge.head.started.Add(leaseWriteAfter))
	}
	if q.nextDue != 0 && !q.dueBusy && !q.stopping && q.windowRoom() > 0 {
		sooner(time.UnixMilli(q.nextDue))
	}
	if q.nextExpiry != 0 && !q.expiryBusy {
		sooner(time.UnixMilli(q.nextExpiry))
	}
	if len(q.sent) > 0 && q.flushing == 0 {
		sooner(q.sent[0].at.Add(settleDelay))
	}
	if q.keptLive > 0 {
		sooner(q.nextProbe)
	}
	if len(q.dedupAges) > 0 && q.underway == nil {
		sooner(time.UnixMilli(q.dedupAges[0].expires))
	}
	if q.pending() && q.underway == nil {
		sooner(q.retryAt)
		sooner(q.gatherUntil())
	}
	if !q.opt.Watched {
		sooner(q.nextAbsentRetry())
	}
	sooner(q.nextDrop)
	return t
}

// Full says that as much has gathered as is allowed: the caller should take a batch, or let the one under way or the
// pause before the next try finish, before it steps anything else.
func (q *Queue) Full() bool {
	return !q.broken && (q.gathered() >= maxPendingOps || q.dirtyBytes+q.hopes.bytes >= maxPendingBytes)
}

// Settled says that nothing waits to be written and no final is on its way.
func (q *Queue) Settled() bool {
	rest := 0
	if q.ending {
		rest = q.counts.Ready + q.counts.Delayed
	}
	return q.broken || q.underway == nil && !q.pending() && len(q.sent)+rest == 0
}

// Link is the connection that the queue knows of.
func (q *Queue) Link() uint64 { return q.link }

// Leased is the number of items that processors hold and whose answers count.
func (q *Queue) Leased() int {
	if q.broken {
		return 0
	}
	return q.stats.Leased
}

// Stats returns the queue's figures.
func (q *Queue) Stats() Stats {
	s := q.stats
	s.Counts = q.counts
	s.Replies = len(q.replies)
	s.Processors = len(q.regs)
	for _, r := range q.regs {
		if r.withheld {
			s.Withheld++
		}
		if r.absent {
			s.Absent++
		}
	}
	s.InMemory, s.BytesInMemory = len(q.items), q.memBytes
	return s
}

// Holding says that Holders has somebody to name.
func (q *Queue) Holding() bool {
	return q.absent > 0 || q.stats.Leased > 0 || len(q.late) > 0 || len(q.leaving) > 0
}

// Holders calls f with each processor that is absent or holds work.
func (q *Queue) Holders(f func(processor string, absent bool)) {
	for _, r := range q.leaving {
		f(r.subject, false)
	}
	if q.absent == 0 && q.stats.Leased+len(q.late) == 0 {
		return
	}
	for _, r := range q.regs {
		if r.absent || r.held > 0 {
			f(r.subject, r.absent)
		}
	}
}

// noteEvery is the least time between two notes of one kind.
const noteEvery = time.Second

// noted is when a kind of note was last made and how many were left out since.
type noted struct {
	last    time.Time
	leftOut int
}

// note tells the operator, at most once in noteEvery for each text; texts are constants, so they are few.
func (q *Queue) note(text string, item uint64, info string) {
	n := q.notes[text]
	if !n.last.IsZero() && q.now.Sub(n.last) < noteEvery {
		n.leftOut++
		q.notes[text] = n
		return
	}
	q.out.Notes = append(q.out.Notes, Note{Text: text, Item: item, Info: info, LeftOut: n.leftOut})
	q.notes[text] = noted{last: q.now}
}

func (q *Queue) say(m Msg) { q.out.Msgs = append(q.out.Msgs, m) }
