// Package bolt keeps queues in a bbolt file, with a log in front of it.
//
// # Who writes
//
// A batch goes two ways, one after the other. The front joins to it all that wait by then, from every queue, appends
// them to the log in one write with one sync, and says that they are durable: one lone batch leaves at once, and
// under load the cost of the sync is shared by whatever came in during the last one. What the log holds is brought
// into the file later, a round at a time, in one transaction: the log has two files of a fixed size, and while one is
// appended to, the writer is at the other. Most items are finished within a round, and of these nothing is written to
// the file at all; what stays is put in order, page by page, instead of a page or more for each batch. (bbolt's own
// Batch waits ten milliseconds for company; and a transaction of bbolt's needs two syncs, one before the page that
// names it.)
//
// After a crash the log is brought into the file before anything else is done; that is the same code as a round. A
// number in the file says which groups of the log it has, and changes in the transaction that brings them.
//
// What is large goes past the log, for it would be written twice: the front waits until the log is in the file and
// hands the batch to the writer. So does everything while the disk is full, where a bbolt transaction says at once
// what has room. The log itself never finds the disk full, since its files have their size from the beginning.
//
// Reads run in the caller's goroutine, in short read transactions beside the writer, and see the file alone. Each
// queue knows roughly what the log holds of it (see pending.go); a read that this concerns has the round brought in
// first. The head of a long backlog is read without that. A long read would keep every page that is freed meanwhile
// from being used again and let the file grow without bound.
//
// # In the file
//
// The root has a bucket "stint" with the format, the epoch and where the log stands, and a bucket for each queue, in
// which there is one per area and index (see keys.go) and the counters. Keys order the items as they are delivered;
// new ones are appended at the end of a tree and old ones removed at its head, for which pages are filled nearly
// full. Nothing at start-up reads the backlog. Records carry their own checksums (see codec.go), for bbolt's pages
// have none.
//
// # When a write fails
//
// bbolt's handle is in no state to go on with after a failed commit, and after a failed fsync nobody can say what is
// on the disk: the kernel drops the pages it could not write and reports it once. So there are two cases.
//
// No space, said by a write or a truncate before anything was synced: the commit certainly does not count. The handle
// is closed, the file opened again, the reserve given up, and what needs no new items is tried anew by itself. While
// the disk is full, batches with new items are refused at once; deletes, moves and replies go on. Four times a second
// the reserve is tried; when there is room for it the disk is full no more.
//
// In a round such a failure loses nothing, for the log still holds it all: the round is tried again until there is
// space.
//
// Anything else (fsync, an I/O error, an assertion of bbolt's, any error of the log): the outcome is unknown, the
// handle is never written to again, and every batch gets store.ErrUnknown. The process must end and look at what the
// disk says.
//
// # What it never does
//
// It never repairs a damaged structure: a page that bbolt cannot read is an error with advice, never a guess. It
// never writes to a file of a newer format. It never gives up its lock while it is open, not even when the file is
// reopened or replaced by a compacted copy: the lock is on a file of its own.
package bolt

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync"

	"go.etcd.io/bbolt"

	"stint/store"
	"stint/store/internal/inbox"
)

// inboxRoom is how many batches may wait for the writer. A queue has one under way, so it is full only with more queues
// than that; then Submit waits for the commit that is running.
const inboxRoom = 256

// DB is an open database.
type DB struct {
	path   string
	opts   Options
	lock   *os.File
	in     *inbox.Inbox[request]
	front  *front
	writer *writer

	// mu guards the handle and failed: readers hold it while they read, the writer takes it to swap the handle when the
	// file is reopened or compacted. An owner goroutine would make every read wait behind commits.
	mu     sync.RWMutex
	handle *bbolt.DB // nil: closed
	failed error     // why nothing is read or written any more

	qmu    sync.Mutex // guards queues and closed
	queues map[string]*Queue
	closed bool
}

// request is what is asked of the front or of the writer: a batch of a queue, or what the engine asks of itself.
type request struct {
	q     *Queue
	ops   []store.Op
	fix   []damaged // records to set aside
	flush bool      // what the log holds is needed in the file
	round *round    // of the log: to be brought into the file
	done  func(error)
}

// Queue implements store.DB.
func (db *DB) Queue(name string) (store.Queue, error) {
	db.qmu.Lock()
	defer db.qmu.Unlock()
	switch {
	case db.closed:
		return nil, fmt.Errorf("queue %q: %w", name, store.ErrClosed)
	case name == "" || len(name) > store.MaxKey:
		return nil, fmt.Errorf("%w: the name of a queue has between 1 and %d bytes", store.ErrInvalid, store.MaxKey)
	case db.queues[name] != nil:
		return nil, fmt.Errorf("%w: queue %q is in use already; give each queue a collection of its own",
			store.ErrInvalid, name)
	}
	q := &Queue{db: db, name: []byte(queuePrefix + name)}
	db.queues[name] = q
	return q, nil
}

// Close implements store.DB.
func (db *DB) Close() error {
	db.qmu.Lock()
	db.closed = true
	db.qmu.Unlock()
	first := db.in.Close()
	<-db.front.ended
	if !first {
		return nil
	}
	return errors.Join(db.closeHandle(), db.lock.Close())
}

// closeHandle closes the file. A handle that panicked within a transaction holds its own locks for ever and is left to
// the end of the process.
func (db *DB) closeHandle() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	h := db.handle
	db.handle = nil
	if h == nil || db.writer.wedged {
		return nil
	}
	if err := h.Close(); err != nil {
		return fmt.Errorf("close %s: %w", db.path, err)
	}
	return nil
}

// view runs a read. A panic of bbolt's, or a page that the disk cannot deliver, is an error.
func (db *DB) view(read func(*bbolt.Tx) error) (err error) {
	db.mu.RLock()
	defer db.mu.RUnlock()
	if db.failed != nil {
		return db.failed
	}
	if db.handle == nil {
		return store.ErrClosed
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = corrupt(db.path, fmt.Errorf("a page cannot be read: %v", p))
		}
	}()
	return db.handle.View(read)
}
