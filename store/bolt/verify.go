package bolt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// bbolt trusts every number in its pages. A damaged one leads it outside of a page, which in the file is a fault that can
// be caught; but small buckets lie within the page of their parent and are copied to the heap, where a damaged length reads
// whatever is there. And it finds the free pages of a file that does not list them by reading all others, in a goroutine of its
// own, where a fault ends the process without a word.
//
// So before bbolt opens a file, it is walked here with plain reads and every number is checked: always the
// upper levels, which hold the queues and their small buckets and are few; and all of it only if its free pages are not
// listed, since bbolt reads all of it then anyway. Files list them unless the process was killed while the list was long.
//
// The layout below is that of bbolt's file format, version 2, in the byte order of the machine.
const (
	pageHead    = 16 // id 8, flags 2, count 2, overflow 4
	elementSize = 16 // leaf: flags 4, pos 4, key size 4, value size 4; branch: pos 4, key size 4, page 8
	metaSize    = 64 // of a meta page's content, checksum included
	bucketHead  = 16 // root page 8, sequence 8
	flagBranch  = 0x01
	flagLeaf    = 0x02
	leafBucket  = 0x01 // flag of a leaf element: its value is a bucket
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	noFreelist  = ^uint64(0)
	maxDepth    = 64
)

const (
	// levelParts is the level of buckets in which the areas and indexes of a queue are: below the root and the queue.
	levelParts = 2
	// levelAll is beyond any level there is.
	levelAll = maxDepth
)

// verify walks a file. The error wraps store.ErrCorrupt. A file whose meta pages are no good is left for bbolt to refuse.
func verify(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("look into the database: %w", err)
	}
	defer f.Close()
	meta, ok := readMeta(f)
	if !ok {
		return nil
	}
	w := walker{f: f, pageSize: meta.pageSize, pages: meta.pages, seen: make([]uint64, meta.pages/64+1), levels: levelParts}
	if meta.freelist == noFreelist {
		w.levels = levelAll
	}
	if err := w.bucket(meta.root, at{}); err != nil {
		return corrupt(path, err)
	}
	return nil
}

type metaPage struct {
	pageSize              int
	root, freelist, pages uint64
	txid                  uint64
}

// readMeta finds the newest valid meta page, as bbolt does.
func readMeta(f io.ReaderAt) (best metaPage, ok bool) {
	for _, at := range []int64{0, int64(os.Getpagesize())} {
		buf := make([]byte, pageHead+metaSize)
		if _, err := f.ReadAt(buf, at); err != nil {
			continue
		}
		m, valid := parseMeta(buf[pageHead:])
		if valid && (!ok || m.txid > best.txid) {
			best, ok = m, true
		}
	}
	return best, ok
}

func parseMeta(b []byte) (m metaPage, ok bool) {
	num := binary.NativeEndian
	if num.Uint32(b) != boltMagic || num.Uint32(b[4:]) != boltVersion {
		return m, false
	}
	sum := fnv.New64a()
	sum.Write(b[:metaSize-8])
	if sum.Sum64() != num.Uint64(b[metaSize-8:]) {
		return m, false
	}
	m = metaPage{
		pageSize: int(num.Uint32(b[8:])),
		root:     num.Uint64(b[16:]), freelist: num.Uint64(b[32:]), pages: num.Uint64(b[40:]), txid: num.Uint64(b[48:]),
	}
	return m, m.pageSize >= 1024 && m.pageSize <= 1<<24 && m.pages < 1<<44
}

// walker reads every page that can be reached and checks what bbolt relies on.
type walker struct {
	f        io.ReaderAt
	pageSize int
	pages    uint64
	seen     []uint64         // one bit per page
	bufs     [maxDepth][]byte // one page for each level of the walk
	levels   int              // buckets below so many others are followed only where they lie within a page
}

// at is where the walk is: how many pages deep, and in how many buckets.
type at struct{ depth, level int }

// span is what the keys below a branch must lie in: from low, before high; nil is no bound.
type span struct{ low, high []byte }

// bucket walks the tree of a bucket.
func (w *walker) bucket(root uint64, here at) error {
	if here.level >= w.levels {
		if root < 2 || root >= w.pages {
			return fmt.Errorf("a bucket at page %d of %d", root, w.pages)
		}
		return nil
	}
	return w.page(root, span{}, here)
}

func (w *walker) page(id uint64, in span, here at) error {
	depth := here.depth
	if depth >= maxDepth {
		return fmt.Errorf("page %d lies %d levels deep", id, depth)
	}
	if w.bufs[depth] == nil {
		w.bufs[depth] = make([]byte, w.pageSize)
	}
	buf, err := w.read(id, w.bufs[depth])
	if err != nil {
		return err
	}
	if err := w.content(buf, in, here); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// read returns a page with its overflow, and marks all of it as seen. A page without overflow is read into buf.
func (w *walker) read(id uint64, buf []byte) ([]byte, error) {
	if id < 2 || id >= w.pages {
		return nil, fmt.Errorf("a reference to page %d of %d", id, w.pages)
	}
	pos := int64(id) * int64(w.pageSize)
	if _, err := w.f.ReadAt(buf, pos); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	num := binary.NativeEndian
	if got := num.Uint64(buf); got != id {
		return nil, fmt.Errorf("page %d says it is page %d", id, got)
	}
	more := uint64(num.Uint32(buf[12:]))
	if more >= w.pages || id+more >= w.pages {
		return nil, fmt.Errorf("page %d claims %d pages of %d", id, more+1, w.pages)
	}
	for i := id; i <= id+more; i++ {
		if w.seen[i/64]&(1<<(i%64)) != 0 {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		w.seen[i/64] |= 1 << (i % 64)
	}
	if more == 0 {
		return buf, nil
	}
	buf = make([]byte, int(more+1)*w.pageSize)
	if _, err := w.f.ReadAt(buf, pos); err != nil {
		return nil, fmt.Errorf("read page %d: %w", id, err)
	}
	return buf, nil
}

// content checks the elements of a page, or of the page within an inline bucket.
func (w *walker) content(buf []byte, in span, here at) error {
	if len(buf) < pageHead {
		return errors.New("it is cut off")
	}
	num := binary.NativeEndian
	flags, n := num.Uint16(buf[8:]), int(num.Uint16(buf[10:]))
	if flags != flagBranch && flags != flagLeaf {
		return fmt.Errorf("it is of type %#x", flags)
	}
	if pageHead+n*elementSize > len(buf) {
		return fmt.Errorf("it claims %d entries", n)
	}
	if flags == flagBranch && n == 0 {
		return errors.New("it is a branch without entries")
	}
	var last []byte
	for i := range n {
		e, err := parseElement(buf, i, flags == flagLeaf)
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		if err := in.check(last, e.key); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		last = e.key
		if err := w.below(buf, i, n, e, in, here); err != nil {
			return err
		}
	}
	return nil
}

// check says whether a key is in its place.
func (s span) check(last, key []byte) error {
	switch {
	case last != nil && bytes.Compare(last, key) >= 0:
		return errors.New("its key is out of order")
	case s.low != nil && bytes.Compare(key, s.low) < 0, s.high != nil && bytes.Compare(key, s.high) >= 0:
		return errors.New("its key belongs to another page")
	}
	return nil
}

type element struct {
	key, value []byte
	branch     bool
	page       uint64 // branch: the child
	bucket     bool   // leaf: the value is a bucket
}

func parseElement(buf []byte, i int, leaf bool) (e element, err error) {
	num := binary.NativeEndian
	start := pageHead + i*elementSize
	head := buf[start : start+elementSize]
	var pos, klen, vlen uint64
	if leaf {
		e.bucket = num.Uint32(head)&leafBucket != 0
		pos, klen, vlen = uint64(num.Uint32(head[4:])), uint64(num.Uint32(head[8:])), uint64(num.Uint32(head[12:]))
	} else {
		e.branch = true
		pos, klen, e.page = uint64(num.Uint32(head)), uint64(num.Uint32(head[4:])), num.Uint64(head[8:])
	}
	from := uint64(start) + pos
	if klen == 0 || from+klen+vlen > uint64(len(buf)) {
		return e, errors.New("it lies outside of its page")
	}
	e.key = buf[from : from+klen]
	e.value = buf[from+klen : from+klen+vlen]
	return e, nil
}

// below walks what an element leads to.
func (w *walker) below(buf []byte, i, n int, e element, in span, here at) error {
	here.depth++
	switch {
	case e.branch:
		child := span{e.key, in.high}
		if i+1 < n {
			next, err := parseElement(buf, i+1, false)
			if err != nil {
				return err
			}
			child.high = next.key
		}
		return w.page(e.page, child, here)
	case !e.bucket:
		return nil
	case len(e.value) < bucketHead:
		return fmt.Errorf("the bucket %q is cut off", e.key)
	}
	here.level++
	if root := binary.NativeEndian.Uint64(e.value); root != 0 {
		return w.bucket(root, here)
	}
	if here.depth >= maxDepth {
		return fmt.Errorf("the bucket %q lies too deep", e.key)
	}
	return w.content(e.value[bucketHead:], span{}, here)
}
