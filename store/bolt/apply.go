package bolt

import (
	"bytes"
	"fmt"

	"go.etcd.io/bbolt"

	"stint/store"
)

// apply makes the changes of one batch within the transaction.
func (p *part) apply(ops []store.Op) error {
	for i := range ops {
		if err := p.applyOne(&ops[i]); err != nil {
			return fmt.Errorf("operation %d of %d: %w", i+1, len(ops), err)
		}
	}
	return nil
}

func (p *part) applyOne(op *store.Op) error {
	switch op.Kind {
	case store.OpPut:
		return p.putItem(op.Record)
	case store.OpMove:
		return p.move(op)
	case store.OpDelete:
		return p.deleteItem(op)
	case store.OpSetAside:
		return p.setAsideItem(op.From, op.ID)
	case store.OpUnexpire:
		_, err := p.remove(kindExpiry, appendTimeKey(p.key[:0], op.Expires, op.ID))
		return err
	case store.OpPutLease:
		key := appendID(p.key[:0], op.Lease.ID)
		return p.put(kindLease, key, p.t.arena.keep(appendLease(p.t.arena.room(64), key, &op.Lease)))
	case store.OpDeleteLease:
		_, err := p.remove(kindLease, appendID(p.key[:0], op.ID))
		return err
	case store.OpPutReply:
		return p.putReply(op.Reply)
	case store.OpDeleteReply:
		gone, err := p.remove(kindReply, appendID(p.key[:0], op.ID))
		p.counts.Replies -= count(gone)
		return err
	case store.OpPutRegistration:
		r := &op.Registration
		v := p.t.arena.keep(appendRegistration(p.t.arena.room(64), r))
		return p.put(kindRegister, []byte(r.Processor), v)
	case store.OpDeleteRegistration:
		_, err := p.remove(kindRegister, []byte(op.Registration.Processor))
		return err
	case store.OpPutDedup:
		return p.putDedup(&op.Dedup)
	case store.OpPruneDedup:
		return p.prune(op.Expires)
	default:
		return fmt.Errorf("%w: unknown kind of operation %d", store.ErrInvalid, op.Kind)
	}
}

func count(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

func (p *part) putItem(r *store.Record) error {
	k := areaKind(r.Place.Area)
	key := appendPlaceKey(p.key[:0], r.Place, r.ID)
	size := r.Size()
	v := p.t.arena.keep(appendRecord(p.t.arena.room(size+128), k, key, &r.Item, &r.Marks))
	if err := p.put(k, key, v); err != nil {
		return err
	}
	return p.wasPut(r.ID, r.Place, r.Expires, size)
}

// wasPut brings the counters and the indexes after an item that was put.
func (p *part) wasPut(id uint64, at store.Place, expires int64, size int) error {
	*p.counter(areaKind(at.Area))++
	p.counts.Bytes += int64(size)
	if expires == 0 {
		return nil
	}
	return p.putExpiry(appendTimeKey(p.key[:0], expires, id), at)
}

func (p *part) putExpiry(key []byte, at store.Place) error {
	return p.put(kindExpiry, key, p.t.arena.keep(appendPlace(p.t.arena.room(32), key, at)))
}

// move rewrites an item with new marks at its new place. A damaged one is set aside instead: it cannot be trusted to be
// what was sent, and the rest of the batch must not fail for it.
func (p *part) move(op *store.Op) error {
	from, to := areaKind(op.From.Area), areaKind(op.To.Area)
	key := appendPlaceKey(p.key[:0], op.From, op.ID)
	f, err := p.find(from, key)
	if err != nil || !f.ok {
		return err
	}
	payload, err := unseal(from, key, f.value)
	if err != nil {
		return p.setAsideItem(op.From, op.ID)
	}
	sent, err := sentPart(payload)
	if err != nil {
		return p.setAsideItem(op.From, op.ID)
	}
	target := appendPlaceKey(p.key[maxPlaceKey:maxPlaceKey], op.To, op.ID)
	room := p.t.arena.room(len(f.value) + 128 + len(op.Marks.Code) + len(op.Marks.Reason))
	v := p.t.arena.keep(appendRemarked(room, to, target, sent, &op.Marks))
	if from != to || !bytes.Equal(key, target) {
		if err := f.c.Delete(); err != nil {
			return fmt.Errorf("delete from %s: %w", bucketNames[from], err)
		}
	}
	if err := p.put(to, target, v); err != nil {
		return err
	}
	*p.counter(from)--
	*p.counter(to)++
	return p.moved(op)
}

// moved brings the indexes after a moved item.
func (p *part) moved(op *store.Op) error {
	if op.Expires != 0 {
		key := appendTimeKey(p.key[:0], op.Expires, op.ID)
		f, err := p.seek(kindExpiry, key)
		if err != nil {
			return err
		}
		if f.ok {
			if err := p.putExpiry(key, op.To); err != nil {
				return err
			}
		}
	}
	return p.unlease(op)
}

func (p *part) unlease(op *store.Op) error {
	if !op.Leased {
		return nil
	}
	_, err := p.remove(kindLease, appendID(p.key[:0], op.ID))
	return err
}

func (p *part) deleteItem(op *store.Op) error {
	k := areaKind(op.From.Area)
	f, err := p.find(k, appendPlaceKey(p.key[:0], op.From, op.ID))
	if err != nil {
		return err
	}
	if f.ok && f.value != nil {
		if err := f.c.Delete(); err != nil {
			return fmt.Errorf("delete from %s: %w", bucketNames[k], err)
		}
		*p.counter(k)--
		p.counts.Bytes -= int64(op.Size)
		if op.Expires != 0 {
			if _, err := p.remove(kindExpiry, appendTimeKey(p.key[:0], op.Expires, op.ID)); err != nil {
				return err
			}
		}
	} else {
		p.t.log.Error("an item to be deleted is not where it should be", "bucket", string(p.name), "id", op.ID, "from", words[k])
	}
	return p.unlease(op)
}

func (p *part) putReply(r *store.Reply) error {
	key := appendID(p.key[:0], r.ID)
	return p.replaceReply(r.ID, p.t.arena.keep(appendReply(p.t.arena.room(len(r.Body)+len(r.Subject)+128), key, r)))
}

func (p *part) replaceReply(id uint64, value []byte) error {
	key := appendID(p.key[:0], id)
	f, err := p.seek(kindReply, key)
	if err != nil {
		return err
	}
	p.counts.Replies += count(!f.ok)
	return p.put(kindReply, key, value)
}

// putDedup writes a message id and its entry in the index by expiry, and takes the old entry of the same id out.
func (p *part) putDedup(d *store.Dedup) error {
	key := []byte(d.MsgID)
	f, err := p.seek(kindDedup, key)
	if err != nil {
		return err
	}
	p.counts.Dedup += count(!f.ok)
	if f.ok {
		if old, err := decodeDedup(key, f.value); err == nil {
			if _, err := p.remove(kindPrune, pruneKey(old.Expires, key)); err != nil {
				return err
			}
		}
	}
	if err := p.put(kindDedup, key, p.t.arena.keep(appendDedup(p.t.arena.room(64), d))); err != nil {
		return err
	}
	return p.put(kindPrune, pruneKey(d.Expires, key), []byte{})
}

func pruneKey(expires int64, msgID []byte) []byte {
	return append(appendTime(make([]byte, 0, 8+len(msgID)), expires), msgID...)
}

// prune forgets the message ids that have expired, the oldest first. The keys are gathered before the first is deleted:
// a cursor of bbolt does not survive a delete.
func (p *part) prune(before int64) error {
	b, err := p.sub(kindPrune)
	if err != nil {
		return err
	}
	for _, key := range expiredKeys(b, before) {
		if _, err := p.remove(kindPrune, key); err != nil {
			return err
		}
		if err := p.forget(key); err != nil {
			return err
		}
	}
	return nil
}

func expiredKeys(b *bbolt.Bucket, before int64) (keys [][]byte) {
	c := b.Cursor()
	for k, _ := c.First(); k != nil && len(keys) < store.PruneMax; k, _ = c.Next() {
		if len(k) > 8 && keyTime(k) >= before {
			break
		}
		keys = append(keys, bytes.Clone(k))
	}
	return keys
}

// forget removes the message id that an entry of the index names, unless it has been seen again since.
func (p *part) forget(indexed []byte) error {
	if len(indexed) <= 8 {
		return nil
	}
	id := indexed[8:]
	f, err := p.seek(kindDedup, id)
	if err != nil || !f.ok {
		return err
	}
	if d, err := decodeDedup(id, f.value); err == nil && d.Expires != keyTime(indexed) {
		return nil
	}
	gone, err := p.remove(kindDedup, id)
	p.counts.Dedup -= count(gone)
	return err
}
