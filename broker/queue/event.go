package queue

import (
	"time"

	"stint/store"
	"stint/wire"
)

// Event is something that happened to a queue. The types below are all there are.
type Event interface{ event() }

// Sent is an item that was sent. The edge has checked size, headers and subjects.
type Sent struct {
	Reply  string // where the final reply goes; empty: nowhere
	Header wire.Header
	Body   []byte
	wire.Send
	// Known is what the store remembers of the Nats-Msg-Id, nil if nothing (or if there is no id).
	Known *store.Dedup
}

// SentBatch is the items of one message. What the edge found wrong with one item is in that item's Err.
type SentBatch struct {
	Reply         string // the message's reply subject; where each item's reply goes is in the item
	AcceptedReply string // of all items: where the one accept notice goes
	Items         []BatchItem
	Bytes         int // what it takes in memory, about
}

// BatchItem is one item of a [SentBatch]. Its Reply is as [ReplyTo] writes it, its AcceptedReply empty.
type BatchItem struct {
	Key string
	Sent
	Err *wire.Error
}

// Registered is a processor that registers; Unregistered one that leaves. Reply may be empty.
type (
	Registered struct {
		wire.Registration
		Reply string
	}
	Unregistered struct {
		Processor string
		Reply     string
	}
)

// Answered is what came in on a lease subject.
type Answered struct {
	Item    uint64
	Attempt uint32
	Header  wire.Header
	Reply   string // the answer's own reply subject: a turn of a conversation
	wire.Answer
}

// AnsweredBatch is what came in one message for several leases.
type AnsweredBatch struct {
	Answers []Answered
	Bytes   int // what it takes in memory, about
}

// Talked is a sender's turn in a conversation.
type Talked struct {
	Item   uint64
	N      uint32
	Header wire.Header
	Body   []byte
	Reply  string
}

// Presence says whether anybody is subscribed at a processor's subject.
type Presence struct {
	Processor string
	Present   bool
}

// Outcome is what became of a [Final]: Delivered, or nobody was listening, or Unsure: it was published, but the connection was lost
// before the server was known to have it. Link is the connection it went over, as in [Reconnected].
type Outcome struct {
	Delivered, Unsure bool
	Link              uint64
}

// Settled says what became of the [Final] of an item.
type Settled struct {
	Item uint64
	Outcome
}

// SettledBatch is [Settled] for the finals that went in one message.
type SettledBatch struct {
	Items []uint64
	Outcome
}

// Listening says that somebody is subscribed again where a kept reply is to go.
type Listening struct{ Item uint64 }

// Loaded is the kept reply that a [ReadReply] asked for; Found is false if the store has none.
type Loaded struct {
	Item  uint64
	Reply store.Reply
	Found bool
}

// Flushed says that everything published before the matching [Out.Flush] has been taken by the server.
type Flushed struct{ Token uint64 }

// Reconnected says that the connection to NATS was lost and is there again: what was on its way, in either direction, is perhaps
// lost. Link is the number of the new one, which grows.
type Reconnected struct{ Link uint64 }

// Committed is the result of the batch under way. Paged is the result of a read.
type (
	Committed struct{ Err error }
	Paged     struct {
		Kind ReadKind
		Page store.Page
	}
)

// Stored is a change in what the database can do, as store.Health says it.
type Stored struct{ Err error }

// Drain asks the queue to stop: nothing more is taken in or given out.
type Drain struct{}

// Leave asks the queue, which is draining, to write down who holds what is still leased: their answers are taken by the
// broker that comes next. In a queue without a persistor everything ends then, and the senders are told.
type Leave struct{}

// Tick lets time pass. Any other event does so too.
type Tick struct{}

func (*Sent) event()          {}
func (*SentBatch) event()     {}
func (*AnsweredBatch) event() {}
func (*SettledBatch) event()  {}
func (*Registered) event()    {}
func (*Unregistered) event()  {}
func (*Answered) event()      {}
func (*Talked) event()        {}
func (Presence) event()       {}
func (Settled) event()        {}
func (Listening) event()      {}
func (*Loaded) event()        {}
func (Flushed) event()        {}
func (Reconnected) event()    {}
func (Committed) event()      {}
func (*Paged) event()         {}
func (Stored) event()         {}
func (Drain) event()          {}
func (Leave) event()          {}
func (Tick) event()           {}

// MsgKind says how a [Msg] is to be published.
type MsgKind uint8

const (
	// Notice is published and forgotten: accept notices, errors to a send, answers to a registration, progress.
	Notice MsgKind = iota
	// Work goes to a processor; its reply subject is the lease of Item and N. Nobody there is reported as an answer.
	Work
	// Turn goes to the sender; its reply subject is the talk subject of Item and N.
	Turn
	// Final is the one final message of Item. The queue must be told with [Settled] whether anybody listened.
	Final
)

// Msg is something to publish. To is a subject; for an item of a batch it may be what [ReplyTo] writes.
type Msg struct {
	Kind   MsgKind
	To     string
	Item   uint64
	N      uint32
	Header wire.Header
	Body   []byte
}

// WorkBatch is work for a processor that takes several items in one message. The message's reply subject is the lease of
// the first of them. Nobody there is reported as an answer to that lease, and stands for all of them.
type WorkBatch struct {
	To    string
	Items []Given

	number uint64 // of the message, among those of the queue
	size   int
}

// Given is one item of a [WorkBatch].
type Given struct {
	Item    uint64
	Attempt uint32
	Header  wire.Header
	Body    []byte
}

// ReadKind says what a read is for.
type ReadKind uint8

// The reads. Ready carries on at the cursor.
const (
	ReadReady ReadKind = iota
	ReadDue
	ReadExpired
	ReadReply
)

// Read is something wanted from the store; the answer is a [Paged], or a [Loaded] for ReadReply.
type Read struct {
	Kind  ReadKind
	After store.Cursor // ReadReady
	Now   int64        // ReadDue, ReadExpired: Unix milliseconds
	Limit store.Limit
	Item  uint64 // ReadReply
}

// Probe asks whether anybody listens where the kept reply of Item is to go; the answer, if so, is [Listening].
type Probe struct {
	Item    uint64
	Subject string
}

// Out gathers what steps want done now, whatever the disk does. What has to wait for the disk is in [Batch.After].
type Out struct {
	Msgs []Msg
	// Work grows from step to step, also by items that join a message which is there already. It must leave before Msgs, or
	// work could be behind the final of its item. Whoever publishes it must empty it with [Out.WorkDone] before the next step.
	Work   []WorkBatch
	Reads  []Read
	Probes []Probe
	// Flush, if not 0, asks for a [Flushed] with this token once the server has taken everything published so far.
	Flush uint64
	// Notes are for the log. One kind comes at most once a second.
	Notes []Note

	text []byte // of notices in Msgs
}

// Note is something an operator would want to know.
type Note struct {
	Text    string
	Item    uint64
	Info    string
	LeftOut int // of the same kind since the one before
}

// Reset empties o and keeps its memory, but not what it pointed to. Nothing of what was in it may be used any more.
func (o *Out) Reset() {
	if o.text = o.text[:0]; cap(o.text) > maxSpareText {
		o.text = nil
	}
	clear(o.Msgs)
	clear(o.Reads)
	o.WorkDone()
	o.Msgs, o.Reads, o.Probes, o.Notes, o.Flush = o.Msgs[:0], o.Reads[:0], o.Probes[:0], o.Notes[:0], 0
}

// WorkDone empties o.Work and keeps its memory.
func (o *Out) WorkDone() {
	for i := range o.Work {
		w := &o.Work[i]
		clear(w.Items)
		*w = WorkBatch{Items: w.Items[:0]}
	}
	o.Work = o.Work[:0]
}

// startWork adds a message of work. The memory of one that was emptied is used again.
func (o *Out) startWork() *WorkBatch {
	if n := len(o.Work); n < cap(o.Work) {
		o.Work = o.Work[:n+1]
	} else {
		o.Work = append(o.Work, WorkBatch{})
	}
	return &o.Work[len(o.Work)-1]
}

// Batch is a set of changes for the store, and what may be said once they are on disk.
type Batch struct {
	Ops []store.Op
	// After leaves when, and only when, the batch is committed. This is where "accepted" and the final answer of a
	// stored item stand; nothing else may say either.
	After []Msg

	changes []change
	records []store.Record // that Ops point to
	text    []byte         // of notices in After
	regs    []regChange
	replies []*reply
	dropped []uint64
	extra   []store.Op
}

// Stats are the figures of a queue.
type Stats struct {
	store.Counts
	Leased, Processors, Withheld, Absent int
	InMemory                             int
	BytesInMemory                        int
	Accepted, Completed, Refused         uint64
	Redelivered, TimedOut, Failed, Dead  uint64
	Expired, Duplicates, DroppedReplies  uint64
	Since                                time.Time
}
