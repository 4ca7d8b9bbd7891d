package bolt

import (
	"bytes"
	"fmt"
	"log/slog"

	"go.etcd.io/bbolt"

	"stint/store"
)

// fillPercent is how full bbolt leaves a page when it splits one. Most keys arrive in order, so what is split off on the
// left is not inserted into again; a little room is left for an item that comes back to its old place.
const fillPercent = 0.95

// arenaKeep is how much memory for encoded values is kept from one transaction to the next, in bytes.
const arenaKeep = 4 << 20

// txn is one write transaction: the batches that are joined in it share its buckets, its cursors and its arena. It belongs
// to the writer and is used again and again.
type txn struct {
	tx       *bbolt.Tx
	log      *slog.Logger
	arena    arena
	bytes    int64             // put so far
	parts    []*part           // of the queues that take part
	known    map[string]*part  // by the name of the bucket
	latest   *part             // that was asked for
	allFates map[string]*fates // of the round that is brought in, by the name of the bucket
	fates    *fates            // that were asked for last
}

// arena holds the values that are put, which bbolt refers to until the commit has ended.
type arena struct {
	chunk []byte
}

// room returns an empty slice with room for n bytes that nobody else has.
func (a *arena) room(n int) []byte {
	if cap(a.chunk)-len(a.chunk) < n {
		a.chunk = make([]byte, 0, max(n, 64<<10, min(2*cap(a.chunk), arenaKeep)))
	}
	at := len(a.chunk)
	return a.chunk[at:at:cap(a.chunk)]
}

// keep takes what was appended to the last room as used.
func (a *arena) keep(b []byte) []byte {
	at := len(a.chunk)
	if at+len(b) <= cap(a.chunk) && len(b) > 0 && &a.chunk[:at+1][at] == &b[0] {
		a.chunk = a.chunk[:at+len(b)]
	}
	return b[:len(b):len(b)]
}

func (a *arena) reset() {
	if cap(a.chunk) > arenaKeep {
		a.chunk = nil
	}
	a.chunk = a.chunk[:0]
}

func (t *txn) begin(tx *bbolt.Tx) {
	t.tx, t.bytes = tx, 0
	t.arena.reset()
}

// end lets go of the transaction, so that nothing of it stays reachable.
func (t *txn) end() {
	for _, p := range t.parts {
		p.close()
	}
	t.parts = t.parts[:0]
	t.tx, t.latest = nil, nil
}

// part is a queue within the transaction. It belongs to the writer.
type part struct {
	t      *txn
	name   []byte // of its bucket in the root
	bucket *bbolt.Bucket
	subs   [kinds]*bbolt.Bucket
	cursor [kinds]*bbolt.Cursor
	counts store.Counts
	key    [2 * maxPlaceKey]byte
}

// open makes the part ready for the transaction, once.
func (p *part) open(t *txn) error {
	if p.t == t {
		return nil
	}
	b, err := t.queueBucket(p.name)
	if err != nil {
		return fmt.Errorf("open the bucket %q: %w", p.name, err)
	}
	p.t, p.bucket = t, b
	t.parts = append(t.parts, p)
	p.counts, err = readCounts(b)
	if isDamage(err) {
		p.counts = recount(b)
		t.log.Error("the counters of a queue were damaged and have been counted anew", "bucket", string(p.name), "error", err)
		return nil
	}
	return err
}

// queueBucket finds or makes the bucket of a queue. Its name is noted in the meta bucket, under a checksum, so that a
// bucket whose name was damaged is missed.
func (t *txn) queueBucket(name []byte) (*bbolt.Bucket, error) {
	if b := t.tx.Bucket(name); b != nil {
		return b, nil
	}
	if err := checkKnown(t.tx, name); err != nil {
		return nil, err
	}
	meta := t.tx.Bucket(metaBucket)
	if err := meta.Put(name, appendMeta(nil, name, 1)); err != nil {
		return nil, err
	}
	return t.tx.CreateBucket(name)
}

// checkKnown says whether a queue whose bucket is not there should have one.
func checkKnown(tx *bbolt.Tx, name []byte) error {
	if meta := tx.Bucket(metaBucket); meta == nil || meta.Get(name) != nil {
		return fmt.Errorf("%w: the bucket %q is missing", store.ErrCorrupt, name)
	}
	return nil
}

func (p *part) close() {
	p.t, p.bucket = nil, nil
	clear(p.subs[:])
	clear(p.cursor[:])
}

// flush writes the counters.
func (t *txn) flush() error {
	for _, p := range t.parts {
		c := &p.counts
		c.Bytes = max(0, c.Bytes) // what a damaged record counted is a guess
		if c.Ready+c.Delayed+c.Dead == 0 {
			c.Bytes = 0
		}
		v := t.arena.keep(appendCounts(t.arena.room(128), c))
		if err := p.bucket.Put(countsKey, v); err != nil {
			return fmt.Errorf("write the counters: %w", err)
		}
	}
	return nil
}

func (p *part) sub(k kind) (*bbolt.Bucket, error) {
	if b := p.subs[k]; b != nil {
		return b, nil
	}
	b, err := p.bucket.CreateBucketIfNotExists(bucketNames[k])
	if err != nil {
		return nil, fmt.Errorf("open the bucket %q in %q: %w", bucketNames[k], p.name, err)
	}
	b.FillPercent = fillPercent
	p.subs[k] = b
	return b, nil
}

// put writes a value that was built in the arena.
func (p *part) put(k kind, key, value []byte) error {
	b, err := p.sub(k)
	if err != nil {
		return err
	}
	if err := b.Put(key, value); err != nil {
		return fmt.Errorf("write a %s: %w", bucketNames[k], err)
	}
	p.t.bytes += int64(len(value))
	return nil
}

// found is what a key leads to.
type found struct {
	c     *bbolt.Cursor
	value []byte // nil although ok: a damaged entry that bbolt takes for a bucket, or longer than all there is
	ok    bool
}

// seek looks a key up. The cursor is sought anew each time, as bbolt demands when deletes lie between.
func (p *part) seek(k kind, key []byte) (found, error) {
	c := p.cursor[k]
	if c == nil {
		b, err := p.sub(k)
		if err != nil {
			return found{}, err
		}
		c = b.Cursor()
		p.cursor[k] = c
	}
	at, v := c.Seek(key)
	if int64(len(v)) > p.t.tx.Size()+p.t.bytes {
		v = nil // a damaged length; the end of it may lie anywhere
	}
	return found{c, v, at != nil && bytes.Equal(at, key)}, nil
}

// remove deletes a key; false: it was not there.
func (p *part) remove(k kind, key []byte) (bool, error) {
	f, err := p.seek(k, key)
	if err != nil || !f.ok || f.value == nil {
		return false, err
	}
	if err := f.c.Delete(); err != nil {
		return false, fmt.Errorf("delete a %s: %w", bucketNames[k], err)
	}
	return true, nil
}

func readCounts(b *bbolt.Bucket) (store.Counts, error) {
	v := b.Get(countsKey)
	if v == nil {
		if k, _ := b.Cursor().First(); k == nil {
			return store.Counts{}, nil // a queue that was never written
		}
		return store.Counts{}, fmt.Errorf("%w: the counters are missing", store.ErrDamaged)
	}
	return decodeCounts(v)
}

// recount counts a queue by reading all of it. Only damaged counters make this necessary.
func recount(b *bbolt.Bucket) (c store.Counts) {
	for k := kindReady; k <= kindDamaged; k++ {
		sub := b.Bucket(bucketNames[k])
		if bucketNames[k] == nil || sub == nil {
			continue
		}
		n, size := 0, int64(0)
		cur := sub.Cursor()
		for key, v := cur.First(); key != nil; key, v = cur.Next() {
			n++
			if k <= kindDead {
				size += int64(sizeOf(v))
			}
		}
		setCount(&c, k, n)
		c.Bytes += size
	}
	return c
}

func setCount(c *store.Counts, k kind, n int) {
	switch k {
	case kindReady:
		c.Ready = n
	case kindDelayed:
		c.Delayed = n
	case kindDead:
		c.Dead = n
	case kindReply:
		c.Replies = n
	case kindDamaged:
		c.Damaged = n
	case kindDedup:
		c.Dedup = n
	}
}

func (p *part) counter(k kind) *int {
	switch k {
	case kindReady:
		return &p.counts.Ready
	case kindDelayed:
		return &p.counts.Delayed
	default:
		return &p.counts.Dead
	}
}
