package queue

import (
	"testing"
	"time"

	"stint/wire"
)

// atWork is a world in which p1 holds s1, whose acceptance is on disk.
func atWork(t *testing.T, c Config, with ...func(*Sent)) *world {
	t.Helper()
	w := testWorld(t, c)
	w.register("p1", 1)
	w.send("s1", with...)
	w.want("reg.p1: ok", "p1: work s1 #1", "a.s1: accepted s1")
	return w
}

func TestAnyBodyCompletesTheItemAndGoesToTheSender(t *testing.T) {
	for body, reply := range map[string]string{"done": "r.s1: final done", "": "r.s1: final ", "+ACK": "r.s1: final "} {
		w := atWork(t, Config{})
		w.answer("s1", 1, body)
		w.want(reply)
		if c := w.counts(); c.Ready+c.Delayed+c.Dead != 0 || c.Bytes != 0 || len(w.m.items) != 0 {
			t.Errorf("after %q %+v is counted and %d stored", body, c, len(w.m.items))
		}
	}
}

func TestTheItemLeavesTheDiskBeforeItsReplyIsSaid(t *testing.T) {
	w := atWork(t, Config{})
	w.auto = false
	w.answer("s1", 1, "done")
	w.want()
	w.commit(nil)
	w.want("r.s1: final done")
	if len(w.m.replies) != 1 {
		t.Error("the reply is not on record while it is on its way")
	}
}

func TestTheReplyLeavesTheDiskOnceTheServerHasHadIt20Milliseconds(t *testing.T) {
	w := atWork(t, Config{})
	w.answer("s1", 1, "done")
	w.advance(settleDelay - time.Millisecond)
	if len(w.m.replies) != 1 || w.flush != 0 {
		t.Fatal("the reply went from the record too early")
	}
	w.auto = false
	w.advance(time.Millisecond)
	if len(w.m.replies) != 1 || w.flush == 0 {
		t.Fatal("the server is not asked whether it has the reply")
	}
	w.auto = true
	w.advance(0)
	if len(w.m.replies) != 0 {
		t.Error("the reply stays on record")
	}
}

func TestOnlyRepliesThatTheServerHasLeaveTheDisk(t *testing.T) {
	w := testWorld(t, Config{})
	w.register("p1", 2)
	w.send("s1")
	w.send("s2")
	w.answer("s1", 1, "done")
	w.auto = false
	w.advance(settleDelay)
	w.answer("s2", 1, "done")
	w.commit(nil)
	w.auto = true
	w.do(Flushed{Token: w.flush})
	w.advance(dropPace)
	if _, stays := w.m.replies[w.id("s2")]; !stays || len(w.m.replies) != 1 {
		t.Errorf("on record are %v", w.m.replies)
	}
}

func TestWorkingStartsTheDeadlineAnew(t *testing.T) {
	w := atWork(t, Config{ProcessTimeout: time.Second})
	w.register("p2", 1)
	w.advance(999 * time.Millisecond)
	w.answer("s1", 1, "+WPI")
	w.want("reg.p2: ok")
	w.advance(999 * time.Millisecond)
	w.want()
	w.advance(time.Millisecond)
	w.want("p2: work s1 #2")
}

func TestNakGivesTheItemToSomeoneElseAtOnceOrAfterTheDelay(t *testing.T) {
	w := atWork(t, Config{})
	w.register("p2", 1)
	w.answer("s1", 1, "-NAK")
	w.want("reg.p2: ok", "p2: work s1 #2")
	w.answer("s1", 2, `-NAK {"delay":70000000}`)
	w.advance(69 * time.Millisecond)
	w.want()
	if c := w.counts(); c.Delayed != 1 || c.Ready != 0 {
		t.Errorf("%+v is counted", c)
	}
	w.advance(time.Millisecond)
	w.want("p1: work s1 #3")
	if a := w.m.items[w.id("s1")].Attempts; a != 0 {
		t.Errorf("%d attempts are counted for items that were handed back", a)
	}
}

func TestAnItemThatIsHandedBackOverAndOverWaitsLongerEachTime(t *testing.T) {
	w := atWork(t, Config{})
	for n := range uint32(freeNaks) {
		w.answer("s1", n+1, "-NAK")
	}
	w.want("p1: work s1 #2", "p1: work s1 #3", "p1: work s1 #4")
	for n, wait := range []time.Duration{20 * time.Millisecond, 40 * time.Millisecond} {
		w.answer("s1", uint32(n+4), "-NAK")
		w.advance(wait - time.Millisecond)
		w.want()
		w.advance(time.Millisecond)
		w.said = nil
	}
}

func TestTermMakesADeadLetterAndTellsTheSender(t *testing.T) {
	w := atWork(t, Config{})
	w.answer("s1", 1, "+TERM not mine")
	w.want("r.s1: final error dead")
	r := w.m.items[w.id("s1")]
	if r.Code != "dead" || r.Reason != "not mine" || w.counts().Dead != 1 {
		t.Errorf("stored is %+v", r)
	}
	w.advance(time.Hour)
	w.restart()
	w.want()
}

func TestAFailureWaitsForTheBackoffThenTriesAgain(t *testing.T) {
	w := atWork(t, Config{Backoff: Backoff{Base: 100 * time.Millisecond, Max: 300 * time.Millisecond}, MaxAttempts: 4})
	for n, wait := range []time.Duration{100, 200, 300} {
		w.failed("s1", uint32(n+1))
		w.advance(wait*time.Millisecond - time.Millisecond)
		w.want()
		w.advance(time.Millisecond)
		w.said = nil
		if len(w.q.items) != 1 {
			t.Fatalf("after failure %d it is not given out again", n+1)
		}
	}
	w.failed("s1", 4)
	w.want("r.s1: final error dead")
	if r := w.m.items[w.id("s1")]; r.Attempts != 4 || r.Reason != "it broke" {
		t.Errorf("stored is %+v", r.Marks)
	}
}

func TestAFailureMaySetItsOwnDelay(t *testing.T) {
	w := atWork(t, Config{})
	w.failed("s1", 1, "250")
	w.advance(249 * time.Millisecond)
	w.want()
	w.advance(time.Millisecond)
	w.want("p1: work s1 #2")
	w.failed("s1", 2, "0")
	w.want("p1: work s1 #3")
}

func TestBackoffStaysWithinItsBounds(t *testing.T) {
	b := Backoff{Base: time.Second, Max: 5 * time.Minute, Jitter: 0.2}
	q := New(Options{Config: Config{Backoff: b}.WithDefaults(true)}, newModel().load(), start)
	for n := uint32(1); n < 200; n++ {
		want := 5 * time.Minute
		if n < 9 {
			want = time.Second << (n - 1)
		}
		if d := q.backoff(n); d < want*8/10 || d > want*12/10 {
			t.Fatalf("after attempt %d: %v, want %v or a fifth of it more or less", n, d, want)
		}
	}
	q.opt.Backoff = Backoff{Fixed: true, Base: time.Second, Max: time.Second}
	if d := q.backoff(9); d != time.Second {
		t.Errorf("a fixed backoff of 1s is %v at attempt 9", d)
	}
}

func TestASenderMaySetTheAttempts(t *testing.T) {
	w := atWork(t, Config{}, attempts(2))
	w.failed("s1", 1, "0")
	w.failed("s1", 2, "0")
	w.want("p1: work s1 #2", "r.s1: final error dead")
}

func TestProgressGoesToASenderThatAskedForIt(t *testing.T) {
	progress := wire.Header{wire.HeaderProgress: {"true"}}
	w := atWork(t, Config{ProcessTimeout: time.Second}, func(e *Sent) { e.Progress = true })
	w.register("p2", 1)
	w.advance(600 * time.Millisecond)
	w.do(w.answered("s1", 1, "half", progress, ""))
	w.advance(999 * time.Millisecond)
	w.want("reg.p2: ok", "r.s1: half")
	w.advance(time.Millisecond)
	w.want("p2: work s1 #2")
	w = atWork(t, Config{})
	w.do(w.answered("s1", 1, "half", progress, ""))
	w.want()
}

func TestAConversationGoesBackAndForth(t *testing.T) {
	w := atWork(t, Config{ProcessTimeout: time.Second})
	w.register("p2", 1)
	w.advance(900 * time.Millisecond)
	w.do(w.answered("s1", 1, "which?", nil, "p1.turn"))
	w.want("reg.p2: ok", "r.s1: turn 1 which?")
	w.advance(900 * time.Millisecond)
	w.do(&Talked{Item: w.id("s1"), N: 1, Body: []byte("the red one"), Reply: "r2.s1"})
	w.want("p1.turn: work the red one #1")
	w.advance(900 * time.Millisecond)
	w.do(&Talked{Item: w.id("s1"), N: 1, Body: []byte("hello?"), Reply: "r3.s1"})
	w.want("r3.s1: error unavailable")
	w.answer("s1", 1, "done")
	w.want("r2.s1: final done")
	w.do(&Talked{Item: w.id("s1"), N: 1, Reply: "r3.s1"})
	w.want("r3.s1: error unavailable")
}

func TestNobodyAtTheProcessorsSubject(t *testing.T) {
	w := testWorld(t, Config{})
	w.register("p1", 2)
	w.register("p2", 1)
	w.gone("p1")
	w.send("s1")
	w.want("reg.p1: ok", "reg.p2: ok", "nobody at p1: work s1 #1", "p2: work s1 #2", "a.s1: accepted s1")
	if r := w.q.items[w.id("s1")].rec; r.Attempts != 0 || r.Deaths != 0 {
		t.Errorf("an item that reached nobody is marked %+v", r.Marks)
	}
	w.send("s2")
	w.want("a.s2: accepted s2")
	w.back("p1")
	w.want("p1: work s2 #1")
}

func TestWhatAnAbsentProcessorHoldsIsLostWithIt(t *testing.T) {
	w := testWorld(t, Config{}, outside)
	w.register("p1", 3)
	w.send("s1")
	w.send("s2")
	w.gone("p1")
	w.send("s3")
	w.register("p2", 3)
	w.want("reg.p1: ok", "p1: work s1 #1", "a.s1: accepted s1", "p1: work s2 #1", "a.s2: accepted s2",
		"nobody at p1: work s3 #1", "a.s3: accepted s3", "p2: work s1 #2", "p2: work s2 #2", "p2: work s3 #2", "reg.p2: ok")
	if w.q.items[w.id("s1")].rec.Deaths != 1 || w.q.items[w.id("s3")].rec.Deaths != 0 {
		t.Error("only what it held may count its death")
	}
}

func TestAnAbsentProcessorOfAnOutsideServerIsTriedAgain(t *testing.T) {
	w := testWorld(t, Config{}, outside)
	w.register("p1", 1)
	w.gone("p1")
	w.send("s1")
	w.want("reg.p1: ok", "nobody at p1: work s1 #1", "a.s1: accepted s1")
	w.back("p1")
	w.advance(absentRetry - time.Millisecond)
	w.want()
	w.advance(time.Millisecond)
	w.want("p1: work s1 #2")
}

func TestAProcessorThatVanishesGivesUpItsWorkAtOnce(t *testing.T) {
	w := atWork(t, Config{MaxDeaths: 2})
	w.gone("p1")
	w.back("p1")
	w.want("p1: work s1 #2")
	if r := w.m.items[w.id("s1")]; r.Deaths != 1 || r.Attempts != 0 {
		t.Errorf("stored is %+v", r.Marks)
	}
	w.gone("p1")
	w.want("r.s1: final error dead")
}

func TestTheFirstAnswerWinsAndLaterOnesChangeNothing(t *testing.T) {
	w := atWork(t, Config{})
	w.answer("s1", 1, "one")
	for _, body := range []string{"two", "+TERM", "-NAK", "+WPI"} {
		w.answer("s1", 1, body)
		w.answer("s1", 2, body)
	}
	w.want("r.s1: final one")
}

func TestALateAnswerCompletesAnItemThatNobodyHasSettled(t *testing.T) {
	w := atWork(t, Config{ProcessTimeout: time.Second})
	w.register("p2", 1)
	w.advance(time.Second)
	w.want("reg.p2: ok", "p2: work s1 #2")
	w.answer("s1", 1, "late, but first")
	w.want("r.s1: final late, but first")
	w.send("s2")
	w.send("s3")
	w.want("p1: work s2 #1", "a.s2: accepted s2", "a.s3: accepted s3") // p2 is still at work on s1
	w.answer("s1", 2, "second")
	w.want("p2: work s3 #1")
}

func TestALateAnswerCompletesAnItemThatWaitsAgain(t *testing.T) {
	w := atWork(t, Config{ProcessTimeout: time.Second})
	w.advance(time.Second)
	w.answer("s1", 1, "late")
	w.want("r.s1: final late")
	w.send("s2")
	w.want("p1: work s2 #1", "a.s2: accepted s2")
}

func TestALateRefusalOnlyFreesTheSlot(t *testing.T) {
	for _, body := range []string{"+TERM", "-NAK"} {
		w := atWork(t, Config{ProcessTimeout: time.Second})
		w.register("p2", 1)
		w.advance(time.Second)
		w.answer("s1", 1, body)
		w.send("s2")
		w.want("reg.p2: ok", "p2: work s1 #2", "p1: work s2 #1", "a.s2: accepted s2")
	}
}

func TestALateAnswerToASettledItemOnlyFreesTheSlot(t *testing.T) {
	w := atWork(t, Config{ProcessTimeout: time.Second})
	w.register("p2", 1)
	w.advance(time.Second)
	w.answer("s1", 2, "done")
	w.send("s2")
	w.send("s3")
	w.want("reg.p2: ok", "p2: work s1 #2", "r.s1: final done", "p2: work s2 #1", "a.s2: accepted s2", "a.s3: accepted s3")
	w.answer("s1", 1, "too late")
	w.want("p1: work s3 #1")
}

func TestAnswersToUnknownLeasesChangeNothing(t *testing.T) {
	w := atWork(t, Config{})
	for _, a := range []uint32{0, 2, 99} {
		w.answer("s1", a, "done")
	}
	w.names[77] = "never"
	w.answer("never", 1, "done")
	w.want()
}

func TestNobodyIsNotAnAnswerThatEndsWithholding(t *testing.T) {
	w := atWork(t, Config{ProcessTimeout: time.Second})
	w.advance(time.Second)
	w.do(&Answered{Item: w.id("s1"), Attempt: 1, Answer: wire.Answer{Kind: wire.NoResponders}})
	w.send("s2")
	w.want("a.s2: accepted s2")
}

func TestAFailureWithoutAReasonNamesItsCode(t *testing.T) {
	w := atWork(t, Config{MaxAttempts: 1})
	w.do(w.answered("s1", 1, "", wire.Header{wire.HeaderErrorCode: {"418"}}, ""))
	if r := w.m.items[w.id("s1")]; r.Reason != "a processor reported failure 418" {
		t.Errorf("the dead letter says %q", r.Reason)
	}
}

func TestTheSendersOwnHeadersComeBackOnTheReply(t *testing.T) {
	w := testWorld(t, Config{})
	var got wire.Header
	w.onMsg = func(m *Msg, _ bool) {
		if m.Kind == Final {
			got = m.Header
		}
	}
	w.register("p1", 1)
	w.send("s1", func(e *Sent) { e.Header = wire.Header{"traceparent": {"t1"}, "lang": {"en"}, wire.HeaderTTL: {"9"}} })
	w.do(w.answered("s1", 1, "done", wire.Header{"lang": {"de"}}, ""))
	if len(got) != 2 || got["traceparent"][0] != "t1" || got["lang"][0] != "de" {
		t.Errorf("the reply carries %v", got)
	}
}
