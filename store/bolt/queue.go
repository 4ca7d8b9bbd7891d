package bolt

import (
	"bytes"
	"fmt"

	"go.etcd.io/bbolt"

	"stint/store"
)

// Queue is one queue's part of the file.
type Queue struct {
	db     *DB
	name   []byte
	unread unread
	listed bool // the front's: it has something in the log
}

// damaged names a record that the engine sets aside by itself.
type damaged struct {
	kind kind
	key  []byte
	drop bool // an entry of an index that leads nowhere: there is nothing to keep
}

// Submit implements store.Queue.
func (q *Queue) Submit(b *store.Batch) {
	if err := b.Check(); err != nil {
		go b.Done(err)
		return
	}
	if !q.db.in.Put(request{q: q, ops: b.Ops, done: b.Done}) {
		go b.Done(store.ErrClosed)
	}
}

// setAside asks the writer to move damaged records out of the way. done may be called within.
func (q *Queue) setAside(fix []damaged, done func(error)) {
	if len(fix) == 0 {
		done(nil)
		return
	}
	if !q.db.in.Put(request{q: q, fix: fix, done: done}) {
		done(store.ErrClosed)
	}
}

// view runs a read of the queue's bucket; b is nil while the queue was never written.
func (q *Queue) view(read func(b *bbolt.Bucket) error) error {
	return q.db.view(func(tx *bbolt.Tx) error {
		b := tx.Bucket(q.name)
		if b == nil {
			if err := checkKnown(tx, q.name); err != nil {
				return err
			}
		}
		return read(b)
	})
}

// cursor returns a cursor of one part; nil: there is nothing in it.
func cursor(b *bbolt.Bucket, k kind) *bbolt.Cursor {
	if b == nil {
		return nil
	}
	if sub := b.Bucket(bucketNames[k]); sub != nil {
		return sub.Cursor()
	}
	return nil
}

func get(b *bbolt.Bucket, k kind, key []byte) []byte {
	if b == nil {
		return nil
	}
	sub := b.Bucket(bucketNames[k])
	if sub == nil {
		return nil
	}
	return sub.Get(key)
}

// passedOver says whether a damaged record has been set aside but could not be removed.
func passedOver(b *bbolt.Bucket, k kind, key []byte) bool {
	return get(b, kindDamaged, damagedKey(k, key)) != nil
}

// page gathers one read.
type page struct {
	store.Page
	b     *bbolt.Bucket
	limit store.Limit
	bytes int
	fix   []damaged
}

// add takes the record at key; false: the limit is reached, and the record is not in the page.
func (p *page) add(k kind, key, value []byte) bool {
	n := len(p.Records) + len(p.Damaged)
	if n > 0 && p.limit.Records > 0 && n >= p.limit.Records {
		p.More = true
		return false
	}
	var r store.Record
	if err := decodeAt(p.b, k, key, value, &r); err != nil {
		p.damage(k, key, err)
		return true
	}
	size := r.Size()
	if n > 0 && p.limit.Bytes > 0 && p.bytes+size > p.limit.Bytes {
		p.More = true
		return false
	}
	p.bytes += size
	p.Records = append(p.Records, r)
	return true
}

// readAt runs read on bytes of the file, whose damaged lengths may point to where nothing can be read.
func readAt(b *bbolt.Bucket, key, value []byte, read func(key, value []byte) error) (err error) {
	if n := len(key) + len(value); int64(n) > b.Tx().Size() {
		return fmt.Errorf("%w: it claims %d bytes", store.ErrDamaged, n)
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: it cannot be read: %v", store.ErrDamaged, p)
		}
	}()
	return read(key, value)
}

// decodeAt is decodeRecord by way of readAt.
func decodeAt(b *bbolt.Bucket, k kind, key, value []byte, r *store.Record) error {
	return readAt(b, key, value, func(key, value []byte) error { return decodeRecord(k, key, value, r) })
}

// damage notes a record that cannot be served. One whose key names no place is set aside by the engine.
func (p *page) damage(k kind, key []byte, err error) {
	if passedOver(p.b, k, key) {
		return
	}
	place, id, ok := splitPlaceKey(k, key)
	if !ok {
		p.fix = append(p.fix, damaged{kind: k, key: bytes.Clone(key)})
	}
	p.Damaged = append(p.Damaged, store.Damage{ID: id, Place: place, What: words[k], Err: err})
}

// checkEmpty says what is missing where the counters know of items and there are none: a page whose damage let bbolt
// pass over some of them. Then the queue is counted anew.
func (p *page) checkEmpty(k kind) {
	c, err := readCounts(p.b)
	n := c.Ready
	if k == kindDelayed {
		n = c.Delayed
	}
	if err != nil || n == 0 {
		return
	}
	p.Damaged = append(p.Damaged, store.Damage{
		What: words[k], Err: fmt.Errorf("%w: %d items of %s cannot be found", store.ErrDamaged, n, bucketNames[k]),
	})
	p.fix = append(p.fix, damaged{kind: kindCounts})
}

// read makes a page and has the engine's own part of the damage set aside.
func (q *Queue) read(limit store.Limit, gather func(p *page)) (store.Page, error) {
	p := page{limit: limit}
	err := q.view(func(b *bbolt.Bucket) error {
		p.b = b
		gather(&p)
		p.b = nil
		return nil
	})
	if err != nil {
		return store.Page{}, fmt.Errorf("read %s: %w", q.name, err)
	}
	q.setAside(p.fix, q.noteFix)
	return p.Page, nil
}

func (q *Queue) noteFix(err error) {
	if err != nil {
		q.db.opts.Logger.Warn("damaged records could not be set aside", "bucket", string(q.name), "error", err)
	}
}

// Ready implements store.Queue. The head of a long backlog is read from the file although the log holds changes, as long as
// they are all behind what is read or before the cursor.
func (q *Queue) Ready(after store.Cursor, limit store.Limit) (store.Page, error) {
	var in stretch
	early := false // something may have been removed behind the cursor
	q.unread.has(func(p *pending) bool {
		if p.in.some {
			in.add(p.in.first)
		}
		early = early || p.out.some && less(after, p.out.last)
		return false
	})
	if !early {
		page, err := q.ready(after, limit)
		if end, some := lastOf(&page); err != nil || !in.some || page.More && some && less(end, in.first) {
			return page, err
		}
	}
	if err := q.needs((*pending).any); err != nil {
		return store.Page{}, fmt.Errorf("read %s: %w", q.name, err)
	}
	return q.ready(after, limit)
}

// lastOf is the last key of a page, of a record or of a damaged one: the caller goes on after it.
func lastOf(p *store.Page) (last store.Cursor, some bool) {
	if n := len(p.Records); n > 0 {
		r := &p.Records[n-1]
		last, some = store.Cursor{Priority: r.Place.Priority, ID: r.ID}, true
	}
	for _, d := range p.Damaged {
		if at := (store.Cursor{Priority: d.Place.Priority, ID: d.ID}); d.Place.Area == store.Ready && (!some || less(last, at)) {
			last, some = at, true
		}
	}
	return last, some
}

// ready is Ready of the file alone.
func (q *Queue) ready(after store.Cursor, limit store.Limit) (store.Page, error) {
	return q.read(limit, func(p *page) {
		c := cursor(p.b, kindReady)
		if c == nil {
			return
		}
		from := appendPlaceKey(nil, store.Place{Area: store.Ready, Priority: after.Priority}, after.ID)
		k, v := c.Seek(from)
		if bytes.Equal(k, from) {
			k, v = c.Next()
		}
		if k == nil && after == (store.Cursor{}) {
			p.checkEmpty(kindReady)
		}
		for ; k != nil && p.add(kindReady, k, v); k, v = c.Next() {
		}
	})
}

// Due implements store.Queue.
func (q *Queue) Due(now int64, limit store.Limit) (store.Page, error) {
	if err := q.needs(func(p *pending) bool { return p.delayed }); err != nil {
		return store.Page{}, fmt.Errorf("read %s: %w", q.name, err)
	}
	return q.read(limit, func(p *page) {
		c := cursor(p.b, kindDelayed)
		if c == nil {
			return
		}
		k, v := c.First()
		if k == nil {
			p.checkEmpty(kindDelayed)
		}
		for ; k != nil; k, v = c.Next() {
			if due, good := dueTime(p.b, k, v); good && due > now || !p.add(kindDelayed, k, v) {
				p.Next = due
				return
			}
		}
	})
}

// dueTime takes the time from the key of a delayed item; false: the record is damaged, and so the time may be. One that says
// later than it was must not hide what stands behind it.
func dueTime(b *bbolt.Bucket, key, value []byte) (int64, bool) {
	if len(key) < 8 {
		return 0, false
	}
	err := readAt(b, key, value, func(key, value []byte) error {
		_, err := unseal(kindDelayed, key, value)
		return err
	})
	return keyTime(key), err == nil
}

// Expired implements store.Queue.
func (q *Queue) Expired(now int64, limit store.Limit) (store.Page, error) {
	if err := q.needs(func(p *pending) bool { return p.expiry }); err != nil {
		return store.Page{}, fmt.Errorf("read %s: %w", q.name, err)
	}
	return q.read(limit, func(p *page) {
		c := cursor(p.b, kindExpiry)
		if c == nil {
			return
		}
		for k, v := c.First(); k != nil; k, v = c.Next() {
			at, expires, err := expiryEntry(p.b, k, v)
			if err != nil {
				p.damage(kindExpiry, k, err)
				continue
			}
			if expires > now || !p.addAt(at, keyID(k[8:]), k) {
				p.Next = expires
				return
			}
		}
	})
}

// expiryEntry reads an entry of the index by expiry.
func expiryEntry(b *bbolt.Bucket, key, value []byte) (at store.Place, expires int64, err error) {
	err = readAt(b, key, value, func(key, value []byte) error {
		at, err = decodePlace(key, value)
		return err
	})
	if err != nil {
		return at, 0, err
	}
	return at, keyTime(key), nil
}

// addAt takes the record that an entry of the expiry index names. An entry whose item is gone, which a damaged item that was
// set aside leaves behind, is cleared away.
func (p *page) addAt(at store.Place, id uint64, entry []byte) bool {
	k := areaKind(at.Area)
	key := appendPlaceKey(nil, at, id)
	v := get(p.b, k, key)
	if v == nil {
		p.fix = append(p.fix, damaged{kind: kindExpiry, key: bytes.Clone(entry), drop: true})
		return true
	}
	return p.add(k, key, v)
}

// Reply implements store.Queue.
func (q *Queue) Reply(id uint64) (r store.Reply, ok bool, err error) {
	err = q.needs(func(p *pending) bool {
		return p.replies.some && p.replies.first.ID <= id && id <= p.replies.last.ID
	})
	if err != nil {
		return r, false, fmt.Errorf("read the reply %d: %w", id, err)
	}
	err = q.view(func(b *bbolt.Bucket) error {
		key := appendID(nil, id)
		v := get(b, kindReply, key)
		if v == nil {
			return nil
		}
		bad := readAt(b, key, v, func(key, v []byte) error {
			var err error
			r, err = decodeReply(key, v)
			return err
		})
		if bad != nil {
			q.db.opts.Logger.Error("a reply is damaged", "bucket", string(q.name), "id", id, "error", bad)
			return nil
		}
		ok = true
		return nil
	})
	if err != nil {
		return store.Reply{}, false, fmt.Errorf("read the reply %d: %w", id, err)
	}
	return r, ok, nil
}

// Dedup implements store.Queue.
func (q *Queue) Dedup(msgID string) (d store.Dedup, ok bool, err error) {
	if err := q.needs(func(p *pending) bool { return p.pruned }); err != nil {
		return d, false, fmt.Errorf("look up the message id %q: %w", msgID, err)
	}
	if d, ok := q.unread.lookUp(msgID, int(q.db.front.active.Load())); ok {
		return d, true, nil
	}
	err = q.view(func(b *bbolt.Bucket) error {
		v := get(b, kindDedup, []byte(msgID))
		if v == nil {
			return nil
		}
		ok = true
		return readAt(b, []byte(msgID), v, func(key, v []byte) error {
			d, err = decodeDedup(key, v)
			return err
		})
	})
	if err != nil {
		return store.Dedup{}, false, fmt.Errorf("look up the message id %q: %w", msgID, err)
	}
	return d, ok, nil
}
