package pool

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"stint/processor"
)

// stageHand is the world of a roster: it notes what the roster wants done.
type stageHand struct {
	t        rapid.TB
	r        *roster
	now      time.Time
	log      *logBook
	signals  []string
	finished map[int]bool
	lines    map[int]int // written to each child
	settled  map[*item]result
	next     int
}

func newStageHand(t rapid.TB, o Options) *stageHand {
	h := &stageHand{
		t: t, now: time.Unix(1_800_000_000, 0), log: &logBook{}, finished: map[int]bool{}, lines: map[int]int{},
		settled: map[*item]result{},
	}
	o.Address, o.Command, o.Logger = testQueue, []string{"x"}, slog.New(slog.NewTextHandler(h.log, nil))
	h.r = &roster{}
	h.r = newRoster(o.withDefaults(), h, h.now)
	return h
}

func (h *stageHand) start(*child) {}
func (h *stageHand) write(c *child, line []byte) {
	if h.finished[c.n] {
		h.t.Fatalf("child %d is written to after the end", c.n)
	}
	h.lines[c.n]++
}
func (h *stageHand) finish(c *child) { h.finished[c.n] = true }
func (h *stageHand) signal(c *child, sig syscall.Signal) {
	h.signals = append(h.signals, fmt.Sprintf("%d %d", c.n, int(sig)))
}

func (h *stageHand) settle(it *item, r result) {
	if _, again := h.settled[it]; again {
		h.t.Fatalf("item %s is settled twice", it.work.Item)
	}
	h.settled[it] = r
}
func (h *stageHand) progress(*item, []byte) {}

// pass lets time pass, with the ticks that the roster asks for.
func (h *stageHand) pass(d time.Duration) {
	end := h.now.Add(d)
	for range 10_000 {
		if h.r.wake.IsZero() || h.r.wake.After(end) {
			h.now = end
			return
		}
		if h.r.wake.After(h.now) {
			h.now = h.r.wake
		}
		h.r.tick(h.now)
	}
	h.t.Fatal("the roster ticks for ever")
}

func (h *stageHand) item(id string) *item {
	if id == "" {
		h.next++
		id = fmt.Sprint(h.next)
	}
	w := &processor.Work{Item: id, Address: testQueue, Attempt: 1}
	it := &item{work: w, timeout: h.r.o.Timeout, done: make(chan result, 1)}
	it.line, it.limit = appendWork(nil, w, it.timeout > 0)
	return it
}

func (h *stageHand) arrive(id string) *item {
	it := h.item(id)
	h.r.arrive(h.now, it)
	return it
}

func (h *stageHand) child(n int) *child {
	for _, c := range h.r.children {
		if c.n == n {
			return c
		}
	}
	h.t.Fatalf("there is no child %d: %v", n, h.numbers())
	return nil
}

func (h *stageHand) numbers() (all []int) {
	for _, c := range h.r.children {
		all = append(all, c.n)
	}
	return all
}

func (h *stageHand) says(n int, kind answerKind) {
	h.r.answers(h.now, h.child(n), []answer{{kind: kind}})
}

var errEnded = errors.New("the child ended with exit code 3")

// dies ends a child that has read everything.
func (h *stageHand) dies(n int) { h.r.gone(h.now, h.child(n), errEnded, 1<<40) }

func (h *stageHand) want(what string, got, want any) {
	if g, w := fmt.Sprint(got), fmt.Sprint(want); g != w {
		if t, ok := h.t.(interface{ Helper() }); ok {
			t.Helper()
		}
		h.t.Errorf("%s: got %s, want %s", what, g, w)
	}
}

func TestTimeLimitEndsTheChildInSteps(t *testing.T) {
	h := newStageHand(t, Options{Children: 1, Timeout: 5 * time.Minute, ExitTimeout: 2 * time.Second})
	it := h.arrive("")
	h.pass(5*time.Minute - time.Millisecond)
	h.want("before", h.signals, "[]")
	h.pass(time.Millisecond)
	h.want("at the limit", h.signals, "[1 15]")
	h.pass(2*time.Second - time.Millisecond)
	h.want("before SIGKILL", h.signals, "[1 15]")
	h.pass(time.Millisecond)
	h.want("then", h.signals, "[1 15 1 9]")
	h.want("not settled while the child is there", len(h.settled), 0)
	h.dies(1)
	h.want("the reason", h.settled[it].err, "no answer from the child after 5m0s")
	h.want("another child", h.numbers(), "[2]")
}

func TestTimeCountsFromAnItemsTurn(t *testing.T) {
	h := newStageHand(t, Options{Children: 1, Ahead: 2, Timeout: time.Minute})
	h.arrive("")
	second := h.arrive("")
	h.pass(50 * time.Second)
	h.says(1, answerDone)
	h.pass(59 * time.Second)
	h.want("in its own minute", h.signals, "[]")
	h.says(1, answerExtend)
	h.pass(59 * time.Second)
	h.says(1, answerProgress)
	h.pass(59 * time.Second)
	h.want("and another after a sign of life", h.signals, "[]")
	h.pass(time.Second)
	h.want("then", h.signals, "[1 15]")
	h.says(1, answerDone) // it may still be the first
	h.want("a late answer counts", h.settled[second].err, nil)
	h.dies(1)
	h.want("failed", h.r.counts.failed, 0)
}

func TestUnreadItemsGoToAnotherChildUncounted(t *testing.T) {
	h := newStageHand(t, Options{Children: 1, Ahead: 3})
	h.says(1, answerReady)
	items := []*item{h.arrive(""), h.arrive(""), h.arrive("")}
	h.r.gone(h.now, h.child(1), errEnded, items[0].from) // it has read the start line and no more
	h.want("nothing is settled", len(h.settled), 0)
	h.want("all are with the next", h.child(2).held[0] == items[0] && len(h.child(2).held) == 3, true)
	h.says(2, answerReady)
	h.r.gone(h.now, h.child(2), errEnded, items[0].from+1)
	h.want("the one that was read has failed", h.settled[items[0]].err, errEnded)
	h.want("only that one", len(h.settled), 1)
}

func TestGuiltIsOfTheItemInHand(t *testing.T) {
	h := newStageHand(t, Options{Children: 1, Ahead: 2})
	first, second := h.arrive(""), h.arrive("")
	h.r.unfit(h.now, h.child(1), errors.New("the child wrote nonsense"))
	h.dies(1)
	h.want("the first", h.settled[first].err, "the child wrote nonsense")
	h.want("the second waits for another child", second.child.n, 2)
}

func TestBackoffOfChildrenThatDieAtOnce(t *testing.T) {
	h := newStageHand(t, Options{Children: 4, MinChildren: 4})
	for n := 1; n <= 4; n++ {
		h.dies(n)
	}
	h.want("none at once", h.numbers(), "[]")
	var waits []time.Duration
	for n := 5; n < 17; n++ {
		before := h.now
		for len(h.r.children) == 0 {
			h.pass(100 * time.Millisecond)
			if h.now.Sub(before) > time.Hour {
				t.Fatal("no child is tried any more")
			}
		}
		waits = append(waits, h.now.Sub(before))
		h.want("one at a time, without work", fmt.Sprint(h.numbers(), h.child(n).state), fmt.Sprintf("[%d] %d", n, starting))
		h.dies(n)
	}
	h.want("the waits", waits, "[800ms 1.6s 3.2s 6.4s 12.8s 25.6s 30s 30s 30s 30s 30s 30s]")
	if n := strings.Count(h.log.String(), "a child has ended"); n > 5 {
		t.Errorf("said %d times in four minutes", n)
	}
	it := h.arrive("")
	h.want("an item goes back meanwhile", h.settled[it].err, "the item is given back")
	h.pass(30 * time.Second)
	h.says(17, answerReady)
	it = h.arrive("")
	h.says(17, answerDone)
	h.want("done", h.settled[it].err, nil)
	h.want("all are back", len(h.numbers()), 4)
}

// A program whose children die at once, and an item that waits for one: few starts, fewer attempts, one line in the log.
func TestCrashLoopBacksOff(t *testing.T) {
	h := newStageHand(t, Options{Children: 4, MinChildren: 4})
	h.arrive("a")
	for end := h.now.Add(2 * time.Second); h.now.Before(end); h.pass(10 * time.Millisecond) {
		for _, n := range h.numbers() {
			h.dies(n)
		}
		if len(h.settled) > 0 && len(h.r.waiting) == 0 { // the broker gives it out again
			h.arrive("a")
		}
	}
	h.want("children that were started in two seconds", h.r.last, 5)
	h.want("attempts that were spent", h.r.counts.failed, 1)
	h.want("lines in the log", strings.Count(h.log.String(), "a child has ended"), 1)
}

func TestDeathsOfGoodChildrenAreFreeForAWhile(t *testing.T) {
	h := newStageHand(t, Options{Children: 2, MaxKills: -1})
	for n := 1; n <= 3; n++ {
		h.says(h.numbers()[0], answerReady)
		h.arrive("")
		h.dies(h.numbers()[0])
		h.want("two at once", len(h.numbers()), 2)
	}
	for h.says(h.numbers()[0], answerReady); len(h.r.children) > 1; {
		h.dies(h.numbers()[0])
	}
	h.want("then not", h.r.notBefore.After(h.now), true)
}

func TestItemThatKillsIsRejected(t *testing.T) {
	h := newStageHand(t, Options{Children: 1, MaxKills: 3})
	var last *item
	for n := 1; n <= 3; n++ {
		h.pass(time.Minute)
		last = h.arrive("bad")
		h.dies(last.child.n)
	}
	h.want("the third time", h.settled[last].err, "the item ended 3 children in a row: the child ended with exit code 3")
	h.want("forgotten", len(h.r.suspects.kills), 0)
}

func TestKillsInARowOnly(t *testing.T) {
	h := newStageHand(t, Options{Children: 1, MaxKills: 2})
	for range 3 {
		h.pass(time.Minute)
		it := h.arrive("bad")
		h.dies(it.child.n)
		h.want("an attempt", h.settled[it].err, errEnded)
		h.pass(time.Minute)
		it = h.arrive("bad")
		h.pass(time.Minute)
		h.says(it.child.n, answerFailed)
	}
}

func TestMemoryOfAChild(t *testing.T) {
	h := newStageHand(t, Options{Children: 1, MaxMemory: 1000})
	it := h.arrive("")
	h.r.measured(h.now, h.child(1), 1000)
	h.want("at the limit", h.child(1).state, working)
	h.r.measured(h.now, h.child(1), 1500)
	h.want("above it", h.child(1).state, retiring)
	h.want("it may finish", h.signals, "[]")
	h.r.measured(h.now, h.child(1), 1501)
	h.want("half as much again", h.signals, "[1 9]")
	h.dies(1)
	h.want("an attempt", h.settled[it].err != nil, true)
}

func TestSuspectsAreBounded(t *testing.T) {
	s := suspects{kills: map[string]int{}}
	for i := range 3 * maxSuspects {
		s.add(fmt.Sprint(i))
	}
	if len(s.kills) > maxSuspects || len(s.order) > maxSuspects {
		t.Errorf("%d, %d", len(s.kills), len(s.order))
	}
}

func TestReplacementWaitsForAGoodSign(t *testing.T) {
	h := newStageHand(t, Options{Children: 2})
	h.says(1, answerReady)
	h.says(2, answerReady)
	h.r.replaceAll(h.now, "test")
	h.want("one more", h.numbers(), "[1 2 3]")
	h.pass(29 * time.Second)
	h.want("it has not said ready", h.numbers(), "[1 2 3]")
	h.want("and has no work", h.child(3).room(1, 0), 0)
	it := h.arrive("")
	h.want("the old ones work", it.child.n, 1)
	h.says(3, answerReady)
	h.want("the first old one finishes what it holds", h.child(1).state, retiring)
	h.want("the next replacement", h.numbers(), "[1 2 3 4]")
	h.says(1, answerDone)
	h.want("and ends", h.finished[1], true)
	h.dies(4)
	h.want("the rest stays", h.child(2).state, working)
	h.want("no streak", h.r.streak, 0)
}

func TestDrainGivesBackWhatWaits(t *testing.T) {
	h := newStageHand(t, Options{Children: 1})
	first, second := h.arrive(""), h.arrive("")
	h.r.drain(h.now)
	h.want("what waits goes back", h.settled[second].err, "the item is given back")
	h.says(1, answerDone)
	h.want("what is in hand is finished", h.settled[first].err, nil)
	h.want("then the child ends", h.finished[1], true)
	third := h.arrive("")
	h.want("nothing new", h.settled[third].err, "the item is given back")
	h.pass(time.Minute)
	h.want("with force at last", h.signals, "[1 15 1 9]")
	h.dies(1)
	h.want("nobody is left", h.numbers(), "[]")
}

// The youngest are killed first: the guard lets them wait for others to end, and would start them when those do.
func TestAbortKillsTheYoungestFirst(t *testing.T) {
	h := newStageHand(t, Options{Children: 3, MinChildren: 3})
	h.want("children", h.numbers(), "[1 2 3]")
	for range 3 {
		h.arrive("")
	}
	h.r.abort(h.now)
	h.want("killed", h.signals, "[3 9 2 9 1 9]")
}

// Whatever happens in whatever order: each item is settled once, children hold no more than they may, and in the end nothing is
// left.
func TestRosterAtRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Options{
			Children: rapid.IntRange(1, 4).Draw(t, "children"), Ahead: rapid.IntRange(1, 3).Draw(t, "ahead"),
			MinChildren: rapid.SampledFrom([]int{-1, 0, 1}).Draw(t, "min"), MaxUseCount: rapid.SampledFrom([]int{0, 1, 4}).Draw(t, "uses"),
			IdleTimeout: rapid.SampledFrom([]time.Duration{0, time.Second}).Draw(t, "idle"), Timeout: 2 * time.Second,
			MaxMemory: 1000,
		}
		h := newStageHand(t, o)
		var items []*item
		pick := func() *child {
			if len(h.r.children) == 0 {
				return nil
			}
			return rapid.SampledFrom(h.r.children).Draw(t, "child")
		}
		actions := map[string]func(*rapid.T){
			"arrive": func(*rapid.T) { items = append(items, h.arrive("")) },
			"pass":   func(t *rapid.T) { h.pass(time.Duration(rapid.IntRange(1, 3000).Draw(t, "ms")) * time.Millisecond) },
			"says": func(t *rapid.T) {
				if c := pick(); c != nil && c.state != stopping {
					kind := rapid.SampledFrom([]answerKind{answerReady, answerDone, answerFailed, answerExtend, answerProgress}).Draw(t, "kind")
					if len(c.held) > 0 || kind == answerReady {
						h.says(c.n, kind)
					}
				}
			},
			"dies": func(t *rapid.T) {
				if c := pick(); c != nil {
					h.r.gone(h.now, c, errEnded, rapid.Int64Range(0, c.written).Draw(t, "read"))
				}
			},
			"unfit": func(*rapid.T) {
				if c := pick(); c != nil {
					h.r.unfit(h.now, c, errEnded)
				}
			},
			"measured": func(t *rapid.T) {
				if c := pick(); c != nil {
					h.r.measured(h.now, c, rapid.Int64Range(0, 2000).Draw(t, "bytes"))
				}
			},
			"abandon": func(t *rapid.T) {
				if len(items) > 0 {
					cause := rapid.SampledFrom([]error{processor.ErrLeaseLost, processor.ErrShutdown}).Draw(t, "cause")
					h.r.abandon(h.now, rapid.SampledFrom(items).Draw(t, "item"), cause)
				}
			},
			"reload": func(*rapid.T) { h.r.replaceAll(h.now, "test") },
			"":       func(t *rapid.T) { h.check(t, items) },
		}
		t.Repeat(actions)
		h.r.drain(h.now)
		h.r.abort(h.now)
		for len(h.r.children) > 0 {
			h.dies(h.r.children[0].n)
			h.check(t, items)
		}
		if len(h.settled) != len(items) {
			t.Fatalf("%d of %d items are settled", len(h.settled), len(items))
		}
	})
}

// check walks what must always hold.
func (h *stageHand) check(t *rapid.T, items []*item) {
	o := &h.r.o
	if live := h.r.live(); live > o.Children+1 {
		t.Fatalf("%d children get work", live)
	}
	if len(h.r.children) > 2*o.Children+1 {
		t.Fatalf("%d children", len(h.r.children))
	}
	where := map[*item]int{}
	for _, it := range h.r.waiting {
		where[it]++
	}
	for _, c := range h.r.children {
		if len(c.held) > o.Ahead {
			t.Fatalf("child %d holds %d", c.n, len(c.held))
		}
		for _, it := range c.held {
			where[it]++
			if it.child != c {
				t.Fatalf("item %s thinks that it is elsewhere", it.work.Item)
			}
		}
		if c.state == stopping && len(c.held) > 0 {
			t.Fatalf("child %d stops with %d items", c.n, len(c.held))
		}
	}
	for _, it := range items {
		n := where[it]
		if _, settled := h.settled[it]; settled != (n == 0) || n > 1 {
			t.Fatalf("item %s is in %d places, settled: %v", it.work.Item, n, settled)
		}
	}
	tried := slices.ContainsFunc(h.r.children, func(c *child) bool { return c.state == starting })
	if !h.r.draining && len(h.r.waiting) > 0 && h.r.live() == 0 && !tried && !h.r.notBefore.After(h.now) && len(h.r.children) <= 2*o.Children {
		t.Fatalf("items wait and nobody comes: %v", h.numbers())
	}
}
