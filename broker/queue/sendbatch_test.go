package queue

import (
	"strings"
	"testing"
	"time"
	"unsafe"

	"stint/store"
	"stint/wire"
)

// several is a batch of items with these names, which are their keys too.
func (w *world) several(batch string, gathered bool, names ...string) *SentBatch {
	e := &SentBatch{Reply: "r." + batch, AcceptedReply: "a." + batch}
	for _, name := range names {
		x := BatchItem{Key: name, Sent: *w.sent(name)}
		x.Reply, x.AcceptedReply = ReplyTo(e.Reply, name, gathered), ""
		e.Items = append(e.Items, x)
	}
	return e
}

func (w *world) answeredAll(names ...string) *AnsweredBatch {
	e := &AnsweredBatch{}
	for _, name := range names {
		e.Answers = append(e.Answers, *w.answered(name, 1, name+" done", nil, ""))
	}
	return e
}

func (w *world) registerBatch(processor string, capacity, batch int) {
	w.t.Helper()
	w.do(&Registered{Registration: wire.Registration{Processor: processor, Capacity: capacity, Batch: batch}, Reply: "reg." + processor})
	w.said = nil
}

func TestReplyTo(t *testing.T) {
	for _, c := range []struct {
		subject, key string
		gathered     bool
		want         string
	}{
		{"a.b", "k", false, "a.b k"}, {"a.b", "k", true, "a.b k g"}, {"a.b", "g", false, "a.b g"}, {"a.b", "g", true, "a.b g g"}, {"", "k", true, ""},
	} {
		to := ReplyTo(c.subject, c.key, c.gathered)
		if to != c.want {
			t.Errorf("got %q, want %q", to, c.want)
		}
		subject, key, gathered := SplitReply(to)
		if to != "" && (subject != c.subject || key != c.key || gathered != c.gathered) {
			t.Errorf("%q is split in %q, %q, %v", to, subject, key, gathered)
		}
		text := string(AppendReplyTo(nil, c.subject, []byte(c.key), c.gathered))
		if cut, key := CutReplyTo(text, c.subject, c.gathered); cut != to || key != c.key {
			t.Errorf("%q is cut in %q, %q", text, cut, key)
		}
	}
	if subject, key, gathered := SplitReply("a.b"); subject != "a.b" || key != "" || gathered {
		t.Error("a subject alone is not left as it is")
	}
}

func TestABatchHasOneNoticeWhenAllIsSafe(t *testing.T) {
	w := testWorld(t, Config{})
	w.auto = false
	w.do(w.several("B", false, "s1", "s2", "s3"))
	w.want()
	w.commit(nil)
	w.want("a.B: accepted s1 and 2")
	if len(w.m.items) != 3 || w.id("s3") != w.id("s1")+2 {
		t.Errorf("stored are %v", w.m.items)
	}
}

// One item of the batch is settled without having been written while another is being written: the first is safe, but the
// notice speaks for both.
func TestTheNoticeOfABatchWaitsForTheLastCommit(t *testing.T) {
	w := testWorld(t, Config{})
	w.register("p1", 1)
	w.said, w.auto = nil, false
	w.do(w.several("B", false, "s1", "s2"))
	w.want("p1: work s1 #1")
	w.answer("s1", 1, "done") // both are in the batch under way
	w.want("p1: work s2 #1")
	w.answer("s2", 1, "done")
	w.want()
	w.commit(nil)
	w.want("a.B: accepted s1 and 1")
}

func TestAnItemOfABatchSettledUnwrittenSaysNothingForTheOthers(t *testing.T) {
	w := busyWriting(t, Config{WindowItems: 1})
	w.do(w.several("B", false, "s1", "s2"))
	w.answer("s1", 1, "done")
	w.want("p1: work s1 #1", "r.B s1: final done")
	w.commit(nil) // of the batch before; now s2 is being written
	w.want()
	w.commit(nil)
	w.want("a.B: accepted s1 and 1", "p1: work s2 #1")
}

func TestAFailedWriteOfABatchIsSaidInTheNotice(t *testing.T) {
	w := testWorld(t, Config{})
	w.auto, w.full = false, true
	w.do(w.several("B", true, "s1", "s2"))
	w.commit(nil)
	w.want("r.B s1 g: error disk_full", "a.B: accepted s1 and 1, disk_full [s1 s2]", "r.B s2 g: error disk_full")
}

func TestABatchWhoseWriteHasAnUnknownOutcome(t *testing.T) {
	w := testWorld(t, Config{})
	w.auto = false
	w.do(w.several("B", false, "s1", "s2"))
	w.ended(store.ErrUnknown)
	w.finish()
	w.want("r.B s1: error unconfirmed", "a.B: accepted s1 and 1, unconfirmed [s1 s2]", "r.B s2: error unconfirmed")
	w.do(w.several("C", false, "s3"))
	w.want("a.C: error store_failed", "r.C: error store_failed")
}

// With an outside server it takes a while until a final is known to have been heard.
func TestABreakDownLeavesNoBatchWithoutANotice(t *testing.T) {
	w := testWorld(t, Config{WindowItems: 1})
	w.register("p1", 9)
	w.auto, w.async, w.said = false, true, nil
	w.do(&Unregistered{Processor: "nobody"})
	w.do(w.several("B", false, "s1", "s2"))
	w.answer("s1", 1, "done")
	w.said = nil
	w.ended(store.ErrUnknown)
	w.finish()
	w.want("r.B s2: error unconfirmed", "a.B: accepted s1 and 1, unconfirmed [s2 s1]")
}

func TestWhatTheQueueHasNoRoomForIsRefusedAsAWhole(t *testing.T) {
	w := testWorld(t, Config{MaxItems: 2, MaxDedup: 2, MaxBytes: 1000})
	w.do(w.several("B", true, "s1", "s2", "s3"))
	w.want("a.B: error queue_full", "r.B: error queue_full")
	e := w.several("C", true, "s4", "s5")
	e.Items[1].Body = make([]byte, 990)
	w.do(e)
	w.want("a.C: error queue_full", "r.C: error queue_full")
	if s := w.q.Stats(); s.Refused != 5 || s.Accepted != 0 {
		t.Errorf("%d are refused, %d accepted", s.Refused, s.Accepted)
	}
	w.do(w.several("D", true, "s6", "s7"))
	w.want("a.D: accepted s6 and 1")
}

func TestMessageIdsOfABatchAreCounted(t *testing.T) {
	w := testWorld(t, Config{MaxDedup: 1})
	e := w.several("B", false, "s1", "s2")
	e.Items[0].MsgID, e.Items[1].MsgID = "m1", "m2"
	w.do(e)
	w.want("a.B: error queue_full", "r.B: error queue_full")
}

func TestABadItemOfABatchConcernsNoOther(t *testing.T) {
	w := testWorld(t, Config{})
	e := w.several("B", false, "s1", "s2", "s3")
	e.Items[1].Err = wire.Errorf(wire.CodeTooLarge, "too large")
	w.do(e)
	w.want("r.B s2: error too_large", "a.B: accepted s1 and 2, too_large [s2]")
	if w.id("s3") != w.id("s1")+2 || len(w.m.items) != 2 {
		t.Errorf("stored are %v", w.m.items)
	}
}

func TestDuplicatesInABatch(t *testing.T) {
	w := testWorld(t, Config{})
	w.send("s1", msgID("m1"))
	w.want("a.s1: accepted s1")
	w.auto = false
	e := w.several("B", false, "s2", "s3", "s4")
	for i := range e.Items {
		e.Items[i].MsgID = "m2"
	}
	e.Items[0].MsgID = "m1"
	d := w.m.dedup["m1"]
	e.Items[0].Known = &d
	w.do(e)
	w.want("r.B s2: error duplicate", "r.B s4: error duplicate")
	w.commit(nil)
	w.want("a.B: accepted s2 and 2, s2 is s1, s4 is s3")
}

// Sent again as it was, each item is there already, and its reply will come for the same key.
func TestABatchSentAgain(t *testing.T) {
	w := testWorld(t, Config{})
	send := func() {
		e := w.several("B", true, "s1", "s2")
		e.Items[0].MsgID, e.Items[1].MsgID = "m1", "m2"
		for i := range e.Items {
			if d, ok := w.m.dedup[e.Items[i].MsgID]; ok {
				e.Items[i].Known = &d
			}
		}
		w.do(e)
	}
	send()
	w.want("a.B: accepted s1 and 1")
	first := w.id("s1")
	send()
	for _, line := range w.said {
		if strings.HasPrefix(line, "r.B") {
			t.Errorf("a reply subject that is the same was told: %s", line)
		}
	}
	if len(w.m.items) != 2 || w.m.items[first].MsgID != "m1" {
		t.Errorf("stored are %v", w.m.items)
	}
}

func TestRepliesOfABatchCarryTheirKeys(t *testing.T) {
	w := testWorld(t, Config{})
	w.do(w.several("B", false, "s1"), w.several("C", true, "s2", "s3"))
	w.register("p1", 3)
	w.said = nil
	w.do(w.answeredAll("s3", "s1", "s2"))
	w.want("r.B s1: final s1 done", "r.C s3 g: final s3 done", "r.C s2 g: final s2 done")
}

func TestAStoredReplyKeepsItsKeyOverARestart(t *testing.T) {
	w := testWorld(t, Config{})
	w.do(w.several("B", true, "s1"))
	w.register("p1", 1)
	w.gone("r.B")
	w.said = nil
	w.answer("s1", 1, "done")
	w.want("nobody at r.B s1 g: final done")
	w.restart()
	w.advance(time.Second)
	w.want()
	w.back("r.B")
	w.advance(time.Second)
	w.want("r.B s1 g: final done (again)")
	w.advance(time.Second)
	if len(w.m.replies) != 0 {
		t.Errorf("on record are %v", w.m.replies)
	}
}

func TestWorkInOneMessage(t *testing.T) {
	w := testWorld(t, Config{})
	w.registerBatch("p1", 9, 2)
	w.do(w.several("B", false, "s1", "s2", "s3"))
	w.want("p1: work [s1 #1] [s2 #1]", "p1: work [s3 #1]", "a.B: accepted s1 and 2")
	w.send("s4")
	w.want("p1: work [s4 #1]", "a.s4: accepted s4")
}

func TestWorkOfOneRoundIsSharedOutInTurn(t *testing.T) {
	w := testWorld(t, Config{})
	w.registerBatch("p1", 9, 9)
	w.register("p2", 9)
	w.registerBatch("p3", 1, 9)
	w.said = nil
	w.do(w.sent("s1"), w.sent("s2"), w.sent("s3"), w.sent("s4"), w.sent("s5"))
	w.want("p1: work [s1 #1] [s4 #1]", "p3: work [s3 #1]", "p2: work s2 #1", "p2: work s5 #1",
		"a.s1: accepted s1", "a.s2: accepted s2", "a.s3: accepted s3", "a.s4: accepted s4", "a.s5: accepted s5")
}

func TestAMessageOfWorkHasALimitOfBytes(t *testing.T) {
	w := testWorld(t, Config{}, func(o *Options) { o.MaxMessage = 200 })
	w.registerBatch("p1", 9, 9)
	e := w.several("B", false, "s1", "s2", "s3", "s4")
	for i := range e.Items {
		e.Items[i].Header = wire.Header{"X": {strings.Repeat("x", 40)}}
	}
	e.Items[3].Header = wire.Header{"X": {strings.Repeat("x", 400)}}
	w.do(e)
	w.want("p1: work [s1 #1] [s2 #1]", "p1: work [s3 #1]", "p1: work [s4 #1]", "a.B: accepted s1 and 3")
}

// Nobody was there: all of the message goes to somebody else at once, and nobody is said to have died with it.
func TestAMessageThatNobodyHears(t *testing.T) {
	w := testWorld(t, Config{MaxDeaths: 1})
	w.registerBatch("p1", 9, 9)
	w.away["p1"] = true
	w.do(w.several("B", false, "s1", "s2", "s3"))
	w.want("nobody at p1: work [s1 #1] [s2 #1] [s3 #1]", "a.B: accepted s1 and 2")
	w.registerBatch("p2", 9, 9)
	if w.q.stats.Leased != 3 {
		t.Errorf("%d are leased", w.q.stats.Leased)
	}
	w.do(&AnsweredBatch{Answers: []Answered{
		*w.answered("s1", 2, "x", nil, ""), *w.answered("s2", 2, "y", nil, ""), *w.answered("s3", 2, "z", nil, ""),
	}})
	w.want("r.B s1: final x", "r.B s2: final y", "r.B s3: final z")
}

// The first item of the message may have been completed by an answer to an earlier attempt before word comes that nobody heard.
func TestAMessageThatNobodyHearsAndWhoseFirstItemIsDone(t *testing.T) {
	w := testWorld(t, Config{ProcessTimeout: time.Second})
	w.register("p1", 1)
	w.send("s1")
	w.send("s2")
	w.advance(time.Second)
	w.said, w.auto = nil, false
	w.away["p2"] = true
	w.do(&Registered{Registration: wire.Registration{Processor: "p2", Capacity: 9, Batch: 9}})
	w.want("nobody at p2: work [s1 #2] [s2 #1]")
	w.answer("s1", 1, "late")
	w.want()
	w.word()
	w.want("p1: work s2 #2")
	if len(w.q.late) != 0 {
		t.Errorf("%d leases are late", len(w.q.late))
	}
}

func TestAnswersInOneMessageHaveOutcomesOfTheirOwn(t *testing.T) {
	w := testWorld(t, Config{Backoff: Backoff{Fixed: true, Base: time.Hour}})
	w.registerBatch("p1", 9, 9)
	w.do(w.several("B", false, "s1", "s2", "s3", "s4"))
	w.said = nil
	w.do(&AnsweredBatch{Answers: []Answered{
		*w.answered("s1", 1, "done", nil, ""),
		*w.answered("s2", 1, "-NAK", nil, ""),
		*w.answered("s3", 1, "", wire.Header{wire.HeaderError: {"broke"}}, ""),
		*w.answered("s4", 1, "+TERM no", nil, ""),
	}})
	w.want("p1: work [s2 #2]", "r.B s1: final done", "r.B s4: final error dead")
	if c := w.counts(); c.Delayed != 1 || c.Dead != 1 || c.Ready != 1 {
		t.Errorf("counts are %+v", c)
	}
}

func TestARegistrationKeepsItsBatchOverARestart(t *testing.T) {
	w := testWorld(t, Config{})
	w.registerBatch("p1", 9, 9)
	w.restart()
	w.do(w.several("B", false, "s1", "s2"))
	w.want("p1: work [s1 #1] [s2 #1]", "a.B: accepted s1 and 1")
	w.register("p1", 9)
	w.said = nil
	w.send("s3")
	w.want("p1: work s3 #1", "a.s3: accepted s3")
}

// An item that stays must not keep the memory of the message it came in.
func TestAnItemThatStaysPartsFromItsMessage(t *testing.T) {
	for name, stay := range map[string]func(w *world){
		"a long lease":  func(w *world) { w.advance(leaseWriteAfter) },
		"it comes back": func(w *world) { w.answer("s1", 1, "-NAK") },
	} {
		w := testWorld(t, Config{})
		w.registerBatch("p1", 9, 9)
		e := w.several("B", true, "s1")
		body, reply := unsafe.SliceData(e.Items[0].Body), unsafe.StringData(e.Items[0].Reply)
		w.do(e)
		stay(w)
		it := w.q.items[w.id("s1")]
		if unsafe.SliceData(it.rec.Body) == body || unsafe.StringData(it.rec.Reply) == reply || unsafe.StringData(it.replyTo) == reply {
			t.Errorf("%s: it refers to the message still", name)
		}
		if string(it.rec.Body) != "s1" || it.replyTo != "r.B s1 g" || it.rec.Reply != it.replyTo {
			t.Errorf("%s: it is %q for %q, %q", name, it.rec.Body, it.replyTo, it.rec.Reply)
		}
	}
}

func TestAQueueInMemoryKeepsNoMessageOfABatch(t *testing.T) {
	w := testWorld(t, Config{}, inMemory)
	e := w.several("B", true, "s1")
	w.do(e)
	if rec := w.m.items[w.id("s1")]; unsafe.SliceData(rec.Body) == unsafe.SliceData(e.Items[0].Body) || string(rec.Body) != "s1" {
		t.Errorf("the store refers to the message still, with %q", rec.Body)
	}
}

func TestTheReplyOfAnUnwrittenItemOfABatchIsKept(t *testing.T) {
	w := busyWriting(t, Config{})
	w.do(w.several("B", true, "s1"))
	w.gone("r.B")
	w.answer("s1", 1, "done")
	w.want("p1: work s1 #1", "nobody at r.B s1 g: final done")
	w.commit(nil)
	w.want()
	w.commit(nil)
	w.want("a.B: accepted s1 and 0")
}
