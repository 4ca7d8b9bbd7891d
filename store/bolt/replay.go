package bolt

import (
	"bytes"
	"fmt"

	"stint/store"
)

// round is a number of groups of the log, in order, that are brought into the file in one transaction: those of one file
// while the database is open, those of both after a crash. The way is the same, but for keep.
type round struct {
	each func(yield func(content []byte) error) error
	last uint64 // number of the last group
	live bool   // what meta notes: the log may hold groups that the file does not
	keep bool   // it deletes nothing: all that it puts lives on, and there is nothing to see
}

// fate is what becomes of an item, or of a reply, within a round.
type fate uint8

const (
	put  fate = iota + 1 // it is put in this round
	gone                 // and deleted again: it need not be written
)

// itemFate is that of an item, with where it stands: a delete from elsewhere does nothing.
type itemFate struct {
	fate
	at store.Place
}

// fates are those of one queue. The writer keeps them from round to round. They rely on it that an id is never given twice.
type fates struct {
	name    []byte
	first   uint64 // the smallest id that is put; 0: none. What is done to an older item needs no look at the map
	items   map[uint64]itemFate
	replies map[uint64]fate
}

// fatesKept is how many entries a map may have held to be used again.
const fatesKept = 1 << 16

func (f *fates) reset() {
	if f.items == nil || len(f.items)+len(f.replies) > fatesKept {
		f.items, f.replies = make(map[uint64]itemFate), make(map[uint64]fate)
	}
	clear(f.items)
	clear(f.replies)
	f.first = 0
}

// older says whether an item was there before the round.
func (f *fates) older(id uint64) bool { return f.first == 0 || id < f.first }

// see notes what an operation does. An item that is set aside is left as it is, for its record is moved.
func (f *fates) see(op *logOp) {
	switch op.kind {
	case store.OpPut:
		if f.older(op.id) {
			f.first = op.id
		}
		f.items[op.id] = itemFate{put, op.to}
	case store.OpMove:
		if !f.older(op.id) && f.items[op.id] == (itemFate{put, op.from}) {
			f.items[op.id] = itemFate{put, op.to}
		}
	case store.OpDelete:
		if !f.older(op.id) && f.items[op.id] == (itemFate{put, op.from}) {
			f.items[op.id] = itemFate{fate: gone}
		}
	case store.OpSetAside:
		delete(f.items, op.id)
	case store.OpPutReply:
		f.replies[op.id] = put
	case store.OpDeleteReply:
		if f.replies[op.id] == put {
			f.replies[op.id] = gone
		}
	}
}

// spares says whether an operation need not be made. A reply may have replaced one that is in the file, so that its delete
// is made in any case.
func (f *fates) spares(op *logOp) bool {
	switch op.kind {
	case store.OpPut, store.OpMove, store.OpDelete, store.OpUnexpire, store.OpPutLease, store.OpDeleteLease:
		return !f.older(op.id) && f.items[op.id].fate == gone
	case store.OpPutReply:
		return f.replies[op.id] == gone
	}
	return false
}

// fatesOf finds those of a queue by the name of its bucket. Most operations are of the queue that the one before was of.
func (t *txn) fatesOf(name []byte) *fates {
	if t.fates != nil && bytes.Equal(t.fates.name, name) {
		return t.fates
	}
	f := t.allFates[string(name)]
	if f == nil {
		f = &fates{name: bytes.Clone(name)}
		f.reset()
		t.allFates[string(name)] = f
	}
	t.fates = f
	return f
}

// apply brings the round into the file.
func (r *round) apply(t *txn) error {
	defer t.forgetFates()
	if !r.keep {
		err := r.eachOp(func(queue []byte, op *logOp) error {
			t.fatesOf(queue).see(op)
			return nil
		})
		if err != nil {
			return err
		}
	}
	err := r.eachOp(func(queue []byte, op *logOp) error {
		if !r.keep && t.fatesOf(queue).spares(op) {
			return nil
		}
		p, err := t.part(queue)
		if err != nil {
			return err
		}
		return p.replay(op)
	})
	if err != nil {
		return fmt.Errorf("bring the log into the file: %w", err)
	}
	return noteLog(t.tx, r.last, r.live)
}

func (r *round) eachOp(yield func(queue []byte, op *logOp) error) error {
	return r.each(func(content []byte) error { return eachOp(content, yield) })
}

func (t *txn) forgetFates() {
	t.fates = nil
	if len(t.allFates) > fatesQueues {
		clear(t.allFates)
	}
	for _, f := range t.allFates {
		f.reset()
	}
}

// fatesQueues is of how many queues the maps are kept.
const fatesQueues = 64

// replay makes the change that an operation of the log stands for.
func (p *part) replay(op *logOp) error {
	switch op.kind {
	case store.OpPut:
		return p.replayPut(op)
	case store.OpPutLease:
		return p.put(kindLease, appendID(p.key[:0], op.id), op.value)
	case store.OpPutReply:
		return p.replaceReply(op.id, op.value)
	case store.OpPutRegistration:
		return p.put(kindRegister, op.key, op.value)
	case store.OpDeleteRegistration:
		_, err := p.remove(kindRegister, op.key)
		return err
	case store.OpPutDedup:
		d, err := decodeDedup(op.key, op.value)
		if err != nil {
			return err
		}
		return p.putDedup(&d)
	}
	as := store.Op{
		Kind: op.kind, ID: op.id, From: op.from, To: op.to, Expires: op.expires, Size: op.size, Leased: op.leased,
	}
	if op.kind == store.OpMove {
		d := decoder{s: string(op.value)}
		if d.marks(&as.Marks); d.bad {
			return errShort
		}
	}
	return p.applyOne(&as)
}

func (p *part) replayPut(op *logOp) error {
	k := areaKind(op.to.Area)
	if err := p.put(k, appendPlaceKey(p.key[:0], op.to, op.id), op.value); err != nil {
		return err
	}
	return p.wasPut(op.id, op.to, op.expires, op.size)
}

// part returns the part of a queue by the name of its bucket.
func (t *txn) part(name []byte) (*part, error) {
	if p := t.latest; p != nil && bytes.Equal(p.name, name) {
		return p, nil
	}
	p := t.known[string(name)]
	if p == nil {
		p = &part{name: bytes.Clone(name)}
		t.known[string(p.name)] = p
	}
	if err := p.open(t); err != nil {
		return nil, err
	}
	t.latest = p
	return p, nil
}
