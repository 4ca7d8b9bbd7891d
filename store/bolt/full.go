package bolt

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"stint/store"
)

// afterFull reopens the file after a commit for which there was no room, and returns the requests to try again.
//
// The first time, the reserve has just been given up, so all that need no new items are worth another try together.
// When there is none left to give up, they are tried one by one: a small delete may find room where all together did not.
func (w *writer) afterFull(reqs []request, cause error) []request {
	already := w.full
	w.enterFull(cause)
	if err := w.reopen(cause); err != nil {
		w.fail(err)
		return reqs
	}
	alone := len(reqs) == 1
	rest := refuseNew(reqs, cause)
	switch {
	case !already:
		return rest
	case alone:
		answer(rest, cause)
	default:
		for i := range rest {
			w.settle(rest[i : i+1 : i+1])
		}
	}
	return nil
}

// enterFull gives the reserve up and begins to watch for space.
func (w *writer) enterFull(cause error) {
	if w.full {
		return
	}
	w.full, w.lean = true, false
	w.db.front.full.Store(true)
	if err := w.reserve.release(); err != nil {
		w.log.Warn("the reserve could not be given up", "path", w.reserve.path, "error", err)
	}
	if w.regain == nil {
		w.regain = time.NewTicker(w.opts.limits.regainEvery)
	}
	w.log.Error("the disk is full; no new items are taken until there is space", "path", w.db.path, "error", cause)
	w.opts.Health(store.ErrFull)
}

// tryRegain looks whether there is space again: on the disk, or inside the file, whose pages are free once their items
// are finished. In the second case the writer goes on without a reserve (lean), and goes on looking.
func (w *writer) tryRegain() {
	err := w.reserve.regain()
	switch {
	case err == nil:
		w.lean = false
		w.stopRegain()
	case !isNoSpace(err):
		w.log.Warn("the reserve could not be made again", "path", w.reserve.path, "error", err)
		return
	case !w.full || w.freeInside() < w.reserve.size+w.reserve.slack():
		return
	default:
		w.lean = true
	}
	if w.full {
		w.full = false
		w.db.front.full.Store(false)
		w.log.Info("there is space again", "path", w.db.path, "inside_the_file", w.lean)
		w.opts.Health(nil)
	}
}

// freeInside is the space of the file's free pages, in bytes.
func (w *writer) freeInside() int64 {
	s := w.db.handle.Stats()
	return int64(s.FreePageN+s.PendingPageN) * int64(w.db.handle.Info().PageSize)
}

// checkLean counts the disk as full again when, without a reserve, the room inside the file that stands in for it has
// been used up.
func (w *writer) checkLean() {
	if w.lean && w.freeInside() < w.reserve.size {
		w.enterFull(fmt.Errorf("%w: %d bytes are left inside the file", store.ErrFull, w.freeInside()))
	}
}

func (w *writer) stopRegain() {
	if w.regain != nil {
		w.regain.Stop()
		w.regain = nil
	}
}

// reopen closes the handle and opens the file anew. It makes sure that the transaction that failed is not there: had the
// write of the meta page gone through before the error, it would be, and nobody could say what is on the disk.
func (w *writer) reopen(cause error) error {
	w.db.mu.Lock()
	defer w.db.mu.Unlock()
	if err := w.db.handle.Close(); err != nil {
		return fmt.Errorf("%w: close after %w: %w", store.ErrUnknown, cause, err)
	}
	w.db.handle = nil
	h, err := openHandle(w.db.path, w.opts)
	if err != nil {
		return fmt.Errorf("%w: reopen after %w: %w", store.ErrUnknown, cause, err)
	}
	w.db.handle = h
	var last int
	err = h.View(func(tx *bbolt.Tx) error {
		last = tx.ID()
		return nil
	})
	if err == nil && last >= w.lastTx {
		err = errors.New("the transaction that failed is in the file")
	}
	if err != nil {
		return fmt.Errorf("%w: after %w: %w", store.ErrUnknown, cause, err)
	}
	return nil
}
