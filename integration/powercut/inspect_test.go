//go:build linux && (amd64 || arm64)

package powercut

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"

	"go.etcd.io/bbolt"

	"stint/store"
	"stint/store/bolt"
)

// where says in which records of a queue an item is; bits are joined.
type where uint8

const (
	inReady where = 1 << iota
	inDelayed
	inReply
	inExpiry
	inDedup
)

// found is what an image turned out to hold.
type found struct {
	Flaws []string // what must never be, whatever clients were told
	Epoch uint64
	Items []where          // by the item's number
	Dead  []int            // by queue
	Regs  []map[string]int // by queue: capacity by processor

	Deadly bool // the process that opened it did not live to tell
}

func (f *found) flaw(format string, args ...any) {
	f.Flaws = append(f.Flaws, fmt.Sprintf(format, args...))
}

// inspector opens images.
type inspector struct {
	facts  *facts
	byBody map[string]int
	bySubj map[string]int
}

func newInspector(facts *facts) *inspector {
	in := &inspector{facts: facts, byBody: map[string]int{}, bySubj: map[string]int{}}
	for i := range facts.Items {
		it := &facts.Items[i]
		in.byBody[string(it.Body)] = i
		in.bySubj[it.Reply] = i
	}
	return in
}

// look opens the image in a directory and reads everything.
func (in *inspector) look(dir string) *found {
	f := &found{Items: make([]where, len(in.facts.Items))}
	in.open(filepath.Join(dir, in.facts.Path), f)
	return f
}

func (in *inspector) open(path string, f *found) {
	var said bytes.Buffer
	db, err := bolt.Open(path, bolt.Options{
		ReserveBytes: -1,
		Logger:       slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn})),
	})
	if err != nil {
		f.flaw("it cannot be opened: %v", err)
		return
	}
	for i, name := range in.facts.Queues {
		q, err := db.Queue(name)
		if err == nil {
			err = in.queue(i, q, f)
		}
		if err != nil {
			f.flaw("the queue %s cannot be read: %v", name, err)
		}
	}
	if err := db.Close(); err != nil {
		f.flaw("it cannot be closed: %v", err)
	}
	if said.Len() > 0 {
		f.flaw("it complains: %s", said.String())
	}
	if len(f.Flaws) > 0 {
		return
	}
	if err := checkStructure(path); err != nil {
		f.flaw("its structure is wrong: %v", err)
	}
}

// checkStructure has bbolt look at every page, those that are free included. What it says of a file that is beyond repair may
// have no end; then bbolt's goroutine is left waiting, in a process that is there to be thrown away.
func checkStructure(path string) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true})
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		var all []error
		for err := range tx.Check() {
			if all = append(all, err); len(all) == 3 {
				break
			}
		}
		return errors.Join(all...)
	})
}

func (in *inspector) queue(i int, q store.Queue, f *found) error {
	snap, err := q.Load()
	if err != nil {
		return err
	}
	f.Epoch = uint64(snap.Epoch)
	f.Dead = append(f.Dead, snap.Counts.Dead)
	f.damage(snap.Damaged)
	f.Regs = append(f.Regs, map[string]int{})
	for _, r := range snap.Registrations {
		f.Regs[i][r.Processor] = r.Capacity
	}
	ready, err := in.ready(i, q, f)
	if err != nil {
		return err
	}
	delayed, err := q.Due(math.MaxInt64, store.Limit{})
	if err != nil {
		return err
	}
	in.page(i, delayed, inDelayed, f)
	expired, err := q.Expired(math.MaxInt64, store.Limit{})
	if err != nil {
		return err
	}
	in.page(i, expired, inExpiry, f)
	if c := snap.Counts; c.Ready != ready || c.Delayed != len(delayed.Records) || c.Damaged > 0 || c.Replies != len(snap.Replies) {
		f.flaw("queue %d counts %+v, but holds %d ready, %d delayed, %d replies", i, c, ready, len(delayed.Records), len(snap.Replies))
	}
	err = errors.Join(in.replies(i, q, snap.Replies, f), in.dedup(i, q, f))
	in.indexes(i, f)
	return err
}

// ready pages through the items that are ready, as the broker does.
func (in *inspector) ready(i int, q store.Queue, f *found) (n int, err error) {
	for at, last := (store.Cursor{}), -1; ; {
		p, err := q.Ready(at, store.Limit{Records: 50})
		if err != nil {
			return 0, err
		}
		in.page(i, p, inReady, f)
		for _, r := range p.Records {
			at = store.Cursor{Priority: r.Priority, ID: r.ID}
			if item, ok := in.byBody[string(r.Body)]; ok && item <= last {
				f.flaw("item %d is behind item %d, which was sent later", item, last)
			} else {
				last = item
			}
		}
		n += len(p.Records)
		if !p.More {
			return n, nil
		}
	}
}

func (f *found) damage(ds []store.Damage) {
	for _, d := range ds {
		f.flaw("a record is damaged: %s %x: %v", d.What, d.ID, d.Err)
	}
}

// page takes note of the items of a page.
func (in *inspector) page(queue int, p store.Page, at where, f *found) {
	f.damage(p.Damaged)
	for i := range p.Records {
		r := &p.Records[i]
		n, ok := in.byBody[string(r.Body)]
		if !ok {
			f.flaw("an item that was never sent: %x %.60q", r.ID, r.Body)
			continue
		}
		in.note(n, at, f)
		if err := in.facts.Items[n].checkRecord(queue, r); err != nil {
			f.flaw("item %d: %v", n, err)
		}
	}
}

func (in *inspector) note(n int, at where, f *found) {
	if f.Items[n]&at != 0 {
		f.flaw("item %d is there twice", n)
	}
	f.Items[n] |= at
}

// checkRecord says how a record differs from what was sent.
func (it *item) checkRecord(queue int, r *store.Record) error {
	trace := ""
	if v := r.Header["Trace"]; len(v) == 1 {
		trace = v[0]
	}
	switch {
	case queue != it.Queue:
		return fmt.Errorf("it is in queue %d, it was sent to %d", queue, it.Queue)
	case it.ID != 0 && it.ID != r.ID:
		return fmt.Errorf("its id is %x, it was accepted as %x", r.ID, it.ID)
	case r.Reply != it.Reply || r.MsgID != it.MsgID || trace != it.Trace || (r.Expires != 0) != (it.TTL != ""):
		return fmt.Errorf("its header differs: reply %q, message id %q, trace %q, expires %d", r.Reply, r.MsgID, trace, r.Expires)
	case r.Attempts > it.Failures:
		return fmt.Errorf("it counts %d attempts, %d failed", r.Attempts, it.Failures)
	}
	return nil
}

func (in *inspector) replies(queue int, q store.Queue, heads []store.ReplyHead, f *found) error {
	for _, h := range heads {
		r, ok, err := q.Reply(h.ID)
		if err != nil {
			return err
		}
		n, known := in.bySubj[h.Subject]
		if !ok || !known || in.facts.Items[n].Queue != queue {
			f.flaw("a reply that belongs to nothing: %x at %s", h.ID, h.Subject)
			continue
		}
		in.note(n, inReply, f)
		if err := in.facts.Items[n].checkFinal(r.Body); err != nil {
			f.flaw("a reply on record: %v", err)
		}
	}
	return nil
}

func (in *inspector) dedup(queue int, q store.Queue, f *found) error {
	for n := range in.facts.Items {
		it := &in.facts.Items[n]
		if it.MsgID == "" || it.Queue != queue {
			continue
		}
		d, ok, err := q.Dedup(it.MsgID)
		if err != nil {
			return err
		}
		if ok && it.ID != 0 && d.ID != it.ID {
			f.flaw("the message id of item %d leads to %x, it was accepted as %x", n, d.ID, it.ID)
		}
		if ok {
			f.Items[n] |= inDedup
		}
	}
	return nil
}

// indexes checks what must go together.
func (in *inspector) indexes(queue int, f *found) {
	for n, at := range f.Items {
		it := &in.facts.Items[n]
		switch waits := at&(inReady|inDelayed) != 0; {
		case it.Queue != queue:
		case at&inReady != 0 && at&inDelayed != 0:
			f.flaw("item %d is both ready and delayed", n)
		case waits && at&inReply != 0:
			f.flaw("item %d waits although its reply is on record", n)
		case waits && it.TTL != "" && at&inExpiry == 0:
			f.flaw("item %d would never expire", n)
		case waits && it.MsgID != "" && at&inDedup == 0:
			f.flaw("the message id of item %d is not on record with it", n)
		}
	}
}
