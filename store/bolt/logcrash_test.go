package bolt

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"go.etcd.io/bbolt"

	"stint/store"
	"stint/store/storetest"
)

// image is what a crash would leave: the three files.
type image [3][]byte

// crasher takes images of a database that is at work. Each write of the file and each sync of the log has it in its hands, so
// that an image is what the disk held at one moment.
type crasher struct {
	dir  string
	roll dice // under mu

	mu     sync.Mutex // guards all below, and the files against being written while an image is taken
	logs   map[string][]byte
	random bool // take images at random moments
	images []crash
	at     func() []reach
}

// reach is the batches of a queue that an image may hold: from what was told done to what was submitted.
type reach struct{ told, submitted int }

// crash is an image with what it may hold.
type crash struct {
	what  string
	files image
	spans []reach
}

func (c *crasher) options(o Options) Options {
	o.hooks.opened = func(h *bbolt.DB) {
		h.NoSync, h.NoGrowSync = true, true // what the kernel has is all that counts here
		write := field[func([]byte, int64) (int, error)](h, "ops", "writeAt")
		real := *write
		*write = func(b []byte, off int64) (int, error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.random && c.roll(12) == 0 {
				c.take("before a write")
			}
			n, err := real(b, off)
			if c.random && off < 2*int64(os.Getpagesize()) && c.roll(4) == 0 {
				c.take("after a commit")
			}
			return n, err
		}
	}
	o.hooks.syncLog = func(f *os.File) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		now, err := os.ReadFile(f.Name())
		if err == nil && c.random && c.roll(6) == 0 {
			c.tear(f.Name(), now)
		}
		c.logs[f.Name()] = now
		return err
	}
	return o
}

func (c *crasher) read() (files image) {
	for i, name := range logFiles(c.dir) {
		files[i], _ = os.ReadFile(name)
	}
	return files
}

func (c *crasher) take(what string) {
	before := c.at()
	files := c.read()
	c.note(what, files, before)
}

// note keeps an image that was taken after the batches were counted.
func (c *crasher) note(what string, files image, before []reach) {
	after := c.at()
	for i := range before {
		before[i].submitted = after[i].submitted
	}
	c.images = append(c.images, crash{what, files, before})
}

// tear takes an image in which only some of what was just written to a file of the log has reached the disk.
func (c *crasher) tear(name string, now []byte) {
	spans := c.at()
	files := c.read()
	old := c.logs[name]
	if len(old) != len(now) {
		old = make([]byte, len(now))
	}
	torn := bytes.Clone(now)
	piece := []int{1, 8, 64, 512}[c.roll(4)]
	for at := 0; at < len(torn); at += piece {
		if end := min(at+piece, len(torn)); c.roll(2) == 0 {
			copy(torn[at:end], old[at:end])
		}
	}
	for i, n := range logFiles(c.dir) {
		if n == name {
			files[i] = torn
		}
	}
	c.note("torn", files, spans)
}

// history runs batches on a few queues and checks the images that are taken meanwhile.
type history struct {
	t      *testing.T
	roll   dice
	o      Options
	c      *crasher
	db     *DB
	queues []store.Queue
	models []store.Queue
	draws  []*drawer
	states [][]seen // of each queue, after each of its batches

	mu    sync.Mutex // guards spans
	spans []reach
	done  chan error
}

func newHistory(t *testing.T, seed uint64) *history {
	r := rand.New(rand.NewPCG(seed, 1))
	disk := rand.New(rand.NewPCG(seed, 2))
	h := &history{t: t, roll: r.IntN, done: make(chan error, 3)}
	h.c = &crasher{dir: t.TempDir(), roll: disk.IntN, logs: map[string][]byte{}, at: h.now}
	h.o = h.c.options(logged)
	h.o.LogBytes = 2048 + 1024*h.roll(3)
	h.o.limits.directSize = 1000
	large := []int{0, 40, 10}[h.roll(3)]
	model := store.NewMemory(nil)
	t.Cleanup(func() { model.Close() })
	for i := range 1 + h.roll(3) {
		h.models = append(h.models, storetest.Queue(t, model, fmt.Sprint(i)))
		h.draws = append(h.draws, &drawer{roll: h.roll, large: large})
		h.states = append(h.states, []seen{mustLook(t, h.models[i])})
		h.spans = append(h.spans, reach{})
	}
	h.open()
	return h
}

func (h *history) open() {
	h.db = mustOpen(h.t, h.c.dir, h.o)
	h.queues = nil
	for i := range h.models {
		h.queues = append(h.queues, storetest.Queue(h.t, h.db, fmt.Sprint(i)))
	}
}

func (h *history) now() []reach {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]reach{}, h.spans...)
}

// step submits a batch to some of the queues and waits for all.
func (h *history) step() {
	under := 0
	for i, q := range h.queues {
		if len(h.queues) > 1 && h.roll(3) == 0 {
			continue
		}
		ops := h.draws[i].batch()
		storetest.Commit(h.t, h.models[i], ops...)
		h.states[i] = append(h.states[i], mustLook(h.t, h.models[i]))
		h.mu.Lock()
		h.spans[i].submitted++
		h.mu.Unlock()
		under++
		q.Submit(&store.Batch{Ops: ops, Done: func(err error) {
			h.mu.Lock()
			h.spans[i].told++
			h.mu.Unlock()
			h.done <- err
		}})
	}
	for range under {
		if err := <-h.done; err != nil {
			h.t.Fatalf("batch: %v", err)
		}
	}
}

// still takes an image while nothing is under way but, perhaps, a round.
func (h *history) still(what string) {
	h.c.mu.Lock()
	defer h.c.mu.Unlock()
	h.c.take(what)
}

// check opens each image, some with a log and some without, and some twice.
func (h *history) check() {
	for _, c := range h.c.images {
		dir := h.t.TempDir()
		for i, name := range logFiles(dir) {
			if err := os.WriteFile(name, c.files[i], 0o600); err != nil {
				h.t.Fatal(err)
			}
		}
		for range 1 + h.roll(2) {
			h.checkOpen(c, dir)
		}
	}
	h.c.images = nil
}

func (h *history) checkOpen(c crash, dir string) {
	o := (&crasher{dir: dir, logs: map[string][]byte{}}).options(logged)
	o.LogBytes = []int{h.o.LogBytes, noLog}[h.roll(2)]
	opened, err := Open(dbPath(dir), o)
	if err != nil {
		h.t.Fatalf("%s: %v", c.what, err)
	}
	defer opened.Close()
	for i, s := range c.spans {
		got := mustLook(h.t, storetest.Queue(h.t, opened, fmt.Sprint(i)))
		best := ""
		for n := s.told; n <= s.submitted; n++ {
			d := diffSeen(h.states[i][n], got)
			if best = d; d == "" {
				break
			}
		}
		if best != "" {
			h.t.Fatalf("%s: queue %d with %d of %d batches told (-submitted +found)\n%s", c.what, i, s.told, s.submitted, best)
		}
	}
}

// TestCrash: at whatever moment the machine stops, the files hold what was told done, and beyond it at most what was under way,
// wholly or not at all.
func TestCrash(t *testing.T) {
	seeds := uint64(6)
	if testing.Short() {
		seeds = 3
	}
	kinds := map[string]int{}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			h := newHistory(t, seed)
			for range 3 {
				h.c.mu.Lock()
				h.c.random = true
				h.c.mu.Unlock()
				for range 25 {
					h.step()
					if h.roll(8) == 0 {
						h.still("told")
					}
				}
				h.c.mu.Lock()
				h.c.random = h.roll(2) == 0 // also while it closes
				h.c.mu.Unlock()
				if h.roll(3) > 0 {
					if err := h.db.Close(); err != nil {
						t.Fatal(err)
					}
					h.still("closed")
					h.open()
					h.still("opened")
				}
				for _, c := range h.c.images {
					kinds[c.what]++
				}
				h.check()
			}
			for i, q := range h.queues {
				if d := diffSeen(h.states[i][len(h.states[i])-1], mustLook(t, q)); d != "" {
					t.Errorf("at the end (-submitted +found)\n%s", d)
				}
			}
		})
	}
	for _, what := range []string{"told", "before a write", "after a commit", "torn", "closed", "opened"} {
		if kinds[what] < 3 && !testing.Short() {
			t.Errorf("only %d images %s", kinds[what], what)
		}
	}
	t.Logf("images: %v", kinds)
}
