package queue

import (
	"fmt"
	"testing"
	"time"

	"stint/store"
)

// quick gives a queue whose processor has just answered in 200 microseconds.
func quick(t *testing.T) *world {
	w := atWork(t, Config{})
	w.advance(200 * time.Microsecond)
	w.answer("s1", 1, "x")
	w.want("r.s1: final x")
	return w
}

func TestAQuickProcessorIsWaitedFor(t *testing.T) {
	w := quick(t)
	w.send("s2")
	w.want("p1: work s2 #1")
	w.advance(100 * time.Microsecond)
	w.answer("s2", 1, "done")
	w.want("r.s2: final done", "a.s2: accepted s2")
	if _, written := w.m.ever[w.id("s2")]; written {
		t.Error("s2 was written although it was answered at once")
	}
}

func TestAProcessorThatIsNotQuickThisTimeIsWaitedForBriefly(t *testing.T) {
	w := quick(t)
	w.send("s2")
	w.want("p1: work s2 #1")
	w.advance(quickWork)
	w.want("a.s2: accepted s2")
	if r := w.m.items[w.id("s2")]; r.Place.Area != store.Ready {
		t.Errorf("s2 was accepted and stands in %v", r.Place)
	}
}

func TestWithoutAProcessorNothingWaits(t *testing.T) {
	w := quick(t)
	w.unregister("p1")
	w.said = nil
	for n := range 20 {
		name := fmt.Sprintf("n%d", n)
		w.send(name)
		w.want("a." + name + ": accepted " + name)
	}
}

// While answers flow, batches come at a pace, and an item that nobody answers waits for no more than that.
func TestAFlowOfAnswersSetsThePace(t *testing.T) {
	w := quick(t)
	for n := range paceAnswers {
		name := fmt.Sprintf("n%d", n)
		w.send(name)
		w.answer(name, 1, "x")
	}
	w.said = nil
	last := w.q.lastTake
	w.send("slow")
	w.send("waiting")
	w.want("p1: work slow #1")
	w.advance(pace - w.now.Sub(last) - time.Microsecond)
	w.want()
	w.advance(time.Microsecond)
	w.want("a.slow: accepted slow", "a.waiting: accepted waiting")
}

// A sender that waits for each reply before it sends again needs no disk, however long it goes on. Only the record of the
// item before, which was written, and then of its reply must go, and take with them what is there.
func TestOneAtATimeIsNotWritten(t *testing.T) {
	w := quick(t)
	count := 0
	for n := range 10 * paceAnswers {
		name := fmt.Sprintf("n%d", n)
		w.advance(pace / 4)
		w.send(name)
		w.want("p1: work " + name + " #1")
		w.advance(150 * time.Microsecond)
		w.answer(name, 1, "x")
		w.said = nil
		if _, written := w.m.ever[w.id(name)]; written {
			count++
		}
	}
	if count > 2 {
		t.Errorf("%d items were written", count)
	}
}
