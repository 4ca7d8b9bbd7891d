package queue

import (
	"fmt"
	"testing"
	"time"

	"stint/store"
)

func TestCapacityIsHowManyItemsAProcessorHolds(t *testing.T) {
	w := testWorld(t, Config{})
	w.register("p1", 2)
	for _, s := range []string{"s1", "s2", "s3"} {
		w.send(s)
	}
	w.want("reg.p1: ok", "p1: work s1 #1", "a.s1: accepted s1", "p1: work s2 #1", "a.s2: accepted s2", "a.s3: accepted s3")
	w.answer("s2", 1, "done")
	w.want("p1: work s3 #1", "r.s2: final done")
}

func TestRegisteringAgainReplacesTheCapacity(t *testing.T) {
	w := testWorld(t, Config{})
	w.register("p1", 1)
	w.register("p1", 1)
	for _, s := range []string{"s1", "s2", "s3", "s4"} {
		w.send(s)
	}
	w.want("reg.p1: ok", "reg.p1: ok", "p1: work s1 #1", "a.s1: accepted s1", "a.s2: accepted s2", "a.s3: accepted s3", "a.s4: accepted s4")
	w.register("p1", 3)
	w.want("p1: work s2 #1", "p1: work s3 #1", "reg.p1: ok")
	w.register("p1", 1)
	w.answer("s1", 1, "")
	w.answer("s2", 1, "")
	w.want("reg.p1: ok", "r.s1: final ", "r.s2: final ")
	w.answer("s3", 1, "")
	w.want("p1: work s4 #1", "r.s3: final ")
}

func TestRegistrationsAreStoredBeforeOkIsSaid(t *testing.T) {
	w := testWorld(t, Config{})
	w.auto = false
	w.register("p1", 2)
	w.want()
	w.commit(nil)
	w.want("reg.p1: ok")
	if r := w.m.regs["p1"]; r.Capacity != 2 || r.Seen != start.UnixMilli() {
		t.Errorf("stored is %+v", r)
	}
	w.auto = true
	w.restart()
	w.send("s1")
	w.want("p1: work s1 #1", "a.s1: accepted s1")
}

func TestNoWorkAfterTheOkOfUnregister(t *testing.T) {
	w := atWork(t, Config{})
	w.unregister("p1")
	w.send("s2")
	w.answer("s1", 1, "done")
	w.want("reg.p1: ok", "a.s2: accepted s2", "r.s1: final done")
	if len(w.m.regs) != 0 || len(w.q.leaving) != 0 {
		t.Error("the registration is still known")
	}
}

func TestUnregisterAndRegisterDoNotMakeTwoSetsOfSlots(t *testing.T) {
	w := atWork(t, Config{})
	w.unregister("p1")
	w.register("p1", 1)
	w.send("s2")
	w.want("reg.p1: ok", "reg.p1: ok", "a.s2: accepted s2")
	w.answer("s1", 1, "done")
	w.want("p1: work s2 #1", "r.s1: final done")
}

func TestASilentProcessorIsWithheldUntilItAnswers(t *testing.T) {
	w := testWorld(t, Config{ProcessTimeout: time.Second})
	w.register("p1", 3)
	w.send("s1", timeout(300*time.Millisecond))
	w.send("s2")
	w.said = nil
	w.advance(299 * time.Millisecond)
	w.want()
	w.advance(time.Millisecond)
	w.send("s3")
	w.want("a.s3: accepted s3")
	w.answer("s2", 1, "done")
	w.want("p1: work s1 #2", "p1: work s3 #1", "r.s2: final done")
}

func TestASilentProcessorIsWithheldUntilItRegistersAgain(t *testing.T) {
	w := atWork(t, Config{ProcessTimeout: time.Second})
	w.advance(time.Second)
	w.send("s2")
	w.want("a.s2: accepted s2")
	w.register("p1", 1)
	w.want("p1: work s1 #2", "reg.p1: ok")
}

func TestARegistrationHasALimit(t *testing.T) {
	w := testWorld(t, Config{MaxProcessors: 2})
	w.register("p1", 1)
	w.register("p2", 1)
	w.register("p3", 1)
	w.want("reg.p1: ok", "reg.p2: ok", "reg.p3: error queue_full")
	w.gone("p2")
	w.do(Presence{Processor: "p2"})
	w.register("p3", 1)
	w.want("reg.p3: ok")
	if len(w.m.regs) != 2 || w.m.regs["p3"].Capacity != 1 {
		t.Errorf("stored are %v", w.m.regs)
	}
}

func TestAnAbsentRegistrationIsDroppedInTheEnd(t *testing.T) {
	w := testWorld(t, Config{RegistrationTTL: time.Hour})
	w.register("p1", 1)
	w.register("p2", 1)
	w.do(Presence{Processor: "p1"})
	w.advance(time.Hour - time.Millisecond)
	if len(w.m.regs) != 2 {
		t.Fatal("dropped too early")
	}
	w.advance(time.Millisecond)
	if len(w.m.regs) != 1 || w.m.regs["p2"].Capacity != 1 || w.q.Stats().Absent != 0 {
		t.Errorf("stored are %v, %d absent", w.m.regs, w.q.Stats().Absent)
	}
}

func TestProcessorsThatComeAndGoLeaveNothingBehind(t *testing.T) {
	w := testWorld(t, Config{ProcessTimeout: time.Second})
	w.register("idle", 1)
	for n := range 500 {
		p := fmt.Sprintf("p%d", n)
		w.register(p, 1)
		w.unregister(p)
	}
	if n := len(w.q.room.turn); n > 130 {
		t.Errorf("%d entries in turn for one processor", n)
	}
}

func TestASilentProcessorThatHasLeftIsForgotten(t *testing.T) {
	for _, leaveFirst := range []bool{true, false} {
		w := atWork(t, Config{ProcessTimeout: time.Second})
		if leaveFirst {
			w.unregister("p1")
		}
		w.advance(time.Second)
		if !leaveFirst {
			w.unregister("p1")
		}
		if len(w.q.late)+len(w.q.leaving) != 0 {
			t.Errorf("left before the timeout %v: %d late leases and %d leaving stay", leaveFirst, len(w.q.late), len(w.q.leaving))
		}
		w.register("p2", 1)
		w.answer("s1", 2, "done")
		if len(w.m.items) != 0 {
			t.Error("the item is still there")
		}
	}
}

func TestALateHolderThatHasLeftIsForgottenAtItsDeadline(t *testing.T) {
	w := testWorld(t, Config{ProcessTimeout: time.Second})
	w.register("p1", 1)
	w.register("p2", 1)
	w.send("s1")
	w.advance(time.Second)
	w.answer("s1", 1, "late, but first")
	w.unregister("p2")
	w.advance(time.Second)
	if len(w.q.late)+len(w.q.leaving) != 0 {
		t.Errorf("%d late leases and %d leaving stay", len(w.q.late), len(w.q.leaving))
	}
}

func TestWorkGoesRoundRobin(t *testing.T) {
	w := testWorld(t, Config{})
	for _, p := range []string{"p1", "p2", "p3"} {
		w.register(p, 2)
	}
	w.said = nil
	for n := range 7 {
		w.do(w.sent(fmt.Sprintf("s%d", n), func(e *Sent) { e.AcceptedReply = "" }))
	}
	w.want("p1: work s0 #1", "p2: work s1 #1", "p3: work s2 #1", "p1: work s3 #1", "p2: work s4 #1", "p3: work s5 #1")
	w.answer("s4", 1, "")
	w.want("p2: work s6 #1", "r.s4: final ")
}

func TestAFullProcessorIsPassedOver(t *testing.T) {
	w := testWorld(t, Config{})
	w.register("p1", 1)
	w.register("p2", 2)
	w.said = nil
	for n := range 3 {
		w.do(w.sent(fmt.Sprintf("s%d", n), func(e *Sent) { e.AcceptedReply = "" }))
	}
	w.want("p1: work s0 #1", "p2: work s1 #1", "p2: work s2 #1")
}

func TestWhoeverSubscribesNextIsNotTheOneThatWasSilent(t *testing.T) {
	w := atWork(t, Config{ProcessTimeout: time.Second})
	w.advance(time.Second)
	w.do(Presence{Processor: "p1"}, Presence{Processor: "p1", Present: true})
	w.want("p1: work s1 #2")
}

func TestAStoppingQueueGivesNothingOut(t *testing.T) {
	w := atWork(t, Config{})
	w.send("s2")
	w.do(Drain{})
	w.answer("s1", 1, "done")
	w.want("a.s2: accepted s2", "r.s1: final done")
}

func TestARegistrationThatCouldNotBeWrittenIsTriedAgain(t *testing.T) {
	w := testWorld(t, Config{})
	w.auto = false
	w.register("p1", 1)
	w.commit(store.ErrFull)
	w.auto = true
	w.advance(retryWrite)
	w.want("reg.p1: ok")
}

func TestRegistrationsWhileStoppingAreRefused(t *testing.T) {
	w := testWorld(t, Config{})
	w.do(Drain{})
	w.register("p1", 1)
	w.want("reg.p1: error shutting_down")
}
