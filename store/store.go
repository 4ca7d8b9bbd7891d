// Package store says what a queue remembers and how it is written down.
//
// A database ([DB]) holds the queues that share one file; a [Queue] is one queue's part of it. The rules of a queue
// (package broker/queue) decide; an engine only keeps what it is told, in order, and says when it is safe. Engines are
// store/bolt (a bbolt file) and [Memory] (nothing survives the process). Package storetest is the suite that every
// engine passes.
//
// # Where an item stands
//
// An item has one record, in one [Area] at a time. Its [Place] is its address and its rank:
//
//	Ready    by priority (lower first), then id: the order of delivery
//	Delayed  by due time, then id
//	Dead     by id
//
// The id grows with acceptance, so the order on disk is the order of acceptance and start-up reads no backlog. Beside
// the items a queue has replies that wait for their sender, leases of long work, registrations, message ids already
// seen, an index of the items that expire, and counters; all of them change in the same transaction as the items.
//
// # Writing
//
// [Queue.Submit] hands over a [Batch] and returns; the engine joins the batches that wait, from all queues of the
// database, into one transaction with one fsync, and calls each Batch's Done. A queue has one batch under way at a
// time: it gathers the next one meanwhile, and whatever is put and deleted within it never reaches the engine.
// A batch is all or nothing.
//
// Done(nil) means: on stable storage. [ErrFull] means: certainly not stored, the engine has closed the file and opens
// it again. [ErrUnknown] means: the write failed in a way that leaves its outcome open (a failed fsync), nothing may be
// acknowledged and the process must end. An engine never repeats a batch by itself.
//
// # Reading
//
// Reads are short, see what is committed and nothing else, and are bounded in records and bytes by a [Limit].
// A record whose checksum does not match is returned in [Page.Damaged], never as an item; the caller sets it aside
// with [OpSetAside] and goes on.
//
// Not here: no rule of the queue, no clock, no NATS. Nothing of an engine shows in this contract.
package store

import (
	"errors"
	"fmt"
)

// Errors of a write, as Batch.Done and the Health function see them.
var (
	// ErrFull: there is no space. Nothing of the batch is stored. The engine frees its reserve so that deletes can
	// still be written and goes on by itself once there is space.
	ErrFull = errors.New("store: no space left for the database")
	// ErrUnknown: an I/O error left it open whether the batch is stored. The database is not used again by this process.
	ErrUnknown = errors.New("store: the outcome of a write is unknown")
	// ErrInvalid: the batch cannot be stored as it stands (see [Batch.Check]), whatever is tried. Nothing of it is stored.
	ErrInvalid = errors.New("store: the batch cannot be stored")
	// ErrClosed: the database was closed before the batch was taken. Nothing of the batch is stored.
	ErrClosed = errors.New("store: closed")
)

// ErrDamaged: a record is not as it was written. Damage.Err wraps it, and so does the error of a read of one record
// (Dedup) that finds it so. The rest of the database is not affected.
var ErrDamaged = errors.New("store: a record is damaged")

// Errors of opening a database.
var (
	// ErrLocked: another process has the database open.
	ErrLocked = errors.New("store: the database is in use by another process")
	// ErrNewer: the file was written by a newer version of the program.
	ErrNewer = errors.New("store: the database has a newer format")
	// ErrCorrupt: the file is not a database, or its structure is damaged beyond a single record.
	ErrCorrupt = errors.New("store: the database is damaged")
)

// EpochShift is the number of low bits of an item id that count items within one opening of the database; the bits
// above hold the epoch, which grows by one at each opening. So no id is given twice, even one whose item was delivered
// before it was written and then lost with the process.
const EpochShift = 40

// Area is a part of a queue that holds item records.
type Area uint8

// The areas. Nowhere is the area of an item that has no record.
const (
	Nowhere Area = iota
	Ready
	Delayed
	Dead
)

// Place is where an item's record stands.
type Place struct {
	Area     Area
	Priority uint8 // Ready: 0 is delivered first
	Due      int64 // Delayed: Unix milliseconds
}

// Item is what was sent. It never changes.
type Item struct {
	ID          uint64
	Priority    uint8
	Accepted    int64  // when it was taken in, Unix milliseconds
	Expires     int64  // Unix milliseconds; 0: never
	Timeout     int64  // process timeout in milliseconds; 0: the queue's
	MaxAttempts uint32 // 0: the queue's
	Progress    bool   // the sender asked for intermediate replies
	Reply       string // subject of the final reply; empty: none wanted
	MsgID       string // Nats-Msg-Id; empty: none
	Header      map[string][]string
	Body        []byte
}

// Size is what an item counts against a queue's limit in bytes: its body, its header and its subjects.
func (it *Item) Size() int {
	n := len(it.Body) + len(it.Reply) + len(it.MsgID)
	for k, vs := range it.Header {
		for _, v := range vs {
			n += len(k) + len(v) + 4
		}
	}
	return n
}

// Marks is the bookkeeping of an item: what has happened to it so far.
type Marks struct {
	Epoch      uint32 // the epoch these marks were written in
	Deliveries uint32 // times it was given to a processor: the fence
	Attempts   uint32 // counted attempts: failed or timed out
	Deaths     uint32 // processors that vanished while holding it
	Code       string // Dead: why, as the stable word
	Reason     string // Dead: why, as a sentence
}

// Record is an item with its marks and where it stands.
type Record struct {
	Item
	Marks
	Place Place
}

// Lease is the written form of a lease that outlived a moment: who has the item, and under which attempt.
type Lease struct {
	ID        uint64
	Attempt   uint32
	Processor string
	Timeout   int64 // milliseconds; it starts anew when the lease is loaded
}

// Registration is a stored registration of a processor.
type Registration struct {
	Processor string
	Capacity  int
	Batch     int   // items it takes in one message; 0: one
	Seen      int64 // Unix milliseconds when it last registered
}

// Reply is a final reply that has not reached its sender for certain.
type Reply struct {
	ID      uint64
	Subject string
	Expires int64 // Unix milliseconds
	Header  map[string][]string
	Body    []byte
}

// ReplyHead is a stored reply without its content.
type ReplyHead struct {
	ID      uint64
	Subject string
	Expires int64
}

// Dedup remembers a message id for the deduplication window.
type Dedup struct {
	MsgID     string
	ID        uint64 // the item it was accepted as
	Expires   int64  // Unix milliseconds; an older entry does not count
	ReplyHash uint64 // hash of the first send's reply subject
}

// Counts are the sizes of a queue.
type Counts struct {
	Ready, Delayed, Dead int   // items
	Bytes                int64 // sum of Item.Size over the three
	Replies              int
	Damaged              int // records set aside
	Dedup                int
}

// Snapshot is what a queue needs to start: everything but the backlog. Its size is bounded by the registrations, the
// leases of long work and the replies under way, not by the items that wait.
type Snapshot struct {
	Epoch         uint32
	Counts        Counts
	NextDue       int64 // earliest due time in Delayed, 0: none
	NextExpiry    int64 // earliest expiry in the index, 0: none
	Registrations []Registration
	Leases        []LeasedRecord
	Replies       []ReplyHead
	Damaged       []Damage
}

// LeasedRecord is a stored lease with the record of its item, which stands in Ready.
type LeasedRecord struct {
	Lease  Lease
	Record Record
}

// Damage is a record that could not be read back as it was written. One with a place is set aside by the caller
// ([OpSetAside]); one with Area Nowhere the engine sets aside itself.
type Damage struct {
	ID    uint64
	Place Place
	What  string // "item", "expiry", "reply", "lease", "registration", "counters"
	Err   error  // wraps ErrDamaged
}

// Limit bounds a read. At least one record is returned if there is one, whatever its size. Damaged records count as
// records. Zero: not bounded in this respect.
type Limit struct {
	Records int
	Bytes   int // of Item.Size
}

// Page is one read.
type Page struct {
	Records []Record // caller owns them; nothing in them refers to the engine's memory
	Damaged []Damage
	More    bool  // the limit ended the read
	Next    int64 // Due and Expired: earliest time left beyond this page, 0: none
}

// Cursor is a position in Ready; the zero value is before everything.
type Cursor struct {
	Priority uint8
	ID       uint64
}

// OpKind says what an Op does.
type OpKind uint8

// The operations. The fields of Op that each one reads are named here.
const (
	// OpPut writes a new item: Record (with its Place).
	OpPut OpKind = iota + 1
	// OpMove gives an item new marks and a new place (or the same): ID, From, To, Marks, Expires, Size, Leased.
	OpMove
	// OpDelete removes an item: ID, From, Expires, Size, Leased.
	OpDelete
	// OpSetAside moves a damaged item record, as it is, out of the way: ID, From. With Area Nowhere it does nothing.
	OpSetAside
	// OpUnexpire takes an item out of the expiry index: ID, Expires. The item stays.
	OpUnexpire
	// OpPutLease writes or replaces a lease: Lease.
	OpPutLease
	// OpDeleteLease removes a lease whose item stays where it is: ID.
	OpDeleteLease
	// OpPutReply writes or replaces a reply: Reply.
	OpPutReply
	// OpDeleteReply removes a reply: ID.
	OpDeleteReply
	// OpPutRegistration writes or replaces a registration: Registration.
	OpPutRegistration
	// OpDeleteRegistration removes a registration: Registration.Processor.
	OpDeleteRegistration
	// OpPutDedup remembers a message id: Dedup.
	OpPutDedup
	// OpPruneDedup forgets message ids that expired before Expires, a bounded number ([PruneMax]) of them.
	OpPruneDedup
)

// PruneMax is how many message ids one OpPruneDedup forgets at most.
const PruneMax = 1000

// Op is one change. A change to what is not there does nothing, to the counters neither. What Record points to must not be
// changed before Done: an engine that keeps it keeps a copy. What Reply points to, and the headers and bodies of both, must
// not be changed after Submit.
type Op struct {
	Kind         OpKind
	ID           uint64
	From, To     Place
	Marks        Marks
	Expires      int64 // of the item: finds its entry in the expiry index; 0: it has none
	Size         int   // of the item: keeps the byte counter without reading the record
	Leased       bool  // the item has a stored lease, which goes as well
	Record       *Record
	Lease        Lease
	Reply        *Reply
	Registration Registration
	Dedup        Dedup
}

// Batch is a set of changes that are made together or not at all. Ops are applied in order.
type Batch struct {
	Ops []Op
	// Done is called once, from a goroutine of the engine's (never within Submit), and must not block.
	Done func(error)
}

// MaxKey is the longest message id and processor subject that an engine stores, in bytes.
const MaxKey = 16 << 10

// Check says whether the batch can be stored at all: every name that serves as a key is between 1 and [MaxKey] bytes, and
// an item that is put has an id and stands in an area. The error wraps [ErrInvalid]. Engines check every batch.
func (b *Batch) Check() error {
	for i := range b.Ops {
		if err := b.Ops[i].check(); err != nil {
			return fmt.Errorf("%w: operation %d of %d: %w", ErrInvalid, i+1, len(b.Ops), err)
		}
	}
	return nil
}

func (op *Op) check() error {
	switch op.Kind {
	case OpPut:
		if op.Record == nil || op.Record.ID == 0 {
			return errors.New("a put without an item")
		}
		return op.Record.Place.check()
	case OpMove:
		if err := op.To.check(); err != nil {
			return err
		}
		return op.From.check()
	case OpDelete:
		return op.From.check()
	case OpPutReply:
		if op.Reply == nil {
			return errors.New("a put without a reply")
		}
	case OpPutRegistration, OpDeleteRegistration:
		return checkKey("processor", op.Registration.Processor)
	case OpPutDedup:
		return checkKey("message id", op.Dedup.MsgID)
	case OpSetAside, OpUnexpire, OpPutLease, OpDeleteLease, OpDeleteReply, OpPruneDedup:
	default:
		return fmt.Errorf("unknown kind of operation %d", op.Kind)
	}
	return nil
}

func (p Place) check() error {
	if p.Area < Ready || p.Area > Dead {
		return fmt.Errorf("an item cannot stand in area %d", p.Area)
	}
	return nil
}

func checkKey(what, key string) error {
	if key == "" || len(key) > MaxKey {
		return fmt.Errorf("a %s of %d bytes; it must have between 1 and %d", what, len(key), MaxKey)
	}
	return nil
}

// Queue is one queue's part of a database. Reads may be made from any goroutine; Submit by one at a time.
type Queue interface {
	// Load reads what the queue needs to start.
	Load() (Snapshot, error)
	// Ready reads item records of the Ready area after the cursor, in order.
	Ready(after Cursor, limit Limit) (Page, error)
	// Due reads item records of Delayed whose time is not after now (Unix milliseconds), in order of their time.
	Due(now int64, limit Limit) (Page, error)
	// Expired reads, in order of expiry, item records in the expiry index whose time is not after now.
	Expired(now int64, limit Limit) (Page, error)
	// Reply reads one reply; false: there is none, or it is damaged.
	Reply(id uint64) (Reply, bool, error)
	// Dedup looks a message id up; false: never seen, or forgotten. An expired entry may still be returned. A damaged
	// entry is an error that wraps ErrDamaged, since taking the item again might make it run twice.
	Dedup(msgID string) (Dedup, bool, error)
	// Submit hands a batch over. It does not wait for the disk; it may wait briefly for room in the engine's queue.
	Submit(b *Batch)
}

// DB is an open database.
type DB interface {
	// Queue returns the part with this name (a collection), made at the first call. The name must not be empty.
	// Two calls with one name are an error: a queue has one owner.
	Queue(name string) (Queue, error)
	// Close writes what was submitted, gives it back as done, and releases the file.
	Close() error
}

// Health is told of changes in what an engine can do, from a goroutine of the engine's; it must not block.
// nil: writes succeed (again). ErrFull: only deletes may succeed. ErrUnknown: nothing will; the process must end.
type Health func(error)
