package queue

import (
	"fmt"
	"testing"
	"time"

	"stint/store"
)

func TestTheProcessTimeoutIsExactToTheMillisecond(t *testing.T) {
	for _, own := range []time.Duration{0, 123 * time.Millisecond, time.Hour} {
		w := testWorld(t, Config{ProcessTimeout: 700 * time.Millisecond})
		w.register("p1", 1)
		w.register("p2", 1)
		w.send("s1", timeout(own))
		w.said = nil
		limit := own
		if own == 0 {
			limit = 700 * time.Millisecond
		}
		w.advance(limit - time.Millisecond)
		w.want()
		w.advance(time.Millisecond)
		w.want("p2: work s1 #2")
		if r := w.m.items[w.id("s1")]; r.Attempts != 1 || r.Deaths != 0 {
			t.Errorf("stored is %+v", r.Marks)
		}
	}
}

func TestWhatTimedOutIsAheadOfNewerWork(t *testing.T) {
	w := atWork(t, Config{ProcessTimeout: time.Second})
	w.send("s2")
	w.advance(time.Second)
	w.register("p2", 2)
	w.want("a.s2: accepted s2", "p2: work s1 #2", "p2: work s2 #1", "reg.p2: ok")
}

func TestSilenceEndsAsADeadLetter(t *testing.T) {
	w := atWork(t, Config{ProcessTimeout: time.Second, MaxAttempts: 2})
	w.register("p2", 1)
	w.advance(2 * time.Second)
	w.want("reg.p2: ok", "p2: work s1 #2", "r.s1: final error dead")
	if r := w.m.items[w.id("s1")]; r.Reason != "no answer within the process timeout of 1000 ms" {
		t.Errorf("the dead letter says %q", r.Reason)
	}
}

func TestWaitingWorkExpires(t *testing.T) {
	cases := map[string]func(w *world){
		"in memory": func(w *world) { w.send("s1", ttl(time.Second)) },
		"beyond the window": func(w *world) {
			w.opt.WindowItems = 2
			w.restart()
			for _, s := range []string{"x1", "x2", "x3"} {
				w.send(s)
			}
			w.send("s1", ttl(time.Second))
			if w.q.items[w.id("s1")] != nil {
				w.t.Fatalf("it is in memory")
			}
		},
		"delayed": func(w *world) {
			w.send("s1", ttl(time.Second))
			w.register("p1", 1)
			w.answer("s1", 1, "-NAK 10s")
			w.unregister("p1")
		},
		"after a restart": func(w *world) {
			w.send("s1", ttl(time.Second))
			w.restart()
		},
	}
	for name, prepare := range cases {
		t.Run(name, func(t *testing.T) {
			w := testWorld(t, Config{})
			prepare(w)
			before := w.counts()
			w.said = nil
			w.advance(999 * time.Millisecond)
			w.want()
			w.advance(time.Millisecond)
			w.want("r.s1: final error expired")
			if c := w.counts(); c.Ready+c.Delayed != before.Ready+before.Delayed-1 {
				t.Errorf("%+v is counted, before %+v", c, before)
			}
		})
	}
}

func TestWorkInHandDoesNotExpireUntilItComesBack(t *testing.T) {
	for _, back := range []string{"-NAK", "-NAK 10s"} {
		w := atWork(t, Config{}, ttl(time.Second))
		w.advance(2 * time.Second)
		w.want()
		w.unregister("p1")
		w.answer("s1", 1, back)
		w.want("reg.p1: ok", "r.s1: final error expired")
		w = atWork(t, Config{}, ttl(time.Second))
		w.advance(2 * time.Second)
		w.answer("s1", 1, "done")
		w.want("r.s1: final done")
	}
}

func TestWhatExpiredBeforeItWasStoredIsAcceptedAndExpired(t *testing.T) {
	w := busyWriting(t, Config{})
	w.unregister("p1")
	w.send("s1", ttl(time.Second))
	w.now = w.now.Add(time.Second)
	w.register("p2", 1)
	w.want("r.s1: final error expired", "a.s1: accepted s1")
	w.commit(nil)
	if len(w.m.ever) != 0 {
		t.Error("it was written")
	}
}

func TestWhatExpiredOutOfTheIndexExpiresWhenItIsRead(t *testing.T) {
	for _, place := range []store.Place{{Area: store.Ready}, {Area: store.Delayed, Due: start.UnixMilli()}} {
		w := testWorld(t, Config{})
		w.m.items[77] = store.Record{Item: store.Item{ID: 77, Expires: start.UnixMilli() - 1, Reply: "r.s1"}, Place: place}
		w.restart()
		w.want("r.s1: final error expired")
	}
}

func TestManyItemsExpireOneAfterTheOther(t *testing.T) {
	w := testWorld(t, Config{})
	for n := range 600 {
		d := time.Second
		if n%2 == 0 {
			d += time.Duration(n) * time.Millisecond
		}
		w.send(fmt.Sprintf("s%d", n), ttl(d))
	}
	w.advance(1300 * time.Millisecond)
	if c := w.counts(); c.Ready != 149 || len(w.m.items) != 149 {
		t.Errorf("%+v is counted, %d stored; 149 should be left", c, len(w.m.items))
	}
	w.advance(300 * time.Millisecond)
	if c := w.counts(); c.Ready != 0 || len(w.m.items) != 0 {
		t.Errorf("%+v is counted, %d stored", c, len(w.m.items))
	}
}

func TestManyItemsBecomeDueAtOnce(t *testing.T) {
	w := testWorld(t, Config{WindowItems: 2000})
	w.register("p1", 600)
	for n := range 600 {
		w.send(fmt.Sprintf("s%d", n))
	}
	for n := range 600 {
		w.answer(fmt.Sprintf("s%d", n), 1, "-NAK 1s")
	}
	w.said = nil
	w.advance(time.Second)
	if len(w.said) != 600 || w.counts().Delayed != 0 {
		t.Errorf("%d are given out, %+v is counted", len(w.said), w.counts())
	}
}

func TestALeaseIsWrittenAfterHalfASecondAndNotBefore(t *testing.T) {
	w := atWork(t, Config{})
	w.advance(leaseWriteAfter - time.Millisecond)
	if len(w.m.leases) != 0 {
		t.Fatal("it is written already")
	}
	w.advance(time.Millisecond)
	want := store.Lease{ID: w.id("s1"), Attempt: 1, Processor: "p1", Timeout: 300_000}
	if w.m.leases[w.id("s1")] != want {
		t.Fatalf("stored are %+v", w.m.leases)
	}
	w.answer("s1", 1, "done")
	if len(w.m.leases) != 0 {
		t.Error("it is still there")
	}
}

func TestALeaseThatEndedLeavesTheDisk(t *testing.T) {
	w := atWork(t, Config{})
	w.advance(leaseWriteAfter)
	w.register("p2", 1)
	w.answer("s1", 1, "-NAK")
	if len(w.m.leases) != 0 {
		t.Errorf("stored are %+v, though p2 has it", w.m.leases)
	}
	w.advance(leaseWriteAfter)
	if w.m.leases[w.id("s1")].Attempt != 2 {
		t.Errorf("stored are %+v", w.m.leases)
	}
}

func TestNoTickIsWantedWhenNothingIsToCome(t *testing.T) {
	w := atWork(t, Config{})
	w.answer("s1", 1, "done")
	w.advance(time.Second)
	if next := w.q.Next(); !next.IsZero() {
		t.Errorf("a tick is wanted in %v", next.Sub(w.now))
	}
}

func TestAStoppingQueueDoesNotAskForTicksOverAndOver(t *testing.T) {
	w := atWork(t, Config{})
	w.answer("s1", 1, "-NAK 1s")
	w.do(Drain{})
	w.advance(time.Minute)
	w.want()
}
