package bolt

import (
	"bytes"
	"fmt"

	"go.etcd.io/bbolt"

	"stint/store"
)

const (
	// nearby is how many entries on either side are looked at for a key that is not where its order puts it: more than there
	// are in a page.
	nearby = 512
	// rebuildMax is how large an area may be to be rebuilt in one transaction, in bytes.
	rebuildMax = 64 << 20
)

// setAsideItem moves a damaged item out of the way, with its lease.
func (p *part) setAsideItem(at store.Place, id uint64) error {
	if at.Area == store.Nowhere {
		return nil
	}
	key := appendPlaceKey(make([]byte, 0, maxPlaceKey), at, id)
	if err := p.setAside(areaKind(at.Area), key); err != nil {
		return err
	}
	_, err := p.remove(kindLease, appendID(p.key[:0], id))
	return err
}

func (p *part) fix(d damaged) error {
	if d.kind == kindCounts {
		p.counts = recount(p.bucket)
		return nil
	}
	if d.drop {
		_, err := p.remove(d.kind, d.key)
		return err
	}
	return p.setAside(d.kind, d.key)
}

// setAside moves the bytes of a damaged record into the bucket of such, under its kind and its key. A damaged key may
// stand where bbolt does not find it; then the area is rebuilt. Where nothing helps, the entry stays, and readers pass over
// what is noted in that bucket.
func (p *part) setAside(k kind, key []byte) error {
	f, err := p.seek(k, key)
	if err != nil {
		return err
	}
	if !f.ok {
		if !p.stands(k, key, p.whole) {
			return nil
		}
		if done, err := p.rebuild(k); done || err != nil {
			return err
		}
	}
	noted, err := p.noteDamaged(k, key, f.value)
	if err != nil || !noted {
		return err
	}
	if f.ok && f.value != nil {
		_, err = p.remove(k, key)
	}
	return err
}

// noteDamaged writes a damaged record to the bucket of such and takes it out of the counters; false: it is there already and
// cannot be removed from its place.
func (p *part) noteDamaged(k kind, key, value []byte) (bool, error) {
	note := damagedKey(k, key)
	old, err := p.seek(kindDamaged, note)
	if err != nil || old.ok && value == nil {
		return false, err
	}
	p.counts.Damaged += count(!old.ok)
	if k <= kindDead {
		*p.counter(k)--
		p.counts.Bytes -= int64(sizeOf(value))
	}
	p.counts.Replies -= count(k == kindReply)
	p.counts.Dedup -= count(k == kindDedup)
	raw := append(p.t.arena.room(len(value)), value...)
	return true, p.put(kindDamaged, note, p.t.arena.keep(raw))
}

func damagedKey(k kind, key []byte) []byte {
	return append([]byte{byte(k)}, key...)
}

// find looks an item up. bbolt searches by halves, so a damaged key misleads it about those beside it: an item that was
// finished would not be deleted, and would be delivered again after a restart. So where there is nothing, the
// neighbours are looked at, and if it does stand among them the area is rebuilt without what is damaged.
func (p *part) find(k kind, key []byte) (found, error) {
	f, err := p.seek(k, key)
	if err != nil || f.ok || !p.stands(k, key, p.near) {
		return f, err
	}
	if _, err := p.rebuild(k); err != nil {
		return found{}, err
	}
	return p.seek(k, key)
}

// stands says whether a key is in a bucket, whatever its order says, among the entries that walk yields.
func (p *part) stands(k kind, key []byte, walk func(c *bbolt.Cursor, key []byte, yield func(at []byte) bool)) (yes bool) {
	b, err := p.sub(k)
	if err != nil {
		return false
	}
	walk(b.Cursor(), key, func(at []byte) bool {
		yes = yes || bytes.Equal(at, key)
		return !yes
	})
	return yes
}

// near walks the entries on both sides of where a key would be.
func (p *part) near(c *bbolt.Cursor, key []byte, yield func(at []byte) bool) {
	at, _ := c.Seek(key)
	for n := 0; n < nearby && at != nil && yield(at); n++ {
		at, _ = c.Next()
	}
	if at, _ = c.Seek(key); at == nil {
		at, _ = c.Last()
	}
	for n := 0; n < nearby && at != nil && yield(at); n++ {
		at, _ = c.Prev()
	}
}

// whole walks all entries.
func (p *part) whole(c *bbolt.Cursor, _ []byte, yield func(at []byte) bool) {
	for at, _ := c.First(); at != nil && yield(at); at, _ = c.Next() {
	}
}

// rebuild writes an area anew, in order, and sets aside what is damaged in it. It is done for areas of a bounded size
// whose pages bbolt can read; false: not for this one.
func (p *part) rebuild(k kind) (bool, error) {
	good, bad, ok := p.gather(k)
	if !ok {
		p.t.log.Error("an area has keys out of order and cannot be rebuilt", "bucket", string(p.name), "area", words[k])
		return false, nil
	}
	if err := p.bucket.DeleteBucket(bucketNames[k]); err != nil {
		return false, fmt.Errorf("rebuild %s: %w", bucketNames[k], err)
	}
	p.subs[k], p.cursor[k] = nil, nil
	for _, e := range good {
		if err := p.put(k, e.key, e.value); err != nil {
			return false, err
		}
	}
	for _, e := range bad {
		if _, err := p.noteDamaged(k, e.key, e.value); err != nil {
			return false, err
		}
	}
	p.t.log.Error("an area had keys out of order and was rebuilt", "bucket", string(p.name), "area", words[k],
		"kept", len(good), "damaged", len(bad))
	return true, nil
}

// entry is a key with its value, both copied.
type entry struct{ key, value []byte }

// gather copies all of an area, in the order in which it stands.
func (p *part) gather(k kind) (good, bad []entry, ok bool) {
	b, err := p.sub(k)
	if err != nil {
		return nil, nil, false
	}
	size := 0
	c := b.Cursor()
	for key, v := c.First(); key != nil; key, v = c.Next() {
		size += len(key) + len(v)
		if v == nil || size > rebuildMax {
			return nil, nil, false
		}
		e := entry{bytes.Clone(key), append([]byte{}, v...)}
		if _, err := unseal(k, key, v); err == nil || k == kindPrune {
			good = append(good, e)
		} else {
			bad = append(bad, e)
		}
	}
	return good, bad, true
}
