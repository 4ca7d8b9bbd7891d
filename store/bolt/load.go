package bolt

import (
	"bytes"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"

	"stint/store"
)

// Load implements store.Queue. What it finds damaged it has set aside before it returns.
func (q *Queue) Load() (store.Snapshot, error) {
	if err := q.needs((*pending).any); err != nil {
		return store.Snapshot{}, fmt.Errorf("load %s: %w", q.name, err)
	}
	l := loader{}
	err := q.db.view(func(tx *bbolt.Tx) error {
		return l.load(tx, q.name)
	})
	if err != nil {
		return store.Snapshot{}, fmt.Errorf("load %s: %w", q.name, err)
	}
	if len(l.fix) > 0 {
		if err := q.repair(l.fix); err != nil {
			q.noteFix(err) // it is found again at the next start
			return l.snap, nil
		}
		if l.snap.Counts, err = q.counts(); err != nil {
			return store.Snapshot{}, fmt.Errorf("load %s: %w", q.name, err)
		}
	}
	return l.snap, nil
}

// repair has damaged records set aside and waits for it.
func (q *Queue) repair(fix []damaged) error {
	fixed := make(chan error, 1)
	q.setAside(fix, func(err error) { fixed <- err })
	return <-fixed
}

func (q *Queue) counts() (c store.Counts, err error) {
	err = q.view(func(b *bbolt.Bucket) error {
		c, err = readCounts(b)
		return err
	})
	return c, err
}

// loader reads a snapshot.
type loader struct {
	snap store.Snapshot
	fix  []damaged
}

func (l *loader) load(tx *bbolt.Tx, name []byte) error {
	meta := tx.Bucket(metaBucket)
	epoch, err := decodeMeta(epochKey, meta.Get(epochKey))
	if err != nil {
		return fmt.Errorf("%w: its epoch: %w", store.ErrCorrupt, err)
	}
	l.snap.Epoch = uint32(epoch)
	b := tx.Bucket(name)
	if b == nil {
		return checkKnown(tx, name)
	}
	if err := l.counts(b); err != nil {
		return err
	}
	l.times(b)
	l.registrations(b)
	l.leases(b)
	l.replies(b)
	return nil
}

// counts reads the counters. Those that are damaged are counted anew here, and by the writer when it next writes them.
func (l *loader) counts(b *bbolt.Bucket) error {
	c, err := readCounts(b)
	if isDamage(err) {
		l.snap.Damaged = append(l.snap.Damaged, store.Damage{What: words[kindCounts], Err: err})
		c, err = recount(b), nil
	}
	l.snap.Counts = c
	for k, n := range map[kind]int{kindReady: c.Ready, kindDelayed: c.Delayed, kindDead: c.Dead, kindReply: c.Replies} {
		if n > 0 && b.Bucket(bucketNames[k]) == nil {
			return fmt.Errorf("%w: the bucket %q is missing", store.ErrCorrupt, bucketNames[k])
		}
	}
	return err
}

func (l *loader) times(b *bbolt.Bucket) {
	l.snap.NextDue = firstTime(b, kindDelayed, dueTime)
	l.snap.NextExpiry = firstTime(b, kindExpiry, func(b *bbolt.Bucket, key, value []byte) (int64, bool) {
		_, ms, err := expiryEntry(b, key, value)
		return ms, err == nil
	})
}

// longAgo is a time that has come.
const longAgo = 1

// firstTime returns the earliest time in an index, 0 if it is empty. What is damaged is passed over: it is reported
// when the index is read, which is at once if there is nothing else in it.
func firstTime(b *bbolt.Bucket, k kind, time func(b *bbolt.Bucket, key, value []byte) (int64, bool)) (first int64) {
	c := cursor(b, k)
	if c == nil {
		return 0
	}
	for key, v := c.First(); key != nil; key, v = c.Next() {
		if ms, good := time(b, key, v); good {
			return ms
		}
		first = longAgo
	}
	return first
}

// each reads one part. What fails is damage.
func (l *loader) each(b *bbolt.Bucket, k kind, read func(key, value []byte) error) {
	c := cursor(b, k)
	if c == nil {
		return
	}
	for key, v := c.First(); key != nil; key, v = c.Next() {
		if err := readAt(b, key, v, read); err != nil {
			l.damage(b, k, key, err)
		}
	}
}

func (l *loader) damage(b *bbolt.Bucket, k kind, key []byte, err error) {
	if passedOver(b, k, key) {
		return
	}
	d := store.Damage{What: words[k], Err: err}
	if len(key) == 8 {
		d.ID = keyID(key)
	}
	l.snap.Damaged = append(l.snap.Damaged, d)
	l.fix = append(l.fix, damaged{kind: k, key: bytes.Clone(key)})
}

func (l *loader) registrations(b *bbolt.Bucket) {
	l.each(b, kindRegister, func(key, value []byte) error {
		r, err := decodeRegistration(key, value)
		if err == nil {
			l.snap.Registrations = append(l.snap.Registrations, r)
		}
		return err
	})
}

func (l *loader) replies(b *bbolt.Bucket) {
	l.each(b, kindReply, func(key, value []byte) error {
		r, err := decodeReply(key, value)
		if err == nil {
			l.snap.Replies = append(l.snap.Replies, store.ReplyHead{ID: r.ID, Subject: r.Subject, Expires: r.Expires})
		}
		return err
	})
}

var errNoItem = fmt.Errorf("%w: its item is not ready", store.ErrDamaged)

func (l *loader) leases(b *bbolt.Bucket) {
	l.each(b, kindLease, func(key, value []byte) error {
		lease, err := decodeLease(key, value)
		if err != nil {
			return err
		}
		var r store.Record
		switch err := findReady(b, lease.ID, &r); {
		case errors.Is(err, errNoItem):
			return err
		case err != nil:
			return fmt.Errorf("its item: %w", err)
		}
		l.snap.Leases = append(l.snap.Leases, store.LeasedRecord{Lease: lease, Record: r})
		return nil
	})
}

// findReady looks for an item in every priority there is; a lease does not name it.
func findReady(b *bbolt.Bucket, id uint64, r *store.Record) error {
	c := cursor(b, kindReady)
	if c == nil {
		return errNoItem
	}
	var key []byte
	for p := 0; p <= 255; p++ {
		key = appendPlaceKey(key[:0], store.Place{Area: store.Ready, Priority: uint8(p)}, id)
		at, v := c.Seek(key)
		switch {
		case at == nil:
			return errNoItem
		case bytes.Equal(at, key):
			return decodeAt(b, kindReady, at, v, r)
		case int(at[0]) > p:
			p = int(at[0]) - 1 // no item between
		}
	}
	return errNoItem
}
