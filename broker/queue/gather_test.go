package queue

import (
	"fmt"
	"testing"
	"time"

	"stint/store"
)

// usually gives a queue whose processor has just answered an item 200 microseconds after it came.
func usually(t *testing.T) *world {
	w := atWork(t, Config{})
	w.advance(200 * time.Microsecond)
	w.answer("s1", 1, "x")
	w.want("r.s1: final x")
	return w
}

// written says whether an item has ever been on disk.
func (w *world) written(name string) bool {
	_, ever := w.m.ever[w.id(name)]
	return ever
}

func TestAnItemThatIsAnsweredAsSoonAsUsualIsNotWritten(t *testing.T) {
	w := usually(t)
	w.send("s2")
	w.want("p1: work s2 #1")
	w.advance(100 * time.Microsecond)
	w.answer("s2", 1, "done")
	w.want("r.s2: final done", "a.s2: accepted s2")
	w.advance(time.Second)
	if w.written("s2") {
		t.Error("s2 was written although it was answered at once")
	}
}

func TestAnItemThatIsNotAnsweredAsSoonAsUsualIsWritten(t *testing.T) {
	w := usually(t)
	patience := w.q.patience()
	w.send("s2")
	w.want("p1: work s2 #1")
	w.advance(patience - time.Microsecond)
	w.want()
	w.advance(time.Microsecond)
	w.want("a.s2: accepted s2")
	if r := w.m.items[w.id("s2")]; r.Place.Area != store.Ready {
		t.Errorf("s2 was accepted and stands in %v", r.Place)
	}
}

// What is due to be written does not take with it what came after and may yet be answered.
func TestOnlyWhatHasWaitedLongEnoughIsWritten(t *testing.T) {
	w := usually(t)
	w.register("p2", 1)
	patience := w.q.patience()
	w.said = nil
	w.send("slow")
	w.advance(patience - 10*time.Microsecond)
	w.send("young")
	w.advance(10 * time.Microsecond)
	w.want("p1: work slow #1", "p2: work young #1", "a.slow: accepted slow")
	w.answer("young", 1, "x")
	w.want("r.young: final x", "a.young: accepted young")
	w.advance(time.Second)
	if w.written("young") {
		t.Error("young was written")
	}
}

func TestWithoutAProcessorNothingWaits(t *testing.T) {
	w := usually(t)
	w.unregister("p1")
	w.said = nil
	for n := range 20 {
		name := fmt.Sprintf("n%d", n)
		w.send(name)
		w.want("a." + name + ": accepted " + name)
	}
}

func TestTheHopeEndsWithTheProcessor(t *testing.T) {
	w := usually(t)
	w.send("s2")
	w.send("s3")
	w.want("p1: work s2 #1")
	w.gone("p1")
	w.want("a.s2: accepted s2", "a.s3: accepted s3")
}

// Processors that have become slow are not waited for any longer.
func TestTheHopeEndsWhenAnswersTakeLong(t *testing.T) {
	w := usually(t)
	w.register("p1", 100)
	for n := range 30 {
		w.send(fmt.Sprintf("n%d", n))
		w.advance(2 * quickAnswer)
	}
	w.said = nil
	w.send("s2")
	w.want("p1: work s2 #1", "a.s2: accepted s2")
}

func TestAFullStoreRefusesWhatHopes(t *testing.T) {
	w := usually(t)
	w.send("leased")
	w.send("waits")
	w.want("p1: work leased #1")
	w.full = true
	w.do(Stored{Err: store.ErrFull})
	w.want("a.waits: error disk_full", "r.waits: error disk_full")
	w.answer("leased", 1, "x")
	w.want("r.leased: final x", "a.leased: accepted leased")
}

func TestWhenTheStoreBreaksTheOutcomeOfWhatHopesIsOpen(t *testing.T) {
	w := usually(t)
	w.send("s2")
	w.want("p1: work s2 #1")
	w.do(Stored{Err: store.ErrUnknown})
	w.want("a.s2: error unconfirmed", "r.s2: error unconfirmed")
}

func TestAStopWritesWhatHopes(t *testing.T) {
	w := usually(t)
	w.send("s2")
	w.want("p1: work s2 #1")
	w.do(Drain{})
	w.want("a.s2: accepted s2")
}

// While answers flow, batches come at a pace.
func TestAFlowOfAnswersSetsThePace(t *testing.T) {
	w := usually(t)
	w.register("p1", 100)
	for n := range flowAnswers + 1 {
		w.send(fmt.Sprintf("n%d", n))
		w.advance(2 * quickAnswer)
	}
	var answers []Event
	for n := range flowAnswers {
		answers = append(answers, w.answered(fmt.Sprintf("n%d", n), 1, "x", nil, ""))
	}
	w.do(answers...)
	w.said = nil
	w.send("s2")
	w.answer(fmt.Sprintf("n%d", flowAnswers), 1, "x")
	w.want("p1: work s2 #1")
	w.advance(pace - time.Microsecond)
	w.want()
	w.advance(time.Microsecond)
	w.want("a.s2: accepted s2", fmt.Sprintf("r.n%d: final x", flowAnswers))
}

// A sender that waits for each reply before it sends again needs no disk, however long it goes on. Only the record of the
// item before, which was written, and then of its reply must go.
func TestOneAtATimeIsNotWritten(t *testing.T) {
	w := usually(t)
	for n := range 100 {
		name := fmt.Sprintf("n%d", n)
		w.advance(pace / 4)
		w.send(name)
		w.want("p1: work " + name + " #1")
		w.advance(150 * time.Microsecond)
		w.answer(name, 1, "x")
		w.said = nil
		if w.written(name) {
			t.Errorf("%s was written", name)
		}
	}
}

// burst gives a queue that has written batches of n items, each of which took 500 microseconds.
func burst(t *testing.T, n int) *world {
	w := testWorld(t, Config{})
	w.auto = false
	for range 100 {
		var all []Event
		for range n {
			all = append(all, w.sent("x"))
		}
		w.do(all...)
		w.advance(500 * time.Microsecond)
		w.commit(nil)
	}
	w.said = nil
	return w
}

func TestASmallBatchAfterALargeOneWaitsForCompany(t *testing.T) {
	w := burst(t, crowd)
	for n := range crowd/2 - 1 {
		w.send(fmt.Sprintf("c%d", n))
	}
	if w.batch != nil {
		t.Fatal("nothing waited")
	}
	w.send("enough")
	if w.batch == nil || len(w.batch.Ops) != crowd/2 {
		t.Fatal("half as many as before did not leave")
	}
}

func TestCompanyIsNotWaitedForLongerThanAWriteTakes(t *testing.T) {
	w := burst(t, crowd)
	w.auto = true
	w.send("alone")
	w.advance(400 * time.Microsecond)
	w.want()
	w.advance(maxCompany - 400*time.Microsecond)
	w.want("a.alone: accepted alone")
	w.send("next")
	w.want("a.next: accepted next")
}

func TestASmallBatchAfterASmallOneDoesNotWait(t *testing.T) {
	w := burst(t, crowd-1)
	w.auto = true
	w.send("alone")
	w.want("a.alone: accepted alone")
}

func TestTooManyHopes(t *testing.T) {
	w := usually(t)
	w.send("held")
	var out Out
	for range maxPendingOps/4 - 2 {
		w.q.Step(w.now, &Sent{}, &out)
	}
	if w.q.Take(w.now) != nil {
		t.Fatal("nothing hopes")
	}
	w.q.Step(w.now, &Sent{}, &out)
	if w.q.Take(w.now) == nil {
		t.Error("there is no bound to what hopes")
	}
}

func TestARegistrationDoesNotWaitForAHope(t *testing.T) {
	w := usually(t)
	w.send("s2")
	w.register("p2", 1)
	w.want("p1: work s2 #1", "reg.p2: ok")
}

// A hope ends in its time, though what has to be written would wait longer.
func TestAHopeIsNotDrawnOut(t *testing.T) {
	w := usually(t)
	w.send("s2")
	w.q.lastTake = w.now
	w.q.replyDrops = append(w.q.replyDrops, 1)
	if got, want := w.q.gatherUntil().Sub(w.now), w.q.patience(); got != want || want >= dropPace {
		t.Errorf("the next batch waits for %v, the item for %v", got, want)
	}
}

func TestPatience(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name         string
		usual, write time.Duration
		written, mem int
		flows        bool
		want         time.Duration
	}{
		{"nothing is known", 0, 0, 0, 0, true, 0},
		{"alone and quick", ms, 0, 0, 0, false, 3 * ms},
		{"alone", ms + 1, 10 * ms, 100, 100, false, 0},
		{"flow", quickAnswer, 0, 0, 0, true, 3 * quickAnswer},
		{"slow flow", quickAnswer + 1, ms, 100, 100, true, 0},
		{"as slow as the disk", 9 * ms, 9 * ms, 100, 50, true, 27 * ms},
		{"the disk has more to write", 18 * ms, 9 * ms, 100, 200, true, 54 * ms},
		{"slower than the disk with that", 18*ms + 1, 9 * ms, 100, 200, true, 0},
		{"much to write", 90 * ms, 9 * ms, 100, 1000, true, maxHope},
	} {
		q := testWorld(t, Config{}).q
		q.usual, q.memBytes = c.usual, c.mem
		*q.flow = Flow{write: c.write, bytes: int64(c.written), since: q.now}
		if c.flows {
			q.flow.now = flowAnswers
		}
		if got := q.patience(); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
