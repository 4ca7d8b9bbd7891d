//go:build linux && (amd64 || arm64)

package powercut

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
)

// cut is the power going at a point of the log, with a part of what was not synced.
type cut struct {
	at    int
	label string
	look  *look
}

// look is the opening of an image. Cuts that leave the same image share one.
type look struct {
	img  *image // until it was looked at
	done chan struct{}
	*found
	err error
}

// cutter makes the cuts of a recording. Its maker goroutine owns rng, disk and looks.
type cutter struct {
	rec   *recording
	dir   string // for images
	rng   *rand.Rand
	disk  *disk
	looks map[uint64]*look
	open  chan *look
	cuts  chan cut
	stop  chan struct{}
}

// report is what came of the cuts.
type report struct {
	points, cuts, images int
	broken, deadly       int            // cuts with a verdict against the program, and those that end whoever opens them
	kinds                map[string]int // of verdicts
	examples             []string
	err                  error
}

// There is no point in going on after so many cuts that break a promise, or whose image ends the process that opens it.
const (
	enoughBroken = 200
	enoughDeadly = 5
)

// maxExamples is how many verdicts are told in full.
const maxExamples = 12

// cutEverywhere makes about so many cuts and judges them.
func cutEverywhere(r *recording, dir string, seed uint64, most int) *report {
	c := &cutter{
		rec: r, dir: dir, rng: rand.New(rand.NewPCG(seed, 2)), disk: newDisk(r),
		looks: map[uint64]*look{}, open: make(chan *look, 16), cuts: make(chan cut, 64), stop: make(chan struct{}),
	}
	points := c.points(most)
	var lookers sync.WaitGroup // and the maker
	for range runtime.GOMAXPROCS(0) {
		lookers.Go(c.lookAll)
	}
	lookers.Go(func() { c.makeAll(points, most) })
	rep := c.judgeAll()
	close(c.stop)
	lookers.Wait()
	rep.points, rep.images = len(points), len(c.looks)
	return rep
}

// points chooses where to cut: everywhere if there is room for at least two cuts at each point; otherwise at
// every point of the parts that ask for it, then beside every fsync, and then at random.
func (c *cutter) points(most int) []int {
	order := c.rng.Perm(len(c.rec.Ops) + 1)
	rank := func(k int) int {
		switch {
		case c.rec.phaseAt(k).Every:
			return 0
		case c.besideSync(k):
			return 1
		}
		return 2
	}
	slices.SortStableFunc(order, func(a, b int) int { return rank(a) - rank(b) })
	order = order[:min(len(order), max(1, most/2))]
	slices.Sort(order)
	return order
}

func (c *cutter) besideSync(k int) bool {
	for i := max(0, k-1); i < min(k+1, len(c.rec.Ops)); i++ {
		if c.rec.Ops[i].Kind == opSync {
			return true
		}
	}
	return false
}

// makeAll makes the cuts in the order of the log, sharing what is left of the number among the points that remain.
func (c *cutter) makeAll(points []int, most int) {
	defer close(c.open)
	defer close(c.cuts)
	made := 0
	for i, k := range points {
		c.disk.advance(k)
		share := max(2, (most-made)/(len(points)-i))
		n, ok := c.makeAt(k, share)
		if !ok {
			return
		}
		made += n
	}
}

// makeAt makes at most so many different cuts at a point.
func (c *cutter) makeAt(k, most int) (int, bool) {
	pending := c.disk.pending()
	seen := map[uint64]bool{}
	for try := 0; len(seen) < most && try < 2*most+2; try++ {
		label, choose := c.choose(try, pending)
		if choose == nil {
			break
		}
		img := c.disk.image(choose)
		sum := img.sum()
		if seen[sum] {
			continue
		}
		seen[sum] = true
		l := c.looks[sum]
		if l == nil {
			l = &look{img: img, done: make(chan struct{})}
			c.looks[sum] = l
			if !send(c.open, l, c.stop) {
				return 0, false
			}
		}
		if !send(c.cuts, cut{k, label, l}, c.stop) {
			return 0, false
		}
	}
	return len(seen), true
}

func send[T any](to chan<- T, v T, stop <-chan struct{}) bool {
	select {
	case to <- v:
		return true
	case <-stop:
		return false
	}
}

// pending is what is not durable, in the order of the log.
func (d *disk) pending() (all []int) {
	for i := range d.nodes {
		all = append(all, d.nodes[i].pending...)
	}
	slices.Sort(all)
	return all
}

// choose returns the try-th way to cut; nil: there are no more.
func (c *cutter) choose(try int, pending []int) (string, func(int, *op) choice) {
	if len(pending) == 0 && try > 0 {
		return "", nil
	}
	isName := func(o *op) bool { return o.Kind <= opUnlink }
	switch try {
	case 0:
		return "nothing un-synced kept", nothing
	case 1:
		return "everything kept", everything
	case 2:
		last := pending[len(pending)-1]
		return "only the last kept", func(at int, _ *op) choice { return choice{keep: at == last} }
	case 3:
		return "names kept, data lost", func(_ int, o *op) choice { return choice{keep: isName(o)} }
	case 4:
		return "data kept, names lost", func(_ int, o *op) choice { return choice{keep: !isName(o)} }
	case 5:
		one := pending[c.rng.IntN(len(pending))]
		return "all but one kept", func(at int, _ *op) choice { return choice{keep: at != one} }
	}
	if try%2 == 0 {
		return "some kept", c.some()
	}
	return "torn", c.torn()
}

// some keeps each operation with a chance that is the same for all of a cut.
func (c *cutter) some() func(int, *op) choice {
	chance := []float64{0.1, 0.5, 0.5, 0.9}[c.rng.IntN(4)]
	return func(int, *op) choice { return choice{keep: c.rng.Float64() < chance} }
}

// torn keeps each sector of each write with such a chance, and half of the time whole ones of 4096 bytes.
func (c *cutter) torn() func(int, *op) choice {
	chance := []float64{0.1, 0.5, 0.5, 0.9}[c.rng.IntN(4)]
	unit := []int64{1, blockSize / sectorSize}[c.rng.IntN(2)]
	return func(_ int, o *op) choice {
		if o.Kind != opWrite {
			return choice{keep: c.rng.Float64() < chance}
		}
		last, kept := int64(-1), false
		return choice{keep: true, part: func(sector int64) bool {
			if sector/unit != last {
				last, kept = sector/unit, c.rng.Float64() < chance
			}
			return kept
		}}
	}
}

func (c *cutter) lookAll() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	looker := looker{facts: &c.rec.Facts, dir: c.dir}
	for l := range c.open {
		l.found, l.err = looker.look(l.img)
		l.img = nil
		close(l.done)
	}
	_ = looker.stop() // it has told all it had to
}

func (c *cutter) judgeAll() *report {
	rep := &report{kinds: map[string]int{}}
	for cut := range c.cuts {
		<-cut.look.done
		if cut.look.err != nil {
			rep.err = cut.look.err
			return rep
		}
		rep.cuts++
		rep.take(c.rec, cut, judge(c.rec, cut.look.found, cut.at))
		if rep.broken == enoughBroken || rep.deadly == enoughDeadly {
			return rep
		}
	}
	return rep
}

func (rep *report) take(r *recording, c cut, vs []verdict) {
	if len(vs) > 0 {
		rep.broken++
	}
	if c.look.found.Deadly {
		rep.deadly++
	}
	for _, v := range vs {
		rep.kinds[v.kind]++
		if rep.kinds[v.kind] <= maxExamples/4 && len(rep.examples) < maxExamples {
			after := "nothing"
			if c.at > 0 {
				after = r.Ops[c.at-1].String()
			}
			rep.examples = append(rep.examples, fmt.Sprintf("%s: %s\n\tcut after operation %d (%s) in the phase %q, %s",
				v.kind, v.text, c.at, after, r.phaseAt(c.at).Name, c.label))
		}
	}
}

// log prints the figures.
func (rep *report) log(t *testing.T, r *recording) {
	t.Helper()
	total := 0
	for _, n := range rep.kinds {
		total += n
	}
	t.Logf("%d operations recorded in %d stops, %d notices, %d items; %d points to cut at, %d cuts made, %d different images opened; %d cuts break a promise, %d in all",
		len(r.Ops), r.Stops, len(r.Told), len(r.Facts.Items), rep.points, rep.cuts, rep.images, rep.broken, total)
	for kind, n := range rep.kinds {
		t.Logf("%6d %s", n, kind)
	}
	for _, e := range rep.examples {
		t.Log(e)
	}
}
