package queue

import (
	"fmt"
	"runtime"
	"testing"
	"time"
	"weak"

	"stint/store"
	"stint/wire"
)

func TestARestartGivesOutWhatIsStoredInOrder(t *testing.T) {
	w := testWorld(t, Config{})
	for _, s := range []string{"s1", "s2", "s3"} {
		w.send(s)
	}
	w.register("p1", 3)
	w.said = nil
	w.restart()
	w.want("p1: work s1 #2", "p1: work s2 #2", "p1: work s3 #2")
}

func TestAnAnswerToALeaseFromBeforeTheRestartCounts(t *testing.T) {
	w := atWork(t, Config{})
	w.gone("p1")
	w.back("p1")
	w.restart()
	w.said = nil
	w.answer("s1", 1, "done before")
	w.want("r.s1: final done before")
}

func TestLongWorkIsNotRunTwiceByARestart(t *testing.T) {
	w := atWork(t, Config{ProcessTimeout: time.Minute})
	w.advance(leaseWriteAfter)
	w.restart()
	w.gone("p1") // it connects again
	w.send("s2")
	w.advance(reconnectGrace - time.Millisecond)
	w.back("p1")
	w.advance(30 * time.Second)
	w.want("a.s2: accepted s2")
	w.answer("s1", 1, "done")
	w.want("p1: work s2 #1", "r.s1: final done")
}

func TestLongWorkMovesOnIfItsProcessorDoesNotComeBack(t *testing.T) {
	w := atWork(t, Config{ProcessTimeout: time.Minute})
	w.register("p2", 1)
	w.advance(leaseWriteAfter)
	w.said = nil
	w.restart()
	w.gone("p1")
	w.want()
	w.advance(reconnectGrace)
	w.look()
	w.want("p2: work s1 #2")
}

func TestTheProcessTimeoutStartsAnewAtARestart(t *testing.T) {
	w := atWork(t, Config{ProcessTimeout: 10 * time.Second})
	w.register("p2", 1)
	w.advance(9 * time.Second)
	w.said = nil
	w.restart()
	w.advance(10*time.Second - time.Millisecond)
	w.want()
	w.advance(time.Millisecond)
	w.want("p2: work s1 #2")
}

// Its processor may have answered while there was no broker. If that counted as its silence, a queue with one processor
// would never go on.
func TestAnAnswerThatWasLostWithTheBrokerHoldsUpNobody(t *testing.T) {
	w := atWork(t, Config{ProcessTimeout: 10 * time.Second})
	w.advance(leaseWriteAfter)
	w.send("s2")
	w.restart()
	w.said = nil
	w.advance(10*time.Second - time.Millisecond)
	w.want()
	w.advance(time.Millisecond)
	w.want("p1: work s1 #2")
	w.answer("s1", 2, "done")
	w.want("p1: work s2 #2", "r.s1: final done")
	w.advance(10 * time.Second)
	w.send("s3")
	w.want("a.s3: accepted s3")
	if s := w.q.Stats(); s.Withheld != 1 {
		t.Errorf("%d are withheld, want the one that was silent under this broker", s.Withheld)
	}
}

func TestAStoredLeaseOfAProcessorThatHasLeft(t *testing.T) {
	w := atWork(t, Config{})
	w.advance(leaseWriteAfter)
	w.unregister("p1")
	w.restart()
	w.said = nil
	w.answer("s1", 1, "done")
	w.want("r.s1: final done")
	if len(w.q.leaving) != 0 {
		t.Error("it is still leaving")
	}
}

func TestLeaveWritesDownWhoHoldsWhat(t *testing.T) {
	w := atWork(t, Config{})
	w.do(Drain{})
	w.do(Leave{})
	if w.m.leases[w.id("s1")].Processor != "p1" || !w.q.Settled() {
		t.Fatalf("stored are %+v; settled %v", w.m.leases, w.q.Settled())
	}
	w.restart()
	w.answer("s1", 1, "done")
	w.want("r.s1: final done")
}

func TestWhatWasOutWhenTheConnectionWasLostHoldsUpNobody(t *testing.T) {
	w := testWorld(t, Config{ProcessTimeout: 10 * time.Second})
	w.register("p1", 2)
	w.send("s1")
	w.advance(10 * time.Second) // it is withheld
	w.send("s2")
	w.said = nil
	w.do(Reconnected{})
	w.want("p1: work s1 #2", "p1: work s2 #1")
	w.do(Reconnected{}) // the answers are lost again
	w.advance(10 * time.Second)
	w.want("p1: work s1 #3", "p1: work s2 #2")
}

func TestAReplyIsSentAgainIfTheConnectionIsLostSoonAfter(t *testing.T) {
	w := atWork(t, Config{})
	w.advance(leaseWriteAfter)
	w.answer("s1", 1, "done")
	w.do(Reconnected{})
	w.do(Flushed{Token: 1}) // of the connection that is gone
	w.advance(time.Second)
	w.want("r.s1: final done", "r.s1: final done (again)")
	if len(w.m.replies) != 0 {
		t.Error("it stays on record")
	}
}

func TestAReplyThatPerhapsWasPublishedIsSentAgainAndMarked(t *testing.T) {
	for _, written := range []time.Duration{0, leaseWriteAfter} {
		w := testWorld(t, Config{}, outside)
		w.async, w.auto = true, false
		w.register("p1", 1)
		w.send("s1")
		w.advance(written)
		w.answer("s1", 1, "done")
		for w.batch != nil {
			w.commit(nil)
		}
		if len(w.asked) != 1 {
			t.Fatalf("%v: %d finals are on their way", written, len(w.asked))
		}
		w.asked = nil
		w.auto = true
		w.said = nil
		w.do(Settled{Item: w.id("s1"), Outcome: Outcome{Unsure: true}})
		w.advance(time.Second)
		w.want("r.s1: final done (again)")
	}
}

func TestAReplyThatMayNotHaveArrivedIsSentAgainAndMarked(t *testing.T) {
	w := atWork(t, Config{})
	w.answer("s1", 1, "done")
	w.restart()
	w.advance(time.Second)
	w.want("r.s1: final done", "r.s1: final done (again)")
	if len(w.m.replies) != 0 {
		t.Error("it stays on record")
	}
	w.restart()
	w.want()
}

func TestTheReplyOfADeadLetterSurvivesARestart(t *testing.T) {
	w := atWork(t, Config{})
	w.gone("r.s1")
	w.answer("s1", 1, "+TERM")
	w.restart()
	w.back("r.s1")
	w.advance(probeEvery)
	w.want("nobody at r.s1: final error dead", "r.s1: final error dead (again)")
}

func TestCountedAttemptsSurviveRestarts(t *testing.T) {
	w := atWork(t, Config{MaxAttempts: 4, MaxDeaths: 9})
	for n := uint32(1); n < 4; n++ {
		w.failed("s1", w.q.items[w.id("s1")].rec.Deliveries, "0")
		w.restart()
		if a := w.q.items[w.id("s1")].rec.Attempts; a != n {
			t.Fatalf("after %d failures and restarts %d are counted", n, a)
		}
	}
	w.said = nil
	w.failed("s1", w.q.items[w.id("s1")].rec.Deliveries, "0")
	w.want("r.s1: final error dead")
}

func TestWorkIsFinishedWhileTheDiskIsFull(t *testing.T) {
	w := atWork(t, Config{})
	w.full = true
	w.do(Stored{Err: store.ErrFull})
	w.send("s2")
	w.want("a.s2: error disk_full", "r.s2: error disk_full")
	w.answer("s1", 1, "done")
	w.register("p2", 1)
	w.want("r.s1: final done", "reg.p2: ok")
	w.full = false
	w.do(Stored{})
	w.send("s3")
	w.advance(quickAnswer)
	w.want("p1: work s3 #1", "a.s3: accepted s3")
}

func TestWhatGatheredWhenTheStoreFailsIsGivenBack(t *testing.T) {
	w := busyWriting(t, Config{WindowItems: 1})
	w.unregister("p1")
	for n := range 3 {
		w.send(fmt.Sprintf("s%d", n))
	}
	w.do(Stored{Err: store.ErrFull})
	w.want("a.s0: error disk_full", "r.s0: error disk_full", "a.s1: error disk_full", "r.s1: error disk_full", "a.s2: error disk_full", "r.s2: error disk_full")
	w.commit(nil)
	w.want()
	if w.q.counts.Ready != 0 || len(w.m.ever) != 0 {
		t.Errorf("%+v is counted, %d were written", w.q.counts, len(w.m.ever))
	}
}

func TestAFailedBatchIsTriedAgainAfterAPause(t *testing.T) {
	w := atWork(t, Config{})
	w.auto = false
	w.answer("s1", 1, "done")
	w.commit(store.ErrFull)
	if w.batch != nil {
		t.Fatal("tried again at once")
	}
	w.advance(retryWrite - time.Millisecond)
	if w.batch != nil {
		t.Fatal("tried again too early")
	}
	w.advance(time.Millisecond)
	w.want()
	w.commit(nil)
	w.want("r.s1: final done")
}

func TestAnAttemptThatCouldNotBeWrittenIsTriedAgain(t *testing.T) {
	w := atWork(t, Config{})
	w.auto = false
	w.failed("s1", 1, "0")
	w.commit(store.ErrFull)
	w.auto = true
	w.advance(retryWrite)
	if a := w.m.items[w.id("s1")].Attempts; a != 1 {
		t.Errorf("%d attempts are stored", a)
	}
}

func TestALeaseThatCouldNotBeWrittenIsTriedAgain(t *testing.T) {
	w := atWork(t, Config{})
	w.auto = false
	w.advance(leaseWriteAfter)
	w.commit(store.ErrFull)
	w.auto = true
	w.advance(retryWrite)
	if len(w.m.leases) != 1 {
		t.Error("it is not stored")
	}
}

func TestAReplyThatCouldNotBeWrittenIsTriedAgain(t *testing.T) {
	w := busyWriting(t, Config{})
	w.away["r.s1"] = true
	w.send("s1")
	w.answer("s1", 1, "done")
	w.commit(nil)
	w.commit(store.ErrFull)
	w.want("p1: work s1 #1", "nobody at r.s1: final done")
	w.auto = true
	w.advance(retryWrite)
	w.want("a.s1: accepted s1")
	if len(w.m.replies) != 1 {
		t.Error("it is not stored")
	}
}

func TestAfterAWriteOfUnknownOutcomeNothingElseIsSaid(t *testing.T) {
	w := testWorld(t, Config{ProcessTimeout: time.Second})
	w.register("p1", 2)
	w.auto = false
	w.send("done")
	w.send("held")
	w.answer("done", 1, "reply")
	w.register("p2", 1)
	w.said = nil
	w.commit(store.ErrUnknown)
	w.want("a.done: error unconfirmed", "r.done: error unconfirmed", "a.held: error unconfirmed", "r.held: error unconfirmed", "reg.p2: error unconfirmed")
	w.answer("held", 1, "reply")
	w.do(Settled{Item: w.id("done"), Outcome: Outcome{Delivered: true}}, Stored{}, Presence{Processor: "p1"})
	w.advance(time.Minute)
	w.want()
	w.send("new")
	w.register("p1", 1)
	w.unregister("p1")
	w.want("a.new: error store_failed", "r.new: error store_failed", "reg.p1: error shutting_down", "reg.p1: error shutting_down")
	if w.batch != nil || !w.q.Settled() || w.q.Leased() != 0 {
		t.Error("it goes on")
	}
}

func TestAnotherQueuesWriteOfUnknownOutcomeEndsThisOneToo(t *testing.T) {
	w := testWorld(t, Config{})
	w.register("p1", 2)
	w.auto = false
	w.send("s1")
	w.send("s2")
	w.do(Stored{Err: store.ErrUnknown})
	w.want("reg.p1: ok", "p1: work s1 #1", "p1: work s2 #1", "a.s2: error unconfirmed", "r.s2: error unconfirmed")
	w.commit(store.ErrUnknown)
	w.want("a.s1: error unconfirmed", "r.s1: error unconfirmed")
}

func TestAnIDIsNotUsedTwice(t *testing.T) {
	w := busyWriting(t, Config{})
	w.send("lost")
	w.restart()
	w.auto = true
	w.send("s1")
	if w.id("lost") == w.id("s1") {
		t.Error("the new item has the id of one that was delivered and lost")
	}
}

func TestAFullPendingListStopsTheIntake(t *testing.T) {
	w := testWorld(t, Config{})
	w.full = true
	w.do(Stored{Err: store.ErrFull})
	w.auto = false
	w.send("x")
	var out Out
	for range maxPendingOps {
		if w.q.Full() {
			t.Fatal("full too early")
		}
		w.q.Step(w.now, &Registered{Registration: wire.Registration{Processor: "p1", Capacity: 1}}, &out)
	}
	if !w.q.Full() {
		t.Error("registrations gather without end while the store is full")
	}
}

// A reply that is kept for its sender does not keep the item: its size counts nowhere any more.
func TestKeptReplyLetsItsItemGo(t *testing.T) {
	now := time.Now()
	q := New(Options{Config: Config{Address: "q"}.WithDefaults(true), Persistent: true, Watched: true}, store.Snapshot{Epoch: 1}, now)
	var out Out
	step := func(ev Event) (work Msg) {
		q.Step(now, ev, &out)
		for _, m := range out.Msgs {
			if m.Kind == Work {
				work = m
			}
		}
		out = Out{}
		return work
	}
	commit := func() {
		now = now.Add(time.Second)
		for b := q.Take(now); b != nil; b = q.Take(now) {
			step(Committed{})
			q.Said(b)
			now = now.Add(time.Second)
		}
	}
	step(&Registered{Registration: wire.Registration{Processor: "p", Capacity: 1}})
	commit()
	body := make([]byte, 1<<10)
	item := weak.Make(&body[0])
	work := step(&Sent{Reply: "away", Body: body, Send: wire.Send{AcceptedReply: "accepts"}})
	step(&Answered{Item: work.Item, Attempt: work.N, Answer: wire.Answer{Kind: wire.Done}})
	step(Settled{Item: work.Item})
	work, body = Msg{}, nil
	runtime.GC()
	if item.Value() == nil {
		t.Error("the item is gone before its reply is written: the test tells nothing")
	}
	commit()
	runtime.GC()
	if item.Value() != nil || q.Stats().Replies != 1 {
		t.Errorf("the item is in memory with %d replies kept", q.Stats().Replies)
	}
	runtime.KeepAlive(q)
}
