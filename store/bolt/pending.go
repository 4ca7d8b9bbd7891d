package bolt

import (
	"sync"

	"stint/store"
)

// pending is what a round of the log holds of one queue, as far as a reader must know it: whether the file alone can
// answer. It says too much rather than too little.
type pending struct {
	delayed, expiry, other bool    // something was changed there
	pruned                 bool    // message ids were forgotten
	deletes                bool    // items or replies
	in, out                stretch // keys of Ready that were put, and that were removed
	replies                stretch // ids
	dedup                  map[string]store.Dedup
}

// stretch is the first and the last of a number of keys.
type stretch struct {
	first, last store.Cursor
	some        bool
}

func (s *stretch) add(c store.Cursor) {
	if !s.some {
		*s = stretch{c, c, true}
		return
	}
	if less(c, s.first) {
		s.first = c
	}
	if less(s.last, c) {
		s.last = c
	}
}

func less(a, b store.Cursor) bool {
	return a.Priority < b.Priority || a.Priority == b.Priority && a.ID < b.ID
}

func (p *pending) add(op *store.Op) {
	switch op.Kind {
	case store.OpPut:
		r := op.Record
		p.touch(&p.in, r.Place, r.ID, r.Expires)
	case store.OpMove:
		p.touch(&p.out, op.From, op.ID, op.Expires)
		p.touch(&p.in, op.To, op.ID, op.Expires)
		p.other = p.other || op.Leased
	case store.OpDelete:
		p.deletes = true
		p.touch(&p.out, op.From, op.ID, op.Expires)
		p.other = p.other || op.Leased
	case store.OpSetAside:
		p.touch(&p.out, op.From, op.ID, 0)
		p.expiry = true // whether it expires the operation does not say
	case store.OpUnexpire:
		p.expiry = true
	case store.OpPutReply:
		p.replies.add(store.Cursor{ID: op.Reply.ID})
	case store.OpDeleteReply:
		p.deletes = true
		p.replies.add(store.Cursor{ID: op.ID})
	case store.OpPutDedup:
		if p.dedup == nil {
			p.dedup = make(map[string]store.Dedup)
		}
		p.dedup[op.Dedup.MsgID] = op.Dedup
	case store.OpPruneDedup:
		p.pruned = true
	default:
		p.other = true
	}
}

// touch notes that an item came to a place or left it; ready is what is noted of Ready.
func (p *pending) touch(ready *stretch, at store.Place, id uint64, expires int64) {
	p.expiry = p.expiry || expires != 0
	switch at.Area {
	case store.Ready:
		ready.add(store.Cursor{Priority: at.Priority, ID: id})
	case store.Delayed:
		p.delayed = true
	default:
		p.other = true
	}
}

// any says whether there is anything at all.
func (p *pending) any() bool {
	return p.delayed || p.expiry || p.other || p.pruned || p.in.some || p.out.some || p.replies.some || p.dedup != nil
}

// unread is the pending of a queue, one for each file of the log.
type unread struct {
	mu sync.Mutex // guards rounds between the log's goroutine and readers: a read that needs nothing of it must not wait for a commit
	// rounds is what each file holds.
	rounds [2]pending
}

// note adds what a batch changes. The log's goroutine calls it before the batch is answered.
func (u *unread) note(file int, ops []store.Op) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range ops {
		u.rounds[file].add(&ops[i])
	}
}

// written forgets a round that is in the file.
func (u *unread) written(file int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rounds[file] = pending{}
}

// has says whether test holds for either round.
func (u *unread) has(test func(*pending) bool) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return test(&u.rounds[0]) || test(&u.rounds[1])
}

// deletes says whether the round in a file deletes items or replies.
func (u *unread) deletes(file int) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.rounds[file].deletes
}

// lookUp looks a message id up, in the later round first.
func (u *unread) lookUp(msgID string, active int) (store.Dedup, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, i := range [2]int{active, 1 - active} {
		if d, ok := u.rounds[i].dedup[msgID]; ok {
			return d, true
		}
	}
	return store.Dedup{}, false
}
