package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"stint/store"
	"stint/store/internal/journal"
)

// Names and numbers of the log. The numbers stand in the meta bucket of the file, so that they change together with what
// they speak of.
var (
	logSuffixes = [2]string{".log0", ".log1"}

	identityKey = []byte("log identity") // of the database: its log files carry it
	saltKey     = []byte("log salt")     // of this opening
	appliedKey  = []byte("log applied")  // number of the last group that is in the file
	liveKey     = []byte("log live")     // 1: the log may hold more than the file
)

// logState is what the meta bucket says of the log.
type logState struct {
	identity, salt, applied uint64
	live                    bool
}

func readLogState(tx *bbolt.Tx) (s logState, err error) {
	b := tx.Bucket(metaBucket)
	var live uint64
	for _, f := range []struct {
		key []byte
		to  *uint64
	}{{identityKey, &s.identity}, {saltKey, &s.salt}, {appliedKey, &s.applied}, {liveKey, &live}} {
		v := b.Get(f.key)
		if v == nil {
			continue // format 1 had no log
		}
		if *f.to, err = decodeMeta(f.key, v); err != nil {
			return s, fmt.Errorf("%w: its %s: %w", store.ErrCorrupt, f.key, err)
		}
	}
	s.live = live != 0
	return s, nil
}

// noteLog writes what a round changes of it.
func noteLog(tx *bbolt.Tx, applied uint64, live bool) error {
	b := tx.Bucket(metaBucket)
	flag := uint64(0)
	if live {
		flag = 1
	}
	return errors.Join(
		b.Put(appliedKey, appendMeta(nil, appliedKey, applied)),
		b.Put(liveKey, appendMeta(nil, liveKey, flag)))
}

// renewLog gives the log of this opening a salt of its own, and the database its identity if it has none.
func renewLog(tx *bbolt.Tx, s *logState) error {
	b := tx.Bucket(metaBucket)
	if s.identity == 0 {
		s.identity = rand.Uint64() | 1
	}
	s.salt = rand.Uint64()
	return errors.Join(
		b.Put(identityKey, appendMeta(nil, identityKey, s.identity)),
		b.Put(saltKey, appendMeta(nil, saltKey, s.salt)))
}

// recoverLog reads what the log holds beyond the file, as the last process left it.
func (w *writer) recoverLog(s logState) (*round, error) {
	r := &round{last: s.applied, each: noGroups}
	if !s.live {
		return r, nil
	}
	var groups []journal.Group
	for _, suffix := range logSuffixes {
		g, err := w.readLog(w.db.path+suffix, s)
		if err != nil {
			return nil, err
		}
		if len(g) > 0 && len(groups) > 0 && g[0].Number < groups[0].Number {
			groups, g = g, groups
		}
		groups = append(groups, g...)
	}
	next := s.applied + 1
	for _, g := range groups {
		if g.Number < next {
			return nil, corrupt(w.db.path, fmt.Errorf("its log has group %d twice", g.Number))
		}
		next = g.Number + 1
	}
	if n := len(groups); n > 0 {
		r.last = groups[n-1].Number
		if missing := r.last - s.applied - uint64(n); missing > 0 {
			w.log.Error("the log is damaged; what these groups of changes held is lost, and what they finished may be done again",
				"path", w.db.path, "groups", missing, "of", r.last-s.applied)
		}
	}
	r.each = func(yield func([]byte) error) error {
		for _, g := range groups {
			if err := yield(g.Content); err != nil {
				return err
			}
		}
		return nil
	}
	return r, nil
}

func (w *writer) readLog(path string, s logState) ([]journal.Group, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, corrupt(w.db.path, fmt.Errorf(
			"its log %s is missing, which may hold work that was accepted; put it back (an empty file gives up what it held)", path))
	case err == nil && info.Size() == 0:
		w.log.Error("an empty file stands in the place of a log; what the log held is lost", "path", path)
		return nil, nil
	}
	g, _, err := journal.Read(path, s.identity, s.salt, s.applied)
	switch {
	case errors.Is(err, journal.ErrForeign):
		err = corrupt(w.db.path, err)
	case errors.Is(err, journal.ErrCut):
		w.log.Error("a file of the log is cut short or its head is damaged; what is left of it is used, the rest is lost",
			"path", path, "groups", len(g), "error", err)
		err = nil
	}
	return g, err
}

// openLogs makes the files of the log anew. Nothing in the old ones is needed any more.
func (w *writer) openLogs(s logState) (logs [2]*journal.File, err error) {
	for i, suffix := range logSuffixes {
		path := w.db.path + suffix
		logs[i], err = journal.Create(path, s.identity, w.opts.LogBytes, w.opts.hooks.syncLog)
		if err != nil {
			w.closeLogs(logs)
			w.removeLogs()
			return [2]*journal.File{}, err
		}
		logs[i].Begin(s.salt)
	}
	if err := syncDir(filepath.Dir(w.db.path)); err != nil {
		w.closeLogs(logs)
		return [2]*journal.File{}, err
	}
	return logs, nil
}

func (w *writer) closeLogs(logs [2]*journal.File) {
	for _, l := range logs {
		if l != nil {
			_ = l.Close() // all that counts was synced
		}
	}
}

// removeLogs gives the space of the log back.
func (w *writer) removeLogs() {
	for _, suffix := range logSuffixes {
		if err := os.Remove(w.db.path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.log.Warn("a file of the log could not be removed", "path", w.db.path+suffix, "error", err)
		}
	}
}
