//go:build linux && (amd64 || arm64)

package powercut

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"maps"
	"os"
	"path/filepath"
)

const (
	blockSize  = 4096
	sectorSize = 512 // what a disk writes whole or not at all
)

// block is a part of a file. It is never changed once it is in a content.
type block struct {
	data [blockSize]byte
	sum  uint64 // 0: not computed yet
}

var zeroes [blockSize]byte

// content is the content of a file; a block that is not there is zeroes.
type content struct {
	size   int64
	blocks map[int64]*block
}

func newContent() *content { return &content{blocks: map[int64]*block{}} }

func (c *content) clone() *content { return &content{c.size, maps.Clone(c.blocks)} }

// write changes a part of the content and makes it longer if need be.
func (c *content) write(at int64, data []byte) {
	c.size = max(c.size, at+int64(len(data)))
	for len(data) > 0 {
		i, off := at/blockSize, at%blockSize
		n := min(blockSize-off, int64(len(data)))
		b := &block{}
		if old := c.blocks[i]; old != nil {
			b.data = old.data
		}
		copy(b.data[off:], data[:n])
		if b.data == zeroes {
			delete(c.blocks, i)
		} else {
			c.blocks[i] = b
		}
		at, data = at+n, data[n:]
	}
}

// resize cuts the content off, or adds zeroes.
func (c *content) resize(size int64) {
	if size < c.size {
		maps.DeleteFunc(c.blocks, func(i int64, _ *block) bool { return i*blockSize >= size })
		if off := size % blockSize; off > 0 && c.blocks[size/blockSize] != nil {
			end := (size/blockSize + 1) * blockSize
			c.write(size, make([]byte, end-size))
		}
	}
	c.size = size
}

func (c *content) apply(o *op) {
	switch o.Kind {
	case opWrite:
		c.write(o.Off, o.Data)
	case opSize:
		c.resize(o.Off)
	case opGrow:
		c.size = max(c.size, o.Off)
	}
}

var seed = maphash.MakeSeed()

// sum is a hash of the content.
func (c *content) sum() uint64 {
	sum := uint64(c.size) * 0x9e3779b97f4a7c15
	for i, b := range c.blocks {
		if b.sum == 0 {
			b.sum = maphash.Bytes(seed, b.data[:])
		}
		sum += maphash.Comparable(seed, [2]uint64{uint64(i), b.sum})
	}
	return sum
}

// store writes the content to a new file.
func (c *content) store(path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for i, b := range c.blocks {
		at := i * blockSize
		if _, err := f.WriteAt(b.data[:min(blockSize, c.size-at)], at); err != nil {
			return err
		}
	}
	return f.Truncate(c.size)
}

// compare says where a file differs from the content.
func (c *content) compare(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != c.size {
		return fmt.Errorf("%s has %d bytes, by the log it has %d", path, info.Size(), c.size)
	}
	buf := make([]byte, blockSize)
	for at := int64(0); at < c.size; at += blockSize {
		n := min(blockSize, c.size-at)
		if _, err := f.ReadAt(buf[:n], at); err != nil {
			return err
		}
		want := &zeroes
		if b := c.blocks[at/blockSize]; b != nil {
			want = &b.data
		}
		if !bytes.Equal(buf[:n], want[:n]) {
			return fmt.Errorf("%s differs from the log in the block at %d", path, at)
		}
	}
	return nil
}

// node is a file or a directory: what is durable of it, and the operations that are not.
type node struct {
	isDir   bool
	content *content
	entries map[string]int
	pending []int // in the log
}

// disk is the model: what the power going would leave after the first at operations.
type disk struct {
	rec   *recording
	at    int
	nodes []node
}

func newDisk(r *recording) *disk {
	d := &disk{rec: r, nodes: make([]node, r.Nodes)}
	d.nodes[0] = newNode(true)
	return d
}

func newNode(isDir bool) node {
	if isDir {
		return node{isDir: true, entries: map[string]int{}}
	}
	return node{content: newContent()}
}

// advance takes the next operations, up to the k-th.
func (d *disk) advance(k int) {
	for ; d.at < k; d.at++ {
		o := &d.rec.Ops[d.at]
		switch o.Kind {
		case opSync:
			d.sync(o)
		case opCreate:
			d.nodes[o.Node] = newNode(o.IsDir)
			fallthrough
		case opRename, opUnlink:
			d.nodes[o.Dir].pending = append(d.nodes[o.Dir].pending, d.at)
		default:
			d.nodes[o.Node].pending = append(d.nodes[o.Node].pending, d.at)
		}
	}
}

// sync makes durable what had been done when the fsync began.
func (d *disk) sync(o *op) {
	n := &d.nodes[o.Node]
	for len(n.pending) > 0 && n.pending[0] < o.From {
		p := &d.rec.Ops[n.pending[0]]
		if n.isDir {
			enter(n.entries, p)
		} else {
			n.content.apply(p)
		}
		n.pending = n.pending[1:]
	}
}

// enter changes the names of a directory.
func enter(names map[string]int, o *op) {
	remove := func(name string) {
		if names[name] == o.Node {
			delete(names, name)
		}
	}
	switch o.Kind {
	case opCreate:
		names[o.Name] = o.Node
	case opRename:
		remove(o.Name)
		names[o.To] = o.Node
	case opUnlink:
		remove(o.Name)
	}
}

// choice says how much of an operation that was not synced is there after all: all of it, or for a write the sectors for
// which part says so.
type choice struct {
	keep bool
	part func(sector int64) bool // nil: all
}

func everything(int, *op) choice { return choice{keep: true} }
func nothing(int, *op) choice    { return choice{} }

// image is what is on the disk when the power comes back.
type image struct {
	dirs  map[string]bool
	files map[string]*content
}

// image makes one; choose decides about each operation that is not durable.
func (d *disk) image(choose func(at int, o *op) choice) *image {
	img := &image{dirs: map[string]bool{}, files: map[string]*content{}}
	d.gather(img, 0, "", choose)
	return img
}

func (d *disk) gather(img *image, dir int, path string, choose func(int, *op) choice) {
	names := d.nodes[dir].entries
	if len(d.nodes[dir].pending) > 0 {
		names = maps.Clone(names)
	}
	for _, at := range d.nodes[dir].pending {
		if o := &d.rec.Ops[at]; choose(at, o).keep {
			enter(names, o)
		}
	}
	for name, id := range names {
		p := filepath.Join(path, name)
		if d.nodes[id].isDir {
			img.dirs[p] = true
			d.gather(img, id, p, choose)
		} else {
			img.files[p] = d.file(&d.nodes[id], choose)
		}
	}
}

func (d *disk) file(n *node, choose func(int, *op) choice) *content {
	c := n.content.clone() // a later sync changes the node's own
	for _, at := range n.pending {
		o := &d.rec.Ops[at]
		switch ch := choose(at, o); {
		case !ch.keep:
		case ch.part == nil || o.Kind != opWrite:
			c.apply(o)
		default:
			tear(c, o, ch.part)
		}
	}
	return c
}

// tear writes the sectors that part names.
func tear(c *content, o *op, part func(int64) bool) {
	end := o.Off + int64(len(o.Data))
	for at := o.Off; at < end; {
		next := min(end, (at/sectorSize+1)*sectorSize)
		if part(at / sectorSize) {
			c.write(at, o.Data[at-o.Off:next-o.Off])
		}
		at = next
	}
}

// sum is a hash of the image.
func (img *image) sum() uint64 {
	var sum uint64
	for name, c := range img.files {
		sum += maphash.Comparable(seed, [2]uint64{maphash.String(seed, name), c.sum()})
	}
	for name := range img.dirs {
		sum += maphash.String(seed, name)
	}
	return sum
}

// store writes the image into an empty directory.
func (img *image) store(root string) error {
	for name := range img.dirs {
		if err := os.MkdirAll(filepath.Join(root, name), 0o700); err != nil {
			return err
		}
	}
	for name, c := range img.files {
		if err := c.store(filepath.Join(root, name)); err != nil {
			return err
		}
	}
	return nil
}
