package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.etcd.io/bbolt"

	"stint/store"
	"stint/store/storetest"
)

// patch finds every copy of old in the file, which may be open, and writes new over it. bbolt's map of the file shows it
// at once, as a disk that rots would.
func patch(t testing.TB, path string, old, new []byte) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n := 0
	for at := 0; ; n++ {
		i := bytes.Index(data[at:], old)
		if i < 0 {
			break
		}
		if _, err := f.WriteAt(new, int64(at+i)); err != nil {
			t.Fatal(err)
		}
		at += i + len(old)
	}
	if n == 0 {
		t.Fatal("the bytes to damage are not in the file")
	}
}

// stored returns key and value of an item, as they stand next to each other in a page.
func stored(r store.Record) []byte {
	_, key, value := encode(&r)
	return append(key, value...)
}

func flipped(b []byte, bit int) []byte {
	b = bytes.Clone(b)
	b[bit/8] ^= 1 << (bit % 8)
	return b
}

// TestEveryByte damages an item on disk, byte by byte of its key and its value: it is reported, never served, and the
// items beside it are not affected.
func TestEveryByte(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir, small)
	q := storetest.Queue(t, db, "q")
	a, c := storetest.Waiting(1, 9, "first"), storetest.Waiting(3, 9, "last")
	b := sample()
	b.ID, b.Place, b.Expires = 2, store.Place{Area: store.Ready, Priority: 9}, 0
	storetest.Commit(t, q, storetest.Put(a), storetest.Put(b), storetest.Put(c))
	good := stored(b)
	for i := range good {
		bad := flipped(good, 8*i+i%8)
		patch(t, dbPath(dir), good, bad)
		p, err := q.Ready(store.Cursor{}, page1)
		if err != nil {
			t.Fatalf("byte %d: %v", i, err)
		}
		if d := cmp.Diff([]store.Record{a, c}, p.Records, cmpopts.EquateEmpty()); d != "" {
			t.Fatalf("byte %d: %s", i, d)
		}
		if len(p.Damaged) != 1 || !errors.Is(p.Damaged[0].Err, store.ErrDamaged) || p.Damaged[0].What != "item" {
			t.Fatalf("byte %d: %+v", i, p.Damaged)
		}
		patch(t, dbPath(dir), bad, good)
	}
	p, err := q.Ready(store.Cursor{}, page1)
	if err != nil || len(p.Records) != 3 || len(p.Damaged) != 0 {
		t.Fatalf("%+v, %v", p, err)
	}
}

// TestSetAside: a damaged item is moved out of the way as it is, counted, and stays so.
func TestSetAside(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir, small)
	q := storetest.Queue(t, db, "q")
	a, b := storetest.Waiting(1, 0, "aaaaaaaa"), storetest.Waiting(2, 0, "bbbbbbbb")
	a.Expires = 40
	storetest.Commit(t, q, storetest.Put(a), storetest.Put(b))
	bad := flipped(stored(a), 8*40)
	patch(t, dbPath(dir), stored(a), bad)
	p, err := q.Ready(store.Cursor{}, store.Limit{Records: 1})
	if err != nil || len(p.Records) != 0 || len(p.Damaged) != 1 || !p.More {
		t.Fatalf("%+v, %v", p, err)
	}
	d := p.Damaged[0]
	if d.ID != 1 || d.Place != a.Place {
		t.Fatalf("%+v", d)
	}
	storetest.Commit(t, q, store.Op{Kind: store.OpSetAside, ID: d.ID, From: d.Place})
	wantIDs(t, q, 2)
	// Its entry in the index by expiry leads nowhere now, and goes without a word.
	p, err = q.Expired(50, page1)
	if err != nil || len(p.Records)+len(p.Damaged) != 0 {
		t.Fatalf("expired: %+v, %v", p, err)
	}
	db.Close()
	db = mustOpen(t, dir, small)
	q = storetest.Queue(t, db, "q")
	wantIDs(t, q, 2)
	snap := storetest.Load(t, q)
	if snap.NextExpiry != 0 || snap.Counts != (store.Counts{Ready: 1, Bytes: 8, Damaged: 1}) {
		t.Errorf("%+v", snap)
	}
	db.handle.View(func(tx *bbolt.Tx) error {
		got := tx.Bucket([]byte("queue/q")).Bucket(bucketNames[kindDamaged]).Get(damagedKey(kindReady, bad[:9]))
		if !bytes.Equal(got, bad[9:]) {
			t.Errorf("kept: %x, want %x", got, bad[9:])
		}
		return nil
	})
}

// TestMoveDamaged: a damaged item that is to be moved is set aside, and the rest of the batch is done.
func TestMoveDamaged(t *testing.T) {
	dir := t.TempDir()
	q := storetest.Queue(t, mustOpen(t, dir, small), "q")
	a := storetest.Waiting(1, 0, "aaaaaaaa")
	storetest.Commit(t, q, storetest.Put(a))
	patch(t, dbPath(dir), stored(a), flipped(stored(a), 8*30))
	storetest.Commit(t, q, storetest.Move(a, store.Place{Area: store.Dead}, store.Marks{}), storetest.Put(storetest.Waiting(2, 0, "b")))
	wantIDs(t, q, 2)
	if c := storetest.Load(t, q).Counts; c != (store.Counts{Ready: 1, Bytes: 1, Damaged: 1}) {
		t.Errorf("%+v", c)
	}
}

// TestLoadDamaged: damaged parts are reported once, set aside, and keep nothing from starting.
func TestLoadDamaged(t *testing.T) {
	dir := t.TempDir()
	q := storetest.Queue(t, mustOpen(t, dir, small), "q")
	item := storetest.Waiting(1, 0, "x")
	lease := store.Lease{ID: 1, Attempt: 1, Processor: "lease.to.this"}
	reg := store.Registration{Processor: "register.this", Capacity: 7, Seen: 12345678}
	reply := store.Reply{ID: 5, Subject: "reply.to.this", Body: []byte("r")}
	dedup := store.Dedup{MsgID: "remember-this", ID: 9, Expires: 5}
	storetest.Commit(t, q, storetest.Put(item), store.Op{Kind: store.OpPutLease, Lease: lease},
		store.Op{Kind: store.OpPutLease, Lease: store.Lease{ID: 99, Processor: "of.no.item"}},
		store.Op{Kind: store.OpPutRegistration, Registration: reg}, store.Op{Kind: store.OpPutReply, Reply: &reply},
		store.Op{Kind: store.OpPutDedup, Dedup: dedup})
	path := dbPath(dir)
	patch(t, path, []byte("lease.to.this"), []byte("lease.to.thiz"))
	patch(t, path, []byte("reply.to.this"), []byte("reply.to.thiz"))
	patch(t, path, []byte("register.this"), []byte("register.thiz"))
	patch(t, path, appendDedup(nil, &dedup), flipped(appendDedup(nil, &dedup), 50))

	snap := storetest.Load(t, q)
	var what []string
	for _, d := range snap.Damaged {
		if !errors.Is(d.Err, store.ErrDamaged) || d.Place.Area != store.Nowhere {
			t.Errorf("%+v", d)
		}
		what = append(what, d.What)
	}
	if fmt.Sprint(what) != "[registration lease lease reply]" {
		t.Errorf("damaged: %v", what)
	}
	if len(snap.Leases)+len(snap.Registrations)+len(snap.Replies) != 0 {
		t.Errorf("%+v", snap)
	}
	want := store.Counts{Ready: 1, Bytes: 1, Damaged: 4, Dedup: 1}
	if snap.Counts != want {
		t.Errorf("counts %+v, want %+v", snap.Counts, want)
	}
	if snap = storetest.Load(t, q); len(snap.Damaged) != 0 || snap.Counts != want {
		t.Errorf("the second time: %+v", snap)
	}
	if _, _, err := q.Dedup("remember-this"); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("dedup: %v", err)
	}
	storetest.Commit(t, q, store.Op{Kind: store.OpPruneDedup, Expires: 6})
	if _, ok, err := q.Dedup("remember-this"); ok || err != nil {
		t.Errorf("dedup after it has expired: %v, %v", ok, err)
	}
}

func TestReplyDamaged(t *testing.T) {
	dir := t.TempDir()
	q := storetest.Queue(t, mustOpen(t, dir, small), "q")
	storetest.Commit(t, q, store.Op{Kind: store.OpPutReply, Reply: &store.Reply{ID: 5, Body: []byte("the body of a reply")}})
	patch(t, dbPath(dir), []byte("the body of a reply"), []byte("the body of a reptl"))
	if r, ok, err := q.Reply(5); ok || err != nil {
		t.Errorf("%+v %v %v", r, ok, err)
	}
}

// TestExpiryDamaged: an entry of the index that is not what was written is reported once; the item is not affected.
func TestExpiryDamaged(t *testing.T) {
	dir := t.TempDir()
	q := storetest.Queue(t, mustOpen(t, dir, small), "q")
	a, b := storetest.Waiting(1, 0, "a"), storetest.Waiting(2, 0, "b")
	a.Expires, b.Expires = 10, 20
	storetest.Commit(t, q, storetest.Put(a), storetest.Put(b))
	key := appendTimeKey(nil, 10, 1)
	entry := append(bytes.Clone(key), appendPlace(nil, key, a.Place)...)
	patch(t, dbPath(dir), entry, flipped(entry, 8*20))
	p, err := q.Expired(100, page1)
	if err != nil || len(p.Damaged) != 1 || p.Damaged[0].What != "expiry" || len(p.Records) != 1 || p.Records[0].ID != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	storetest.Commit(t, q) // behind the repair
	if p, err = q.Expired(100, page1); err != nil || len(p.Damaged) != 0 || len(p.Records) != 1 {
		t.Fatalf("the second time: %+v, %v", p, err)
	}
	wantIDs(t, q, 1, 2)
	if c := storetest.Load(t, q).Counts; c != (store.Counts{Ready: 2, Bytes: 2, Damaged: 1}) {
		t.Errorf("counts %+v", c)
	}
}

// TestDueDamaged: a time that was damaged to one far away hides nothing of what stands behind it.
func TestDueDamaged(t *testing.T) {
	dir := t.TempDir()
	q := storetest.Queue(t, mustOpen(t, dir, small), "q")
	first, second := storetest.Delayed(1, 1000, "first"), storetest.Delayed(2, 1001, "second")
	storetest.Commit(t, q, storetest.Put(first), storetest.Put(second))
	patch(t, dbPath(dir), stored(first), flipped(stored(first), 8*1)) // the key: a later due time
	if snap := storetest.Load(t, q); snap.NextDue != 1001 {
		t.Errorf("next due %d", snap.NextDue)
	}
	p, err := q.Due(2000, page1)
	if err != nil || len(p.Damaged) != 1 || len(p.Records) != 1 || p.Records[0].ID != 2 || p.Next != 0 {
		t.Fatalf("%+v, %v", p, err)
	}
}

// TestDueAllDamaged: with nothing else in the index, what is damaged is due at once, or it would never be found.
func TestDueAllDamaged(t *testing.T) {
	dir := t.TempDir()
	q := storetest.Queue(t, mustOpen(t, dir, small), "q")
	r := storetest.Delayed(1, 1000, "first")
	storetest.Commit(t, q, storetest.Put(r))
	patch(t, dbPath(dir), stored(r), flipped(stored(r), 8*30))
	if snap := storetest.Load(t, q); snap.NextDue == 0 || snap.NextDue > 1000 {
		t.Errorf("next due %d", snap.NextDue)
	}
}

// TestMisplaced: a damaged key stands where bbolt does not look for it, and misleads it about the keys beside it. Whatever
// its place, the others are moved and deleted as ever, and it is set aside.
func TestMisplaced(t *testing.T) {
	const n = 9
	for victim := range uint64(n) {
		for _, to := range []string{"low", "high"} {
			t.Run(fmt.Sprint(victim, to), func(t *testing.T) {
				dir := t.TempDir()
				db := mustOpen(t, dir, small)
				q := storetest.Queue(t, db, "q")
				var rs []store.Record
				for id := uint64(0); id < n; id++ {
					rs = append(rs, storetest.Waiting(1000+id, 5, "body"))
					storetest.Commit(t, q, storetest.Put(rs[id]))
				}
				bad := stored(rs[victim])
				bad[0] = map[string]byte{"low": 0, "high": 255}[to]
				patch(t, dbPath(dir), stored(rs[victim]), bad)
				p, err := q.Ready(store.Cursor{}, page1)
				if err != nil || len(p.Damaged) != 1 || len(p.Records) != n-1 {
					t.Fatalf("%+v, %v", p, err)
				}
				var ops []store.Op
				for i, r := range p.Records {
					if i%2 == 0 {
						ops = append(ops, storetest.Delete(r))
					} else {
						ops = append(ops, storetest.Move(r, store.Place{Area: store.Dead}, store.Marks{}))
					}
				}
				d := p.Damaged[0]
				ops = append(ops, store.Op{Kind: store.OpSetAside, ID: d.ID, From: d.Place})
				storetest.Commit(t, q, ops...)
				wantIDs(t, q)
				if c := storetest.Load(t, q).Counts; c != (store.Counts{Dead: n / 2, Bytes: n / 2 * 4, Damaged: 1}) {
					t.Errorf("counts %+v", c)
				}
				if got := keysIn(db, kindReady) + 10*keysIn(db, kindDamaged); got != 10 {
					t.Errorf("entries left, and ten times those set aside: %d", got)
				}
			})
		}
	}
}

// TestMisplacedAlone: set aside without anything else being touched.
func TestMisplacedAlone(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir, small)
	q := storetest.Queue(t, db, "q")
	first, second, third := storetest.Delayed(1, 10, "a"), storetest.Delayed(2, 20, "b"), storetest.Delayed(3, 30, "c")
	storetest.Commit(t, q, storetest.Put(first), storetest.Put(second), storetest.Put(third))
	bad := flipped(stored(first), 8*2+1) // due in the far future
	patch(t, dbPath(dir), stored(first), bad)
	p, err := q.Due(100, page1)
	if err != nil || len(p.Damaged) != 1 || len(p.Records) != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	d := p.Damaged[0]
	storetest.Commit(t, q, store.Op{Kind: store.OpSetAside, ID: d.ID, From: d.Place})
	p, err = q.Due(100, page1)
	if err != nil || len(p.Damaged) != 0 || len(p.Records) != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	if n := keysIn(db, kindDelayed); n != 2 {
		t.Errorf("%d entries", n)
	}
	if c := storetest.Load(t, q).Counts; c.Delayed != 2 || c.Damaged != 1 {
		t.Errorf("counts %+v", c)
	}
}

// TestDedupDamaged: a message id that is seen again after its entry was damaged is remembered for its new time.
func TestDedupDamaged(t *testing.T) {
	dir := t.TempDir()
	db := mustOpen(t, dir, small)
	q := storetest.Queue(t, db, "q")
	put := func(d store.Dedup) store.Op { return store.Op{Kind: store.OpPutDedup, Dedup: d} }
	old := store.Dedup{MsgID: "remember-this", ID: 9, Expires: 5, ReplyHash: 1234567890}
	again := store.Dedup{MsgID: "remember-this", ID: 10, Expires: 50}
	storetest.Commit(t, q, put(old))
	patch(t, dbPath(dir), appendDedup(nil, &old), flipped(appendDedup(nil, &old), 50))
	storetest.Commit(t, q, put(again))
	storetest.Commit(t, q, store.Op{Kind: store.OpPruneDedup, Expires: 20})
	if d, ok, err := q.Dedup("remember-this"); !ok || err != nil || d != again {
		t.Errorf("%+v %v %v", d, ok, err)
	}
	later := again
	later.Expires = 60
	storetest.Commit(t, q, put(later), put(again))
	if n := keysIn(db, kindPrune); n != 1 {
		t.Errorf("%d entries for one message id", n)
	}
}

func keysIn(db *DB, k kind) (n int) {
	db.handle.View(func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("queue/q")).Bucket(bucketNames[k]).ForEach(func(_, _ []byte) error {
			n++
			return nil
		})
	})
	return n
}

// TestCountsDamaged: counters that are damaged are counted anew, by Load and by the next batch.
func TestCountsDamaged(t *testing.T) {
	for _, first := range []string{"load", "batch"} {
		t.Run(first, func(t *testing.T) {
			dir := t.TempDir()
			q := storetest.Queue(t, mustOpen(t, dir, small), "q")
			dead := storetest.Waiting(3, 0, "333")
			dead.Place = store.Place{Area: store.Dead}
			storetest.Commit(t, q, storetest.Put(storetest.Waiting(1, 0, "1")), storetest.Put(storetest.Delayed(2, 5, "22")),
				storetest.Put(dead), store.Op{Kind: store.OpPutReply, Reply: &store.Reply{ID: 1}},
				store.Op{Kind: store.OpPutDedup, Dedup: store.Dedup{MsgID: "m"}})
			want := store.Counts{Ready: 1, Delayed: 1, Dead: 1, Bytes: 6, Replies: 1, Dedup: 1}
			good := appendCounts(nil, &want)
			patch(t, dbPath(dir), good, flipped(good, 8*7))
			if first == "load" {
				snap := storetest.Load(t, q)
				if snap.Counts != want || len(snap.Damaged) != 1 || snap.Damaged[0].What != "counters" {
					t.Errorf("%+v", snap)
				}
			}
			storetest.Commit(t, q, storetest.Put(storetest.Waiting(4, 0, "4444")))
			want.Ready, want.Bytes = 2, 10
			if snap := storetest.Load(t, q); snap.Counts != want || len(snap.Damaged) != 0 {
				t.Errorf("%+v", snap)
			}
		})
	}
}

// TestNamesDamaged: a bucket that is not found under its name is missed; it does not pass for an empty one.
func TestNamesDamaged(t *testing.T) {
	for name, change := range map[string][2]string{
		"queue": {"queue/here", "queue/hexe"},
		"area":  {"ready", "reedy"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			q := storetest.Queue(t, mustOpen(t, dir, small), "here")
			storetest.Commit(t, q, storetest.Put(storetest.Waiting(1, 0, "x")))
			f, _ := os.ReadFile(dbPath(dir))
			for at := 0; ; at++ { // one copy only: the name stands in the meta bucket too
				i := bytes.Index(f[at:], []byte(change[0]))
				if i < 0 {
					break
				}
				at += i
				if isMetaEntry(f, at, change[0]) {
					continue
				}
				poke(t, dbPath(dir), int64(at), change[1])
			}
			if _, err := q.Load(); !errors.Is(err, store.ErrCorrupt) {
				t.Errorf("load: %v", err)
			}
		})
	}
}

func isMetaEntry(f []byte, at int, name string) bool {
	value := appendMeta(nil, []byte(name), 1)
	return bytes.HasPrefix(f[at+len(name):], value)
}

func poke(t *testing.T, path string, at int64, s string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(s), at); err != nil {
		t.Fatal(err)
	}
}

// TestRandomFlips damages files at random, with and without their list of free pages. Whatever happens, the process lives,
// nothing is served that was not put, and what is missing was reported.
func TestRandomFlips(t *testing.T) {
	for _, listed := range []bool{true, false} {
		t.Run(fmt.Sprintf("listed %v", listed), func(t *testing.T) {
			image, want := damageImage(t, listed)
			rnd := rand.New(rand.NewPCG(1, 2))
			outcome := map[string]int{}
			for range 400 {
				bad := bytes.Clone(image)
				bit := rnd.IntN(len(bad) * 8)
				bad[bit/8] ^= 1 << (bit % 8)
				outcome[tryImage(t, bit, bad, want)]++
			}
			t.Logf("%v", outcome)
			if outcome["reported"] == 0 || outcome["intact"] == 0 {
				t.Errorf("the flips prove nothing: %v", outcome)
			}
		})
	}
}

// damageImage makes a file of several areas and queues; unlisted, as a crash leaves it.
func damageImage(t *testing.T, listed bool) (image []byte, want map[uint64]store.Record) {
	t.Helper()
	dir := t.TempDir()
	o := small
	if !listed {
		o.limits.freelistLong = 1
	}
	db := mustOpen(t, dir, o)
	q := storetest.Queue(t, db, "q")
	want = map[uint64]store.Record{}
	for id := uint64(1); id <= 300; id++ {
		r := storetest.Waiting(id, uint8(id%3), fmt.Sprintf("%0200d", id))
		if id%10 == 0 {
			r = storetest.Delayed(id, int64(id), "delayed")
		}
		want[id] = r
		storetest.Commit(t, q, storetest.Put(r))
	}
	image, err := os.ReadFile(dbPath(dir))
	if err != nil {
		t.Fatal(err)
	}
	m, ok := readMeta(bytes.NewReader(image))
	if !ok || (m.freelist != noFreelist) != listed {
		t.Fatalf("the image is not what it should be: %+v", m)
	}
	return image[:int(m.pages)*m.pageSize], want // without what the file has been given ahead
}

func tryImage(t *testing.T, bit int, image []byte, want map[uint64]store.Record) string {
	dir := t.TempDir()
	write(t, dir, image)
	o := small
	o.limits.mmapSize = 1 << 24
	db, err := Open(dbPath(dir), o)
	if err != nil {
		if !errors.Is(err, store.ErrCorrupt) && !errors.Is(err, store.ErrNewer) {
			t.Fatalf("bit %d: open: %v", bit, err)
		}
		return "refused"
	}
	defer db.Close()
	q := storetest.Queue(t, db, "q")
	snap, err := q.Load()
	if err != nil {
		return "refused"
	}
	ready, err1 := q.Ready(store.Cursor{}, store.Limit{})
	due, err2 := q.Due(1000, store.Limit{})
	damaged := append(append(snap.Damaged, ready.Damaged...), due.Damaged...)
	got := append(ready.Records, due.Records...)
	for _, r := range got {
		if !reflect.DeepEqual(want[r.ID], r) {
			t.Fatalf("bit %d: served what was not put: %s", bit, cmp.Diff(want[r.ID], r))
		}
	}
	var ops []store.Op
	for _, r := range got {
		ops = append(ops, storetest.Delete(r))
	}
	for _, d := range damaged {
		ops = append(ops, store.Op{Kind: store.OpSetAside, ID: d.ID, From: d.Place})
	}
	err3 := storetest.Submit(q, ops...) // it may fail, but not take the process down
	if err3 == nil {                    // what was not read and not reported comes to light when the queue is empty
		ready, err1 = q.Ready(store.Cursor{}, store.Limit{})
		due, err2 = q.Due(1000, store.Limit{})
		damaged = append(append(damaged, ready.Damaged...), due.Damaged...)
	}
	switch {
	case err1 != nil || err2 != nil || err3 != nil:
		return "failed"
	case len(damaged) > 0:
		return "reported"
	case len(got) != len(want):
		t.Errorf("bit %d: %d of %d items, and nothing said of the others", bit, len(got), len(want))
	}
	return "intact"
}

// TestVerify: the walk accepts what bbolt writes, and refuses what it could not read.
func TestVerify(t *testing.T) {
	image, _ := damageImage(t, false)
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := verify(path); err != nil {
		t.Fatal(err)
	}
	size := os.Getpagesize()
	for at := 2 * size; at < len(image); at += size {
		copy(image[at:], bytes.Repeat([]byte{0xee}, pageHead))
	}
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := verify(path); !errors.Is(err, store.ErrCorrupt) {
		t.Fatalf("a file without a single good page: %v", err)
	}
}
