package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.etcd.io/bbolt"

	"stint/store"
	"stint/store/storetest"
)

// dice gives a number below n. Random histories are drawn with it, from rapid or from a seed.
type dice func(n int) int

// held is an item as a history left it.
type held struct {
	store.Record
	expiry int64 // in the index; 0: not there any more
	leased bool
}

// drawer makes batches of one queue, with operations of every kind, that a broker might submit.
type drawer struct {
	roll  dice
	items []held // by id
	last  uint64
	large int // one body in so many is larger than what goes through a log; 0: none
}

var drawnNames = []string{"x", "y", "z"}

func (w *drawer) batch() (ops []store.Op) {
	for range 1 + w.roll(6) {
		ops = append(ops, w.op())
	}
	return ops
}

func (w *drawer) op() store.Op {
	kind := store.OpKind(1 + w.roll(int(store.OpPruneDedup)))
	if len(w.items) < 2 || kind == store.OpPut {
		return w.put()
	}
	i := w.roll(len(w.items))
	it := &w.items[i]
	switch kind {
	case store.OpMove:
		return w.move(it)
	case store.OpDelete, store.OpSetAside:
		return w.remove(kind, i)
	case store.OpUnexpire:
		op := store.Op{Kind: kind, ID: it.ID, Expires: it.expiry}
		it.expiry = 0
		return op
	case store.OpPutLease:
		if it.Place.Area == store.Ready {
			it.leased = true
			return store.Op{Kind: kind, Lease: store.Lease{ID: it.ID, Attempt: uint32(w.roll(9)), Processor: "p", Timeout: 7}}
		}
	case store.OpDeleteLease:
		it.leased = false
		return store.Op{Kind: kind, ID: it.ID}
	}
	return w.side(kind)
}

func (w *drawer) place() store.Place {
	switch w.roll(4) {
	case 0:
		return store.Place{Area: store.Delayed, Due: int64(w.roll(9)) - 4}
	case 1:
		return store.Place{Area: store.Dead}
	}
	return store.Place{Area: store.Ready, Priority: uint8(w.roll(3))}
}

func (w *drawer) put() store.Op {
	w.last += uint64(1 + w.roll(3))
	r := storetest.Waiting(w.last, 0, strings.Repeat("b", w.roll(120)))
	if w.large > 0 && w.roll(w.large) == 0 {
		r.Body = bytes.Repeat([]byte("large"), 200)
	}
	r.Place = w.place()
	r.Expires = []int64{0, 0, 5, 9}[w.roll(4)]
	r.MsgID, r.Reply, r.Header = "m", "r", map[string][]string{"H": {"a", "b"}}
	w.items = append(w.items, held{Record: r, expiry: r.Expires})
	return storetest.Put(r)
}

func (w *drawer) move(it *held) store.Op {
	op := storetest.Move(it.Record, w.place(), store.Marks{Epoch: 2, Deliveries: uint32(w.roll(300)), Attempts: 1, Code: "c", Reason: "why"})
	op.Expires, op.Leased = it.expiry, it.leased && (op.To.Area != store.Ready || w.roll(2) == 0)
	it.Place, it.Marks, it.leased = op.To, op.Marks, it.leased && !op.Leased
	return op
}

// remove makes an operation after which the item is not there. One that expires is not set aside: whether the index keeps
// it then, an engine may choose.
func (w *drawer) remove(kind store.OpKind, i int) store.Op {
	it := w.items[i]
	w.items = append(w.items[:i], w.items[i+1:]...)
	if kind == store.OpSetAside && it.expiry == 0 {
		return store.Op{Kind: kind, ID: it.ID, From: it.Place}
	}
	op := storetest.Delete(it.Record)
	op.Expires, op.Leased = it.expiry, it.leased
	return op
}

// side makes an operation on what is not an item.
func (w *drawer) side(kind store.OpKind) store.Op {
	id, name, at := uint64(1+w.roll(4)), drawnNames[w.roll(3)], int64(w.roll(12))
	switch kind {
	case store.OpDeleteReply:
		return store.Op{Kind: kind, ID: id}
	case store.OpPutRegistration, store.OpDeleteRegistration:
		return store.Op{Kind: kind, Registration: store.Registration{Processor: name, Capacity: int(at), Batch: 3, Seen: at}}
	case store.OpPutDedup:
		return store.Op{Kind: kind, Dedup: store.Dedup{MsgID: name, ID: id, Expires: at, ReplyHash: 1 << 63}}
	case store.OpPruneDedup:
		return store.Op{Kind: kind, Expires: at}
	default:
		return store.Op{Kind: store.OpPutReply, Reply: &store.Reply{
			ID: id, Subject: name, Expires: at, Header: map[string][]string{"H": {name}}, Body: []byte(name),
		}}
	}
}

// seen is all that can be read of a queue.
type seen struct {
	Snapshot            store.Snapshot
	Ready, Due, Expired []store.Record
	Damaged             []store.Damage
	Replies             map[uint64]store.Reply
	Dedup               map[string]store.Dedup
}

// look reads a queue. What differs from engine to engine, or from one opening to the next, is left out.
func look(q store.Queue) (s seen, err error) {
	const late = 1 << 40
	s.Replies, s.Dedup = map[uint64]store.Reply{}, map[string]store.Dedup{}
	var errs [4]error
	var due, expired, ready store.Page
	s.Snapshot, errs[0] = q.Load()
	s.Snapshot.Epoch = 0
	ready, errs[1] = q.Ready(store.Cursor{}, store.Limit{})
	due, errs[2] = q.Due(late, store.Limit{})
	expired, errs[3] = q.Expired(late, store.Limit{})
	s.Ready, s.Due, s.Expired = ready.Records, due.Records, expired.Records
	s.Damaged = append(append(ready.Damaged, due.Damaged...), expired.Damaged...)
	for id := uint64(1); id <= 4; id++ {
		r, ok, err := q.Reply(id)
		if ok {
			s.Replies[id] = r
		}
		errs[0] = errors.Join(errs[0], err)
	}
	for _, name := range drawnNames {
		d, ok, err := q.Dedup(name)
		if ok {
			s.Dedup[name] = d
		}
		errs[0] = errors.Join(errs[0], err)
	}
	return s, errors.Join(errs[:]...)
}

func mustLook(t testing.TB, q store.Queue) seen {
	t.Helper()
	s, err := look(q)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func diffSeen(want, got seen) string { return cmp.Diff(want, got, cmpopts.EquateEmpty()) }

// logFiles are the files that a database with a log consists of.
func logFiles(dir string) []string {
	return []string{dbPath(dir), dbPath(dir) + logSuffixes[0], dbPath(dir) + logSuffixes[1]}
}

// copyFiles takes the files of a database as a crash would leave them. Nothing may be writing.
func copyFiles(t testing.TB, from string) (to string) {
	t.Helper()
	to = t.TempDir()
	for i, name := range logFiles(from) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(logFiles(to)[i], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// noted is a logger that keeps what it was told.
type noted struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (n *noted) Write(b []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.Write(b)
}

func (n *noted) String() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.String()
}

func (n *noted) logger() *slog.Logger { return slog.New(slog.NewTextHandler(n, nil)) }

// crashedLog is a directory with a database whose log holds groups, each of which put the item of its number, that the file does
// not have.
func crashedLog(t *testing.T, groups uint64) string {
	t.Helper()
	dir := t.TempDir()
	q := storetest.Queue(t, mustOpen(t, dir, logged), "q")
	for id := uint64(1); id <= groups; id++ {
		storetest.Commit(t, q, storetest.Put(storetest.Waiting(id, 0, fmt.Sprint("item ", id))))
	}
	return copyFiles(t, dir)
}

func TestLogRecovered(t *testing.T) {
	dir := crashedLog(t, 3)
	salts := map[uint64]bool{}
	for range 2 { // a crash right after the start changes nothing
		dir = copyFiles(t, dir)
		db := mustOpen(t, dir, logged)
		wantIDs(t, storetest.Queue(t, db, "q"), 1, 2, 3)
		salts[db.front.state.salt] = true
	}
	if len(salts) != 2 {
		t.Error("two openings have the same salt")
	}
	wantIDs(t, storetest.Queue(t, mustOpen(t, copyFiles(t, dir), small), "q"), 1, 2, 3)
}

// TestLogTornLast: a last group that was not wholly written is not there; nothing is said of it.
func TestLogTornLast(t *testing.T) {
	dir, said := crashedLog(t, 3), &noted{}
	name := logFiles(dir)[1]
	b, _ := os.ReadFile(name)
	b[bytes.Index(b, []byte("item 3"))] ^= 1
	os.WriteFile(name, b, 0o600)
	o := logged
	o.Logger = said.logger()
	wantIDs(t, storetest.Queue(t, mustOpen(t, dir, o), "q"), 1, 2)
	if said.String() != "" {
		t.Errorf("it said %s", said)
	}
}

// TestLogDamaged: groups that are lost before one that is there are counted, and do not keep the database from opening.
func TestLogDamaged(t *testing.T) {
	for name, test := range map[string]struct {
		hit  []string
		want []uint64
		says string
	}{
		"middle":       {[]string{"item 2"}, []uint64{1, 3, 4}, "groups=1 of=4"},
		"first":        {[]string{"item 1"}, []uint64{2, 3, 4}, "groups=1 of=4"},
		"two":          {[]string{"item 1", "item 3"}, []uint64{2, 4}, "groups=2 of=4"},
		"two together": {[]string{"item 2", "item 3"}, []uint64{1, 4}, "groups=2 of=4"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, said := crashedLog(t, 4), &noted{}
			b, _ := os.ReadFile(logFiles(dir)[1])
			for _, h := range test.hit {
				b[bytes.Index(b, []byte(h))] ^= 1
			}
			os.WriteFile(logFiles(dir)[1], b, 0o600)
			o := logged
			o.Logger = said.logger()
			db := mustOpen(t, dir, o)
			q := storetest.Queue(t, db, "q")
			wantIDs(t, q, test.want...)
			if !strings.Contains(said.String(), test.says) || !strings.Contains(said.String(), "ERROR") {
				t.Errorf("it said %s", said)
			}
			// The numbers go on, and what was lost is not said again.
			storetest.Commit(t, q, storetest.Put(storetest.Waiting(9, 0, "")))
			said.b.Reset()
			wantIDs(t, storetest.Queue(t, mustOpen(t, copyFiles(t, dir), o), "q"), append(test.want, 9)...)
			if said.String() != "" {
				t.Errorf("it said again %s", said)
			}
		})
	}
}

// holding makes the file's writes wait, once armed, until hold is closed.
func holding(o Options, armed *atomic.Bool, hold chan bool) Options {
	o.hooks.opened = func(h *bbolt.DB) {
		write := field[func([]byte, int64) (int, error)](h, "ops", "writeAt")
		real := *write
		*write = func(b []byte, off int64) (int, error) {
			if armed.Load() {
				<-hold
			}
			return real(b, off)
		}
	}
	return o
}

// TestLogTwoFiles: the groups of both files are put together in their order, whichever file is the later, and what is missing
// between them is noticed.
func TestLogTwoFiles(t *testing.T) {
	for _, later := range []int{0, 1} {
		dir := t.TempDir()
		hold := make(chan bool)
		var armed atomic.Bool
		o := holding(logged, &armed, hold)
		db := mustOpen(t, dir, o)
		q := storetest.Queue(t, db, "q")
		id := uint64(0)
		commit := func() {
			id++
			storetest.Commit(t, q, storetest.Put(storetest.Waiting(id, 0, fmt.Sprint("item ", id))))
		}
		if later == 0 {
			commit()
			storetest.Load(t, q) // changes over
		}
		commit()
		commit()
		armed.Store(true)
		loaded := make(chan error)
		go func() { _, err := q.Load(); loaded <- err }()
		for int(db.front.active.Load()) != later {
			commit() // until the files have changed places, each joins those before
		}
		commit()
		commit()
		image := copyFiles(t, dir)
		close(hold)
		if err := <-loaded; err != nil {
			t.Fatal(err)
		}
		all := make([]uint64, id)
		for i := range all {
			all[i] = uint64(i + 1)
		}
		whole := copyFiles(t, image)
		wantIDs(t, storetest.Queue(t, mustOpen(t, whole, logged), "q"), all...)

		said := &noted{}
		o = logged
		o.Logger = said.logger()
		for _, name := range logFiles(image)[1:] {
			b, _ := os.ReadFile(name)
			if at := bytes.Index(b, fmt.Appendf(nil, "item %d", id-1)); at >= 0 {
				b[at] ^= 1
			}
			os.WriteFile(name, b, 0o600)
		}
		wantIDs(t, storetest.Queue(t, mustOpen(t, image, o), "q"), append(all[:id-2:id-2], id)...)
		if !strings.Contains(said.String(), "groups=1") {
			t.Errorf("it said %s", said)
		}
	}
}

func TestLogMissing(t *testing.T) {
	dir := crashedLog(t, 2)
	for _, name := range logFiles(dir)[1:] {
		os.Rename(name, name+".away")
		for range 2 {
			_, err := Open(dbPath(dir), logged)
			if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), name+" is missing") || !strings.Contains(err.Error(), "put it back") {
				t.Errorf("open: %v", err)
			}
		}
		os.Rename(name+".away", name)
	}
	wantIDs(t, storetest.Queue(t, mustOpen(t, dir, logged), "q"), 1, 2)
}

// TestLogEmpty: an empty file is how a person says that the log is lost.
func TestLogEmpty(t *testing.T) {
	dir, said := crashedLog(t, 2), &noted{}
	os.Truncate(logFiles(dir)[1], 0)
	o := logged
	o.Logger = said.logger()
	wantIDs(t, storetest.Queue(t, mustOpen(t, dir, o), "q"))
	if !strings.Contains(said.String(), "ERROR") || !strings.Contains(said.String(), logFiles(dir)[1]) {
		t.Errorf("it said %s", said)
	}
}

func TestLogForeign(t *testing.T) {
	dir, other := crashedLog(t, 2), crashedLog(t, 3)
	b, _ := os.ReadFile(logFiles(other)[1])
	os.WriteFile(logFiles(dir)[1], b, 0o600)
	if _, err := Open(dbPath(dir), logged); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), logFiles(dir)[1]) {
		t.Errorf("open: %v", err)
	}
}

// TestLogAfterClose: after a clean end nothing in the log counts, and its files may be missing.
func TestLogAfterClose(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir, logged)
	storetest.Commit(t, storetest.Queue(t, db, "q"), storetest.Put(storetest.Waiting(1, 0, "")))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	h, err := bbolt.Open(dbPath(dir), 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	h.View(func(tx *bbolt.Tx) error {
		if s, err := readLogState(tx); err != nil || s.live || s.applied != 1 || s.identity == 0 {
			t.Errorf("the file says %+v, %v", s, err)
		}
		return nil
	})
	h.Close()
	for _, name := range logFiles(dir)[1:] {
		os.Remove(name)
	}
	db = mustOpen(t, dir, logged)
	wantIDs(t, storetest.Queue(t, db, "q"), 1)
	for _, name := range logFiles(dir)[1:] {
		if !exists(name) {
			t.Errorf("%s was not made", name)
		}
	}
}

// TestLogNoRoom: where there is no room for the log the database does without.
func TestLogNoRoom(t *testing.T) {
	for n := range 4 { // syncs that succeed before: two for each file
		dir, said := t.TempDir(), &noted{}
		o := logged
		o.Logger = said.logger()
		left := n
		o.hooks.syncLog = func(f *os.File) error {
			if left--; left < 0 {
				return &os.PathError{Op: "write", Path: f.Name(), Err: syscall.ENOSPC}
			}
			return nil
		}
		db := mustOpen(t, dir, o)
		q := storetest.Queue(t, db, "q")
		storetest.Commit(t, q, storetest.Put(storetest.Waiting(1, 0, "")))
		if !strings.Contains(said.String(), "no room for the log") {
			t.Errorf("it said %s", said)
		}
		for _, name := range logFiles(dir)[1:] {
			if exists(name) {
				t.Errorf("%s takes up space", name)
				continue
			}
			os.WriteFile(name, nil, 0o600) // for copyFiles
		}
		wantIDs(t, storetest.Queue(t, mustOpen(t, copyFiles(t, dir), logged), "q"), 1)
	}
}

// TestLogSyncFailsAtOpen: another error is one of Open, and leaves nothing locked.
func TestLogSyncFailsAtOpen(t *testing.T) {
	dir := t.TempDir()
	o := logged
	o.hooks.syncLog = func(*os.File) error { return syscall.EIO }
	if _, err := Open(dbPath(dir), o); !errors.Is(err, syscall.EIO) {
		t.Fatalf("open: %v", err)
	}
	mustOpen(t, dir, logged)
}

// TestFormat1 opens a database from before there was a log.
func TestFormat1(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir, small)
	storetest.Commit(t, storetest.Queue(t, db, "q"), storetest.Put(storetest.Waiting(1, 0, "")))
	db.Close()
	edit(t, dir, func(tx *bbolt.Tx) error {
		b := tx.Bucket(metaBucket)
		for _, key := range [][]byte{identityKey, saltKey, appliedKey, liveKey} {
			if err := b.Delete(key); err != nil {
				return err
			}
		}
		return b.Put(formatKey, appendMeta(nil, formatKey, 1))
	})
	for _, o := range []Options{logged, small, logged} {
		db := mustOpen(t, dir, o)
		db.handle.View(func(tx *bbolt.Tx) error {
			if n, err := decodeMeta(formatKey, tx.Bucket(metaBucket).Get(formatKey)); n != 2 || err != nil {
				t.Errorf("format %d, %v", n, err)
			}
			return nil
		})
		q := storetest.Queue(t, db, "q")
		storetest.Commit(t, q, storetest.Put(storetest.Waiting(2, 0, "")))
		wantIDs(t, q, 1, 2)
		storetest.Commit(t, q, storetest.Delete(storetest.Waiting(2, 0, "")))
		db.Close()
	}
}
