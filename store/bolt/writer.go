package bolt

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"

	"stint/store"
	"stint/store/internal/inbox"
)

// joinOps is how many operations are joined in one transaction at most, so that one commit stays short; a single batch may
// be larger.
const joinOps = 20000

// writer makes all changes to a database. Its goroutine owns every field; the handle it shares with the readers (see DB).
type writer struct {
	db      *DB
	opts    Options
	log     *slog.Logger
	in      *inbox.Inbox[request]
	reserve reserve
	ended   chan struct{}

	txn    txn
	joined []request    // of the transaction that is being made
	full   bool         // no room: new items are refused
	lean   bool         // there is no reserve, but room inside the file
	regain *time.Ticker // runs only while full or lean
	failed error        // nothing is written any more
	wedged bool         // bbolt panicked and holds its own locks
	lastTx int          // id of the transaction that was last committed, or tried, on this handle
	notYet int          // commits to let pass before a compaction that failed is tried again
}

func newWriter(db *DB) *writer {
	return &writer{
		db: db, opts: db.opts, log: db.opts.Logger,
		reserve: reserve{db.path + reserveSuffix, db.opts.ReserveBytes, db.opts.hooks.allocate},
		in:      inbox.New[request](inboxRoom),
		ended:   make(chan struct{}),
		txn:     txn{log: db.opts.Logger, known: make(map[string]*part), allFates: make(map[string]*fates)},
	}
}

// begin makes the reserve and starts a new epoch. It runs in the goroutine of Open.
func (w *writer) begin() error {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	if err := w.reserve.ensure(); err != nil {
		if !isNoSpace(err) {
			return err
		}
		w.enterFull(err)
	}
	err := w.openEpoch()
	if err != nil {
		w.stopRegain()
	}
	if errors.Is(err, errPanic) {
		err = corrupt(w.db.path, err)
	}
	return err
}

// openEpoch brings what the last process left in the log into the file, starts a new epoch in the same transaction, and
// makes the log ready.
func (w *writer) openEpoch() error {
	var state logState
	err := w.db.handle.View(func(tx *bbolt.Tx) (err error) {
		state, err = readLogState(tx)
		return err
	})
	if err != nil {
		return err
	}
	left, err := w.recoverLog(state)
	if err != nil {
		return err
	}
	err = w.transactFull(func(t *txn) error {
		return errors.Join(left.apply(t), t.flush(), renewLog(t.tx, &state), bumpEpoch(t))
	})
	if err != nil || w.opts.LogBytes < 0 {
		return err
	}
	state.applied = left.last
	return w.startLog(state)
}

// transactFull is transact with a second try after a disk that was full, for which the reserve is given up.
func (w *writer) transactFull(change func(*txn) error) error {
	err := w.transact(change)
	if errors.Is(err, store.ErrFull) {
		w.enterFull(err)
		if err = w.reopen(err); err == nil {
			err = w.transact(change)
		}
	}
	return err
}

// startLog opens the files of the log, and notes that they count from now on. Without room for them the database does
// without.
func (w *writer) startLog(state logState) error {
	logs, err := w.openLogs(state)
	if err != nil && isNoSpace(err) {
		w.log.Warn("there is no room for the log; every change is written to the file itself, which is slower", "path", w.db.path, "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	err = w.transactFull(func(t *txn) error { return noteLog(t.tx, state.applied, true) })
	if err != nil {
		w.closeLogs(logs)
		return err
	}
	f := w.db.front
	f.logs, f.state, f.number = logs, state, state.applied
	return nil
}

func bumpEpoch(t *txn) error {
	meta := t.tx.Bucket(metaBucket)
	epoch, err := decodeMeta(epochKey, meta.Get(epochKey))
	if err != nil {
		return fmt.Errorf("%w: its epoch: %w", store.ErrCorrupt, err)
	}
	if epoch >= maxEpoch {
		return fmt.Errorf("%w: it was opened %d times, which is as often as item ids allow; drain it and start with an empty one",
			store.ErrInvalid, epoch)
	}
	return errors.Join(
		meta.Put(formatKey, appendMeta(nil, formatKey, formatVersion)),
		meta.Put(epochKey, appendMeta(nil, epochKey, epoch+1)))
}

func (w *writer) run() {
	defer close(w.ended)
	debug.SetPanicOnFault(true)
	w.compactIfDue()
	for {
		var tick <-chan time.Time
		if w.regain != nil {
			tick = w.regain.C
		}
		select {
		case r, ok := <-w.in.C():
			if !ok {
				w.finish()
				return
			}
			w.joined = gather(w.in, w.joined, r)
			w.commit(w.joined)
			w.compactIfDue()
		case <-tick:
			w.tryRegain()
		}
	}
}

// gather joins what waits in the inbox to the first request, in the memory of joined.
func gather(in *inbox.Inbox[request], joined []request, first request) []request {
	joined = append(joined[:0], first)
	for n := len(first.ops); n < joinOps; {
		select {
		case r, ok := <-in.C():
			if !ok {
				return joined // the next receive sees the end
			}
			joined = append(joined, r)
			n += len(r.ops)
		default:
			return joined
		}
	}
	return joined
}

// commit writes the requests and tells each its outcome.
func (w *writer) commit(reqs []request) {
	defer func() { clear(w.joined) }()
	w.checkLean()
	if w.full {
		reqs = refuseNew(reqs, store.ErrFull)
	}
	w.settle(reqs)
}

// settle tries until every request has its outcome. Each turn answers at least one or ends.
func (w *writer) settle(reqs []request) {
	for len(reqs) > 0 {
		if w.failed != nil {
			answer(reqs, w.failed)
			return
		}
		bad, err := w.write(reqs)
		switch {
		case err == nil:
			answer(reqs, nil)
			return
		case bad >= 0:
			reqs[bad].done(err)
			reqs = append(reqs[:bad], reqs[bad+1:]...)
		case errors.Is(err, store.ErrFull):
			reqs = w.afterFull(reqs, err)
		default:
			w.fail(err)
		}
	}
}

func answer(reqs []request, err error) {
	for i := range reqs {
		reqs[i].done(err)
	}
}

// refuseNew gives err to the requests that put new items and returns the others.
func refuseNew(reqs []request, err error) []request {
	rest := reqs[:0]
	for _, r := range reqs {
		if r.putsItems() {
			r.done(err)
		} else {
			rest = append(rest, r)
		}
	}
	return rest
}

func (r *request) putsItems() bool {
	for i := range r.ops {
		if r.ops[i].Kind == store.OpPut {
			return true
		}
	}
	return false
}

// write makes one transaction of the requests. bad is the index of a request that cannot be stored as it stands, whose
// fault the error is; -1: the error is the transaction's.
func (w *writer) write(reqs []request) (bad int, err error) {
	bad = -1
	err = w.transact(func(t *txn) error {
		for i := range reqs {
			if err := reqs[i].apply(t); err != nil {
				bad = i
				return err
			}
		}
		return t.flush()
	})
	return bad, err
}

func (r *request) apply(t *txn) error {
	if r.round != nil {
		return r.round.apply(t)
	}
	p, err := t.part(r.q.name)
	if err != nil {
		return err
	}
	for _, d := range r.fix {
		if err := p.fix(d); err != nil {
			return err
		}
	}
	return p.apply(r.ops)
}

// errPanic: bbolt found its file in a state that it does not go on with.
var errPanic = fmt.Errorf("%w: its structure makes no sense", store.ErrCorrupt)

// transact runs one transaction. An error that wraps store.ErrFull is definite: nothing of it is stored, and the handle
// must be reopened. One from change itself is definite too, and the handle is good. Any other is of unknown outcome.
func (w *writer) transact(change func(*txn) error) (err error) {
	h := w.db.handle
	var tx *bbolt.Tx
	defer w.txn.end()
	defer func() {
		if p := recover(); p != nil {
			w.wedged = tx != nil && tx.DB() != nil
			w.log.Error("a transaction ended in a panic", "path", w.db.path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("%w: %v", errPanic, p)
		}
	}()
	tx, err = h.Begin(true)
	if err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	w.txn.begin(tx)
	if err := change(&w.txn); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	stats := h.Stats()
	h.NoFreelistSync = stats.FreePageN+stats.PendingPageN > w.opts.limits.freelistLong
	w.lastTx = tx.ID()
	w.opts.BeforeSync(2) // of the pages, then of the root
	if err := tx.Commit(); err != nil {
		if isFull(err) {
			return fmt.Errorf("%w: %w", store.ErrFull, err)
		}
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// fail ends all writing. The cause goes to everybody from now on.
func (w *writer) fail(cause error) {
	w.failed = w.db.fail(cause)
	w.stopRegain()
}

// finish writes the list of free pages, which a long list has kept out of the last commits: the next open need not read
// the whole file to find them.
func (w *writer) finish() {
	w.stopRegain()
	h := w.db.handle
	if w.failed != nil || h == nil || !h.NoFreelistSync {
		return
	}
	defer func() {
		if p := recover(); p != nil {
			w.wedged = true
			w.log.Warn("the list of free pages was not written", "path", w.db.path, "error", fmt.Sprint(p))
		}
	}()
	h.NoFreelistSync = false
	if err := h.Update(func(*bbolt.Tx) error { return nil }); err != nil {
		w.log.Warn("the list of free pages was not written", "path", w.db.path, "error", err)
	}
}
