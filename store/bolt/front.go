package bolt

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"stint/store"
	"stint/store/internal/journal"
)

// front takes what the queues submit, makes it durable in the log, says so, and brings it into the file by and by. Its
// goroutine owns every field; full is the writer's to set, and readers look at active.
//
// There are two files of the log. One is appended to; what the other holds, the writer brings into the file meanwhile, in
// one transaction. When the first has no room left, or a reader needs what it holds, they change places.
type front struct {
	db   *DB
	w    *writer
	opts Options

	logs     [2]*journal.File // nil: there are none, and everything goes to the writer
	state    logState
	active   atomic.Int32 // index of the file that is appended to; others only read it
	number   uint64       // of the last group
	last     [2]uint64    // number of the last group in each file
	busy     bool         // the writer is at the other file
	wanted   bool         // somebody waits for what the active file holds
	waiting  [2][]func(error)
	applied  chan error    // how the writer's round ended
	readers  []func(error) // that wait for a round that found the disk full
	rest     *time.Timer   // of watchRest
	watching bool          // it runs
	seen     uint64        // number of the last group when it was set
	again    *time.Timer   // of a round that found the disk full; nil: none did
	direct   int           // groups that still go past the log

	joined  []request
	queues  []*Queue // with something in the active file or the other
	content []byte
	scratch [2 * maxPlaceKey]byte
	failed  error
	full    atomic.Bool // the writer has no room for new items
	ended   chan struct{}
}

const (
	// directSize is the length of a group that goes past the log, in bytes: to write what is large twice costs more than it
	// saves.
	directSize = 256 << 10
	// directRun is how many groups follow it there, since what is large seldom comes alone, and each change of the way
	// costs a transaction.
	directRun = 32
)

func newFront(db *DB, w *writer) *front {
	return &front{db: db, w: w, opts: db.opts, applied: make(chan error, 1), ended: make(chan struct{}), rest: stoppedTimer()}
}

// stoppedTimer is for Reset.
func stoppedTimer() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

func (f *front) run() {
	defer close(f.ended)
	for {
		var again <-chan time.Time
		if f.again != nil {
			again = f.again.C
		}
		select {
		case r, ok := <-f.db.in.C():
			if !ok {
				f.finish()
				return
			}
			f.joined = gather(f.db.in, f.joined, r)
			f.serve(f.joined)
			clear(f.joined)
		case err := <-f.applied:
			f.roundEnded(err)
		case <-again:
			f.again = nil
			f.startRound()
		case <-f.rest.C:
			f.rested()
		}
	}
}

// watchRest sees to it that what the log holds does not stay there when nothing more is appended: a database at rest is in
// its file, which can then be made smaller.
func (f *front) watchRest() {
	if !f.watching {
		f.watching = true
		f.seen = f.number
		f.rest.Reset(f.opts.limits.restAfter)
	}
}

func (f *front) rested() {
	f.watching = false
	switch {
	case f.failed != nil || f.again != nil:
	case f.seen != f.number || f.busy:
		f.watchRest()
	case !f.logs[f.active.Load()].Empty():
		f.changeOver()
	}
}

// serve keeps the order of the requests of one queue: it has one batch under way, and what it asks for beside that
// depends on no other.
func (f *front) serve(reqs []request) {
	f.heedWriter()
	batches := reqs[:0]
	for _, r := range reqs {
		switch {
		case f.failed != nil:
			r.done(f.failed)
		case r.flush:
			f.read(r.done)
		case r.fix != nil:
			f.past([]request{r})
		default:
			batches = append(batches, r)
		}
	}
	if len(batches) == 0 {
		return
	}
	if f.mustPass(batches) {
		f.past(append([]request{}, batches...))
		return
	}
	err := f.append(batches)
	if err != nil && !errors.Is(err, store.ErrFull) {
		f.fail(err)
		err = f.failed
	}
	answer(batches, err)
}

// heedWriter goes by what the writer has said of itself: nothing is acknowledged after it has failed, and a round that found
// the disk full is tried at once when there is space again, or what comes now would be refused.
func (f *front) heedWriter() {
	if err := f.db.failure(); err != nil {
		f.fail(err)
	}
	if f.again != nil && f.failed == nil && !f.full.Load() {
		f.again.Stop()
		f.again = nil
		f.startRound()
	}
}

// mustPass says whether the batches go to the writer instead of the log, and encodes them if not.
func (f *front) mustPass(reqs []request) bool {
	if f.logs[0] == nil || f.full.Load() || f.again != nil {
		return true
	}
	if f.direct > 0 {
		f.direct--
		return true
	}
	f.content = f.content[:0]
	for i := range reqs {
		f.content = appendPart(f.content, reqs[i].q, reqs[i].ops, &f.scratch)
	}
	if len(f.content) < f.opts.limits.directSize {
		return false
	}
	f.direct = directRun
	return true
}

// append makes the batches durable.
func (f *front) append(reqs []request) error {
	f.opts.BeforeSync(1)
	err := f.write()
	if errors.Is(err, journal.ErrRoom) {
		if err = f.makeRoom(); err == nil {
			err = f.write()
		}
	}
	if err != nil {
		return err
	}
	f.watchRest()
	file := int(f.active.Load())
	f.last[file] = f.number
	for i := range reqs {
		q := reqs[i].q
		q.unread.note(file, reqs[i].ops)
		if !q.listed {
			q.listed = true
			f.queues = append(f.queues, q)
		}
	}
	return nil
}

func (f *front) write() error {
	err := f.logs[f.active.Load()].Append(f.number+1, f.content)
	if err == nil {
		f.number++
	}
	return err
}

// makeRoom waits for the other file and changes over to it. While the disk has no room for what that one holds there is none
// here either.
func (f *front) makeRoom() error {
	for f.busy {
		if f.again != nil {
			return store.ErrFull
		}
		f.roundEnded(<-f.applied)
		if f.failed != nil {
			return f.failed
		}
	}
	if !f.logs[f.active.Load()].Empty() {
		f.changeOver()
	}
	return nil
}

// past hands the requests to the writer once everything that was appended before is in the file.
func (f *front) past(reqs []request) {
	f.flush(func(err error) {
		if err != nil {
			answer(reqs, err)
			return
		}
		for _, r := range reqs {
			f.w.in.Put(r)
		}
	})
}

// read is flush for a reader. Where a round finds the disk full the reader waits for it: what the file alone says would
// make it give out again what was finished.
func (f *front) read(done func(error)) {
	f.flush(func(err error) {
		if errors.Is(err, store.ErrFull) {
			f.readers = append(f.readers, done)
			return
		}
		done(err)
	})
}

// flush calls done when what the log holds by now is in the file. It does not wait.
func (f *front) flush(done func(error)) {
	active := int(f.active.Load())
	switch {
	case f.failed != nil:
		done(f.failed)
	case f.again != nil:
		done(store.ErrFull)
	case f.logs[active] != nil && !f.logs[active].Empty():
		f.waiting[active] = append(f.waiting[active], done)
		f.wanted = true
		if !f.busy {
			f.changeOver()
		}
	case f.busy:
		f.waiting[1-active] = append(f.waiting[1-active], done)
	default:
		done(nil)
	}
}

// changeOver appends to the other file from now on, and has the writer bring this one into the database.
func (f *front) changeOver() {
	active := f.active.Load()
	f.active.Store(1 - active)
	f.logs[1-active].Begin(f.state.salt)
	f.wanted = false
	f.busy = true
	f.startRound()
}

func (f *front) startRound() {
	file := 1 - f.active.Load()
	r := &round{each: f.logs[file].Groups, last: f.last[file], live: true}
	r.keep = !slices.ContainsFunc(f.queues, func(q *Queue) bool { return q.unread.deletes(int(file)) })
	f.w.in.Put(request{round: r, done: func(err error) { f.applied <- err }})
}

// roundEnded goes on after a round. One that finds no room is tried again: its changes are safe in the log, but what
// waits for them must not take that for granted.
func (f *front) roundEnded(err error) {
	file := int(1 - f.active.Load())
	switch {
	case err == nil:
		f.written(file)
		f.tell(file, nil)
		f.readAgain()
	case errors.Is(err, store.ErrFull):
		f.again = time.NewTimer(f.opts.limits.regainEvery)
		f.wanted = false
		f.tell(file, err)
		f.tell(1-file, err)
	default:
		f.fail(err)
	}
	if f.wanted && !f.busy && f.failed == nil {
		f.changeOver()
	}
}

// readAgain sees to the readers that a full disk kept waiting.
func (f *front) readAgain() {
	readers := f.readers
	f.readers = nil
	for _, done := range readers {
		f.read(done)
	}
}

// tell answers those who wait for what a file of the log holds.
func (f *front) tell(file int, err error) {
	waiting := f.waiting[file]
	f.waiting[file] = nil
	for _, done := range waiting {
		done(err)
	}
}

func (f *front) written(file int) {
	f.busy = false
	left := f.queues[:0]
	for _, q := range f.queues {
		q.unread.written(file)
		if q.listed = q.unread.has((*pending).any); q.listed {
			left = append(left, q)
		}
	}
	clear(f.queues[len(left):])
	f.queues = left
}

// fail ends all writing.
func (f *front) fail(cause error) {
	if f.failed != nil {
		return
	}
	f.failed = f.db.fail(cause)
	f.tell(0, f.failed)
	f.tell(1, f.failed)
	f.readAgain()
}

// finish brings all that is in the log into the file, so that the next open finds nothing there.
func (f *front) finish() {
	if f.failed == nil && f.logs[0] != nil {
		f.empty()
	}
	f.rest.Stop()
	for _, done := range f.readers {
		done(store.ErrClosed)
	}
	f.w.in.Close()
	<-f.w.ended
	f.w.closeLogs(f.logs)
}

func (f *front) empty() {
	tried := make(chan error, 1)
	f.flush(func(err error) { tried <- err })
	for f.busy && f.again == nil && f.failed == nil {
		f.roundEnded(<-f.applied)
	}
	if f.again != nil {
		f.again.Stop()
	}
	if err := <-tried; err != nil {
		f.opts.Logger.Warn("what the log holds could not be brought into the file; the next start does it",
			"path", f.db.path, "error", err)
		return
	}
	f.w.in.Put(request{round: &round{each: noGroups, last: f.number}, done: func(err error) { tried <- err }})
	if err := <-tried; err != nil {
		f.opts.Logger.Warn("the end of the log could not be noted; the next start reads it again", "path", f.db.path, "error", err)
	}
}

func noGroups(func([]byte) error) error { return nil }

// failure is why nothing is written any more; nil: all is well.
func (db *DB) failure() error {
	db.mu.RLock()
	defer db.mu.RUnlock()
	return db.failed
}

// fail notes why nothing is written any more and tells everybody. The first cause stands.
func (db *DB) fail(cause error) error {
	db.mu.Lock()
	if db.failed != nil {
		defer db.mu.Unlock()
		return db.failed
	}
	err := fmt.Errorf("%w: %w", store.ErrUnknown, cause)
	if errors.Is(cause, store.ErrUnknown) {
		err = cause
	}
	db.failed = err
	db.mu.Unlock()
	db.opts.Logger.Error("the database cannot be written any more", "path", db.path, "error", err)
	db.opts.Health(err)
	return err
}

// needs has what the log holds of the queue brought into the file if test says that a reader needs it.
func (q *Queue) needs(test func(*pending) bool) error {
	if !q.unread.has(test) {
		return nil
	}
	done := make(chan error, 1)
	if !q.db.in.Put(request{q: q, flush: true, done: func(err error) { done <- err }}) {
		return store.ErrClosed
	}
	return <-done
}
