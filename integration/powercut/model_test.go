//go:build linux && (amd64 || arm64)

package powercut

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// describe writes an image as "name=content" in order of the names; runs of one byte are "4xA", zero bytes are dots.
func describe(img *image) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(img.files)) {
		c := img.files[name]
		b := make([]byte, c.size)
		for i, block := range c.blocks {
			copy(b[i*blockSize:], block.data[:])
		}
		parts = append(parts, name+"="+runs(bytes.ReplaceAll(b, []byte{0}, []byte("."))))
	}
	return strings.Join(parts, " ")
}

func runs(b []byte) (s string) {
	for len(b) > 0 {
		n := len(b) - len(bytes.TrimLeft(b, string(b[:1])))
		s, b = s+fmt.Sprintf("%dx%c", n, b[0]), b[n:]
	}
	return s
}

func fill(c byte, n int) []byte { return bytes.Repeat([]byte{c}, n) }

// TestModel holds the model of a disk to what it says of itself, with a file that is made, named and written again.
func TestModel(t *testing.T) {
	r := &recording{Nodes: 3, Ops: []op{
		{Kind: opCreate, Node: 1, Name: "new"},
		{Kind: opWrite, Node: 1, Data: fill('A', 600)},
		{Kind: opSync, Node: 1, From: 2},
		{Kind: opRename, Node: 1, Name: "new", To: "db"},
		{Kind: opSync, Node: 0, From: 4}, // 5
		{Kind: opWrite, Node: 1, Off: 400, Data: fill('B', 800)},
		{Kind: opSize, Node: 1, Off: 500},
		{Kind: opGrow, Node: 1, Off: 5000}, // 8
		{Kind: opSync, Node: 1, From: 6},   // 9: began before the change of size
		{Kind: opSync, Node: 1, From: 9},   // 10
		{Kind: opCreate, Node: 2, Name: "copy"},
		{Kind: opRename, Node: 2, Name: "copy", To: "db"},
		{Kind: opUnlink, Node: 1, Name: "db"}, // 13: of a node that has lost its name already
	}}
	odd := func(int, *op) choice { return choice{keep: true, part: func(s int64) bool { return s%2 == 1 }} }
	only := func(n int) func(int, *op) choice {
		return func(at int, _ *op) choice { return choice{keep: at == n} }
	}
	for _, c := range []struct {
		after  int
		choose func(int, *op) choice
		want   string
	}{
		{2, everything, "new=600xA"},
		{2, nothing, ""},
		{2, only(0), "new="},
		{2, odd, "new=512x.88xA"},
		{3, nothing, ""},
		{3, only(0), "new=600xA"},
		{4, only(0), "new=600xA"},
		{4, only(3), "db=600xA"},
		{5, nothing, "db=600xA"},
		{6, nothing, "db=600xA"},
		{6, everything, "db=400xA800xB"},
		{6, odd, "db=512xA512xB"},
		{8, everything, "db=400xA100xB4500x."},
		{8, only(6), "db=500xA"},
		{8, only(7), "db=600xA4400x."},
		{9, nothing, "db=400xA800xB"},
		{10, nothing, "db=400xA100xB4500x."},
		{12, nothing, "db=400xA100xB4500x."},
		{12, only(10), "copy= db=400xA100xB4500x."},
		{12, only(11), "db="},
		{13, everything, "db="},
	} {
		d := newDisk(r)
		d.advance(c.after)
		img := d.image(c.choose)
		if got := describe(img); got != c.want {
			t.Errorf("after %d operations: %q, want %q", c.after, got, c.want)
		}
	}
}

// imageOf is an image with one file of such blocks.
func imageOf(name string, blocks ...[]byte) *image {
	c := newContent()
	for i, b := range blocks {
		c.write(int64(i)*blockSize, b)
	}
	return &image{files: map[string]*content{name: c}}
}

// TestSum says that images that differ have different hashes, and equal ones the same, however they came to be.
func TestSum(t *testing.T) {
	a, b, zero := fill('a', blockSize), fill('b', blockSize), make([]byte, blockSize)
	seen := map[uint64]int{}
	for i, img := range []*image{
		imageOf("x", a), imageOf("y", a), imageOf("x", b), imageOf("x", a, b), imageOf("x", b, a), imageOf("x", a, zero),
		imageOf("x"),
		{dirs: map[string]bool{"x": true}},
		{},
	} {
		if j, twice := seen[img.sum()]; twice {
			t.Errorf("images %d and %d have the same hash", i, j)
		}
		seen[img.sum()] = i
	}
	rewritten := imageOf("x", a, b)
	rewritten.files["x"].write(0, zero)
	if rewritten.sum() != imageOf("x", zero, b).sum() {
		t.Error("the hash depends on how the content came to be")
	}
}
