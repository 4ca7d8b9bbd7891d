//go:build linux && (amd64 || arm64)

package powercut

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"stint/store"
	"stint/store/bolt"
)

// A compaction replaces the whole database while it is in use, but only from 64 MiB on: too much to send through a broker
// here. So another program is recorded, that uses the engine alone: it fills the file, empties it again, and goes on
// with small items. It prints what a broker would tell its clients.
const (
	bigItems    = 70
	bigSize     = 1 << 20
	bigBatch    = 10
	smallItems  = 24
	compactCuts = 400 // of the ordinary run
)

// engineFacts is what that program does; both processes work it out.
func engineFacts() facts {
	f := facts{Path: database, Queues: []string{"q"}}
	for n := range bigItems + smallItems {
		it := item{
			N: n, ID: 1<<idEpochShift + uint64(n) + 1, Fate: fateNever,
			Accepts: []string{fmt.Sprintf("%s.a.%d", noticePrefix, n)},
			Reply:   fmt.Sprintf("%s.f.%d", noticePrefix, n),
			Body:    fmt.Appendf(nil, "item %d", n),
			Answer:  fmt.Appendf(nil, "answer to %d", n),
		}
		if n < bigItems {
			it.Fate = fateDone
			it.Body = append(it.Body, make([]byte, bigSize)...)
		}
		f.Items = append(f.Items, it)
	}
	return f
}

// engineRun is that program.
type engineRun struct {
	q     store.Queue
	out   io.Writer
	items []item
}

func runEngine(path string, out io.Writer) error {
	db, err := bolt.Open(path, bolt.Options{LogBytes: 64 << 10}) // so that its files change places often
	if err != nil {
		return err
	}
	q, err := db.Queue("q")
	if err != nil {
		return err
	}
	if _, err := q.Load(); err != nil {
		return err
	}
	fmt.Fprintln(out, "stint ready: none")
	e := &engineRun{q: q, out: out, items: engineFacts().Items}
	if err := e.run(); err != nil {
		return err
	}
	return db.Close()
}

func (e *engineRun) run() error {
	for n := 0; n < bigItems; n += bigBatch {
		if err := e.put(n, n+bigBatch); err != nil {
			return err
		}
	}
	half := bigItems + smallItems/2
	if err := e.put(bigItems, half); err != nil {
		return err
	}
	for n := 0; n < bigItems; n += bigBatch {
		if err := e.finish(n, n+bigBatch); err != nil {
			return err
		}
	}
	for n := half; n < len(e.items); n++ {
		if err := e.put(n, n+1); err != nil {
			return err
		}
	}
	return nil
}

var ready = store.Place{Area: store.Ready}

// put stores items and then tells of it.
func (e *engineRun) put(from, to int) error {
	var ops []store.Op
	for i := from; i < to; i++ {
		it := &e.items[i]
		ops = append(ops, store.Op{Kind: store.OpPut, Record: &store.Record{
			Item: store.Item{ID: it.ID, Reply: it.Reply, Body: it.Body}, Place: ready,
		}})
	}
	return e.submit(ops, e.items[from:to], func(it *item) string { return it.Accepts[0] })
}

// finish puts replies in the place of items, tells of them, and then removes them.
func (e *engineRun) finish(from, to int) error {
	var ops, later []store.Op
	for i := from; i < to; i++ {
		it := &e.items[i]
		size := (&store.Item{Reply: it.Reply, Body: it.Body}).Size()
		ops = append(ops,
			store.Op{Kind: store.OpDelete, ID: it.ID, From: ready, Size: size},
			store.Op{Kind: store.OpPutReply, Reply: &store.Reply{ID: it.ID, Subject: it.Reply, Body: it.Answer}})
		later = append(later, store.Op{Kind: store.OpDeleteReply, ID: it.ID})
	}
	if err := e.submit(ops, e.items[from:to], func(it *item) string { return it.Reply }); err != nil {
		return err
	}
	return e.submit(later, nil, nil)
}

func (e *engineRun) submit(ops []store.Op, of []item, subject func(*item) string) error {
	done := make(chan error, 1)
	e.q.Submit(&store.Batch{Ops: ops, Done: func(err error) { done <- err }})
	if err := <-done; err != nil {
		return err
	}
	for i := range of {
		if _, err := fmt.Fprintf(e.out, "MSG %s \n", subject(&of[i])); err != nil {
			return err
		}
	}
	return nil
}

// recordEngine runs that program under the tracer.
func recordEngine(work string) (*recording, error) {
	s, err := newSession("", work, 0, "q")
	if err != nil {
		return nil, err
	}
	if err := s.role("engine", filepath.Join(s.root, database)); err != nil {
		return nil, err
	}
	s.facts = engineFacts()
	s.phases = s.compactionPhases()
	return s.recording()
}

// compactionPhases finds the compaction in the log, by the file it makes.
func (s *session) compactionPhases() []phase {
	ps := []phase{{Name: "before the compaction"}}
	for i := range s.rec.ops {
		switch o := &s.rec.ops[i]; {
		case o.Kind == opCreate && strings.HasSuffix(o.Name, ".compact"):
			ps = append(ps, phase{"the compaction", i, true})
		case o.Kind == opRename && strings.HasSuffix(o.Name, ".compact"):
			ps = append(ps, phase{"the end of the compaction", i, true}, phase{"after the compaction", min(i+12, len(s.rec.ops)), false})
		}
	}
	return ps
}

// TestCompaction cuts the power while the database is replaced by a smaller copy.
func TestCompaction(t *testing.T) {
	seed := chosenSeed(t)
	r := recorded(t, "engine", "alone", seed)
	if len(r.Phases) != 4 {
		t.Fatalf("the recorded run has %d compactions, it should have one: %v", (len(r.Phases)-1)/3, r.Phases)
	}
	if rep := cutAll(t, r, seed, cutsOr(compactCuts)); len(rep.kinds) > 0 {
		t.Error("the engine broke its word: see the verdicts above")
	}
}
