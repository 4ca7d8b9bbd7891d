package queue

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"stint/store"
)

// busyWriting is a world whose batch under way never ends by itself, so that what follows gathers.
func busyWriting(t *testing.T, c Config) *world {
	t.Helper()
	w := testWorld(t, c)
	w.register("p1", 9)
	w.auto = false
	w.do(&Unregistered{Processor: "nobody"})
	w.want("reg.p1: ok")
	return w
}

func TestAcceptedIsSaidAfterTheCommitOnly(t *testing.T) {
	w := testWorld(t, Config{})
	w.auto = false
	w.send("s1")
	w.want()
	w.commit(nil)
	w.want("a.s1: accepted s1")
	if _, ok := w.m.items[w.id("s1")]; !ok {
		t.Error("it is not stored")
	}
}

func TestWorkMayLeaveBeforeItIsStored(t *testing.T) {
	w := busyWriting(t, Config{})
	w.send("s1")
	w.want("p1: work s1 #1")
}

func TestAnItemAnsweredBeforeItWasTakenIsNeverWritten(t *testing.T) {
	w := busyWriting(t, Config{})
	w.send("s1")
	w.answer("s1", 1, "done")
	w.want("p1: work s1 #1", "r.s1: final done", "a.s1: accepted s1")
	w.commit(nil)
	if w.batch != nil || len(w.m.ever) != 0 {
		t.Errorf("it was written: %+v", w.batch)
	}
}

func TestWithoutAReplySubjectAcceptedIsSaidAtOnce(t *testing.T) {
	w := busyWriting(t, Config{})
	w.do(w.sent("s1", func(e *Sent) { e.Reply = "" }))
	w.answer("s1", 1, "done")
	w.want("p1: work s1 #1", "a.s1: accepted s1")
}

func TestTheReplyOfAnUnwrittenItemIsKeptForASenderThatIsAway(t *testing.T) {
	w := busyWriting(t, Config{})
	w.away["r.s1"] = true
	w.send("s1")
	w.answer("s1", 1, "done")
	w.want("p1: work s1 #1", "nobody at r.s1: final done")
	w.commit(nil)
	w.want()
	w.commit(nil)
	w.want("a.s1: accepted s1")
	w.auto = true
	w.back("r.s1")
	w.advance(probeEvery)
	w.want("r.s1: final done")
	w.advance(time.Second)
	if len(w.m.replies) != 0 || len(w.q.replies) != 0 {
		t.Error("the reply stays on record")
	}
}

func TestWithAnOutsideServerTheOutcomeOfAFinalIsKnownLater(t *testing.T) {
	w := testWorld(t, Config{}, outside)
	w.register("p1", 9)
	w.auto, w.async = false, true
	w.do(&Unregistered{Processor: "nobody"})
	w.send("s1")
	w.answer("s1", 1, "done")
	w.commit(nil) // nothing of s1 is taken meanwhile
	w.want("reg.p1: ok", "p1: work s1 #1")
	w.commit(nil) // the reply alone
	w.want("a.s1: accepted s1")
	w.word()
	w.want("r.s1: final done")
	if len(w.q.items) != 0 {
		t.Error("it stays in memory")
	}
}

func TestARepeatedFlightOfASenderLeavesNothingBehind(t *testing.T) {
	w := atWork(t, Config{}, func(e *Sent) {})
	w.gone("r.s1")
	w.answer("s1", 1, "done")
	for range 100 {
		w.do(Listening{Item: w.id("s1")}) // but gone again when the reply comes
	}
	if len(w.q.kept) != 1 {
		t.Errorf("one kept reply has %d entries", len(w.q.kept))
	}
	w.back("r.s1")
	w.advance(time.Second)
	if len(w.m.replies)+len(w.q.replies) != 0 {
		t.Error("it stays on record")
	}
}

func TestAKeptReplyIsDroppedAfterReplyTTL(t *testing.T) {
	w := atWork(t, Config{ReplyTTL: time.Minute})
	w.gone("r.s1")
	w.answer("s1", 1, "done")
	w.advance(time.Minute - time.Millisecond)
	if len(w.m.replies) != 1 {
		t.Fatal("dropped too early")
	}
	w.advance(probeEvery)
	if len(w.m.replies) != 0 || w.q.Stats().DroppedReplies != 1 || w.q.Stats().Replies != 0 {
		t.Errorf("%d on record, %+v", len(w.m.replies), w.q.Stats())
	}
}

func TestKeptRepliesHaveALimit(t *testing.T) {
	w := testWorld(t, Config{MaxReplies: 2})
	w.register("p1", 9)
	for n := range 3 {
		s := fmt.Sprintf("s%d", n)
		w.gone("r." + s)
		w.send(s)
		w.answer(s, 1, "done")
	}
	w.advance(dropPace)
	if _, oldest := w.m.replies[w.id("s0")]; oldest || len(w.m.replies) != 2 || w.q.Stats().Replies != 2 {
		t.Errorf("on record are %v", w.m.replies)
	}
}

func TestTheQueueIsFullByItems(t *testing.T) {
	w := testWorld(t, Config{MaxItems: 2})
	for _, s := range []string{"s1", "s2", "s3"} {
		w.send(s)
	}
	w.want("a.s1: accepted s1", "a.s2: accepted s2", "a.s3: error queue_full", "r.s3: error queue_full")
	w.register("p1", 1)
	w.answer("s1", 1, "")
	w.said = nil
	w.send("s4")
	w.advance(quickAnswer)
	w.want("a.s4: accepted s4")
}

func TestTheQueueIsFullByBytes(t *testing.T) {
	w := testWorld(t, Config{MaxBytes: 12})
	w.send("s1")
	w.send("s2")
	w.send("s3", func(e *Sent) { e.Reply = "a.s3" })
	w.want("a.s1: accepted s1", "a.s2: accepted s2", "a.s3: error queue_full")
}

func TestAnItemThatCouldNotBeWrittenIsAnError(t *testing.T) {
	for err, code := range map[error]string{store.ErrFull: "disk_full", errDisk: "store_failed", store.ErrClosed: "shutting_down"} {
		w := testWorld(t, Config{})
		w.auto = false
		w.send("s1")
		w.commit(err)
		w.want("a.s1: error "+code, "r.s1: error "+code)
		w.send("s2")
		w.want("a.s2: error "+code, "r.s2: error "+code)
		w.register("p1", 1)
		w.now = w.now.Add(retryWrite)
		w.do(Stored{})
		w.commit(nil)
		w.want("reg.p1: ok")
	}
}

// earlyFailure is a world in which p1 holds s1, whose write has failed.
func earlyFailure(t *testing.T, with ...func(*Sent)) *world {
	t.Helper()
	w := testWorld(t, Config{ProcessTimeout: time.Second})
	w.register("p1", 1)
	w.auto = false
	w.send("s1", with...)
	w.commit(store.ErrFull)
	w.want("reg.p1: ok", "p1: work s1 #1")
	w.now = w.now.Add(retryWrite)
	return w
}

func TestAWriteThatFailsBehindEarlyWorkIsForgivenByTheAnswer(t *testing.T) {
	w := earlyFailure(t)
	w.answer("s1", 1, "done")
	w.want("r.s1: final done", "a.s1: accepted s1")
	if len(w.m.ever) != 0 {
		t.Error("it was written")
	}
}

func TestAWriteThatFailsBehindEarlyWorkIsAnErrorUnlessAnswered(t *testing.T) {
	for _, how := range []string{"-NAK", "-NAK 1s", "+TERM", "failed", "timeout", "gone"} {
		w := earlyFailure(t)
		switch how {
		case "failed":
			w.failed("s1", 1)
		case "timeout":
			w.advance(time.Second)
		case "gone":
			w.gone("p1")
		default:
			w.answer("s1", 1, how)
		}
		w.want("a.s1: error disk_full", "r.s1: error disk_full")
		w.answer("s1", 1, "too late")
		w.do(Stored{})
		w.advance(time.Minute)
		w.want()
	}
}

func TestAWriteThatFailsBehindADeadLetterIsAnErrorAndNothingElse(t *testing.T) {
	w := testWorld(t, Config{})
	w.register("p1", 1)
	w.auto = false
	w.send("s1", msgID("m"))
	w.answer("s1", 1, "+TERM")
	w.commit(errDisk)
	w.do(Stored{})
	w.now = w.now.Add(retryWrite)
	w.auto = true
	w.do(Tick{})
	w.want("reg.p1: ok", "p1: work s1 #1", "a.s1: error store_failed", "r.s1: error store_failed")
}

func TestAnAnswerMeanwhileIsAsGoodAsTheWriteThatFails(t *testing.T) {
	w := testWorld(t, Config{})
	w.register("p1", 1)
	w.auto = false
	w.send("s1")
	w.answer("s1", 1, "done")
	w.want("reg.p1: ok", "p1: work s1 #1")
	w.commit(store.ErrFull)
	w.want("r.s1: final done", "a.s1: accepted s1")
}

func TestADuplicateIsAcceptedAsTheFirst(t *testing.T) {
	w := testWorld(t, Config{DedupWindow: time.Minute})
	w.send("s1", msgID("m"))
	w.send("s2", msgID("m"), func(e *Sent) { e.Reply = "r.s1" })
	w.want("a.s1: accepted s1", "a.s2: accepted s1 duplicate")
	w.send("s3", msgID("m"))
	w.want("a.s3: accepted s1 duplicate", "r.s3: error duplicate")
	w.register("p1", 1)
	w.answer("s1", 1, "done")
	w.send("s4", msgID("m"))
	w.want("p1: work s1 #1", "reg.p1: ok", "r.s1: final done", "a.s4: accepted s1 duplicate", "r.s4: error duplicate")
	w.advance(time.Minute)
	w.send("s5", msgID("m"))
	w.want("p1: work s5 #1", "a.s5: accepted s5")
}

func TestADuplicateWaitsForTheWriteOfTheFirst(t *testing.T) {
	w := testWorld(t, Config{})
	w.auto = false
	w.send("s1", msgID("m"))
	w.send("s2", msgID("m"))
	w.want("r.s2: error duplicate")
	w.commit(nil)
	w.want("a.s1: accepted s1", "a.s2: accepted s1")
	w.finish()
	if w.batch != nil || len(w.q.recent) != 0 {
		t.Error("something is left")
	}
}

func TestADuplicateOfWhatCouldNotBeWritten(t *testing.T) {
	w := testWorld(t, Config{})
	w.auto = false
	w.send("s1", msgID("m"))
	w.send("s2", msgID("m"), func(e *Sent) { e.Reply = "r.s1" })
	w.commit(store.ErrFull)
	w.want("a.s1: error disk_full", "a.s2: error disk_full", "r.s1: error disk_full")
	w.now = w.now.Add(retryWrite)
	w.do(Stored{})
	w.auto = true
	w.send("s3", msgID("m"))
	w.want("a.s3: accepted s3")
}

func TestAnUnwrittenItemWithAMessageIDIsRememberedAllTheSame(t *testing.T) {
	w := busyWriting(t, Config{})
	w.send("s1", msgID("m"))
	w.answer("s1", 1, "done")
	w.want("p1: work s1 #1")
	w.commit(nil)
	w.want()
	w.commit(nil)
	w.want("a.s1: accepted s1", "r.s1: final done")
	if w.m.dedup["m"].ID != w.id("s1") || len(w.m.ever) != 0 {
		t.Error("its message id should be stored, and nothing else")
	}
}

func TestAMessageIDIsNotAcceptedTwiceThoughTheFirstWriteFailed(t *testing.T) {
	w := earlyFailure(t, msgID("m"))
	w.do(Stored{})
	w.send("s2", msgID("m"), func(e *Sent) { e.Reply = "r.s1" })
	w.answer("s1", 1, "done")
	w.want()
	w.commit(nil)
	w.want("a.s1: accepted s1", "a.s2: accepted s1", "r.s1: final done")
}

func TestAnAnswerBehindAWriteThatFailsWaitsForTheMessageID(t *testing.T) {
	w := testWorld(t, Config{})
	w.register("p1", 1)
	w.auto = false
	w.send("s1", msgID("m"))
	w.answer("s1", 1, "done")
	w.commit(store.ErrFull)
	w.want("reg.p1: ok", "p1: work s1 #1")
	w.advance(retryWrite)
	w.commit(nil)
	w.want("a.s1: accepted s1", "r.s1: final done")
	if w.m.dedup["m"].ID != w.id("s1") {
		t.Error("the message id is not stored")
	}
}

func TestMessageIDsHaveALimitAndAreForgotten(t *testing.T) {
	w := testWorld(t, Config{MaxDedup: 1, DedupWindow: time.Second})
	w.send("s1", msgID("m1"))
	w.send("s2", msgID("m2"))
	w.want("a.s1: accepted s1", "a.s2: error queue_full", "r.s2: error queue_full")
	w.restart()
	w.advance(2 * time.Second)
	if len(w.m.dedup) != 0 || w.counts().Dedup != 0 {
		t.Errorf("%d are stored, %d counted", len(w.m.dedup), w.counts().Dedup)
	}
	w.send("s3", msgID("m2"))
	w.want("a.s3: accepted s3")
}

func TestAFloodOfDuplicatesIsAnsweredBusy(t *testing.T) {
	w := testWorld(t, Config{})
	w.auto = false
	for n := range maxAccepts + 2 {
		w.send(fmt.Sprintf("s%d", n), msgID("m"), func(e *Sent) { e.Reply = "r.s0" })
	}
	w.commit(nil)
	accepted, busy := 0, 0
	for _, line := range w.said {
		if strings.HasSuffix(line, ": accepted s0") {
			accepted++
		} else if strings.HasSuffix(line, ": error busy") {
			busy++
		}
	}
	if accepted != maxAccepts+1 || busy != 1 {
		t.Errorf("%d are accepted, %d refused: %q", accepted, busy, w.said)
	}
}

func TestAQueueInMemoryAnswersWithoutWaiting(t *testing.T) {
	w := testWorld(t, Config{}, inMemory)
	w.register("p1", 1)
	w.auto = false
	w.send("s1")
	w.answer("s1", 1, "done")
	w.want("reg.p1: ok", "p1: work s1 #1", "r.s1: final done")
	w.commit(nil)
	w.want("a.s1: accepted s1")
	w.commit(nil)
	if len(w.m.items) != 0 || len(w.q.items) != 0 {
		t.Error("something is left")
	}
}

func TestSendsWhileStoppingAreRefused(t *testing.T) {
	w := testWorld(t, Config{})
	w.do(Drain{})
	w.send("s1")
	w.want("a.s1: error shutting_down", "r.s1: error shutting_down")
}
