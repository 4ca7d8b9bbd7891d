package integration

import (
	"testing"
	"time"

	"stint/integration/harness"
)

// killAtAccept sends bursts of large items that nobody processes, kills the broker the moment the first of a burst is
// said to be accepted, and has everything processed in the end.
func killAtAccept(t *testing.T, binary string, rounds int, drain time.Duration) *harness.Verdict {
	t.Helper()
	c := newCampaign(t, binary, seed())
	for range 2 {
		c.sender(harness.SenderOptions{
			Accept: harness.AcceptHeader, Every: 20 * time.Millisecond, Burst: 100, Window: 1000, Total: 100 * rounds,
			Compose: bulky(20_000), Drain: drain,
		})
	}
	for range rounds {
		c.atAccept()
		c.kill(c.broker)
		c.restart()
	}
	c.processors(2, 10)
	return c.end()
}

// TestKillAtAccept: the moment the sender has heard it, the item is safe. A build that says so before its commit loses
// items at that very moment, and the harness must see it.
func TestKillAtAccept(t *testing.T) {
	t.Run("right", func(t *testing.T) {
		mustBeGood(t, killAtAccept(t, harness.Binary(t), 10, 30*time.Second), 100)
	})
	t.Run("accepted before the commit", func(t *testing.T) {
		v := killAtAccept(t, harness.Binary(t, "defect_earlyaccept"), 10, 3*time.Second)
		if len(v.Lost) == 0 {
			t.Error("a broker that says accepted before its commit was not caught")
		}
	})
}

// TestSilent: a processor that takes an item and says nothing more, on a connection that stays, loses it at the process
// timeout. A build whose lease timer does not run leaves the item with it for ever, and the harness must see it.
func TestSilent(t *testing.T) {
	const timeout = time.Second
	t.Run("right", func(t *testing.T) {
		took := untilAnother(t, harness.Binary(t), timeout, timeout+soon)
		const travel = timeout / 2 // the first delivery's, at most; the timeout runs from before it
		if took < timeout-travel {
			t.Errorf("another processor had the item after %v, before the process timeout of %v", took, timeout)
		}
		t.Logf("another processor had it after %v", took)
	})
	t.Run("no lease timer", func(t *testing.T) {
		if took := untilAnother(t, harness.Binary(t, "defect_noleasetimer"), timeout, 3*time.Second); took != 0 {
			t.Errorf("a broker without a lease timer was not caught: another processor had the item after %v", took)
		}
	})
}

// untilAnother has a processor hold an item in silence and measures how long it takes until another has it. 0: longer
// than the limit.
func untilAnother(t *testing.T, binary string, timeout, limit time.Duration) time.Duration {
	t.Helper()
	b := harness.NewBroker(t, binary, harness.Config(harness.Durable("q", harness.Queue{"process_timeout": timeout.Milliseconds()})))
	b.Start()
	events := make(chan harness.Event, 16)
	for _, name := range []string{"proc.a", "proc.b"} {
		harness.StartProcessor(t, harness.Spec{URL: b.URL, Queue: "q", Subject: name}, events)
		expect(t, events, harness.Registered)
	}
	ask(t, b.Connect(), "q", harness.Order{ID: "1", Do: harness.DoHoldFirst})
	first := expect(t, events, harness.Got)
	select {
	case second := <-events:
		if second.Kind != harness.Got || second.By == first.By || second.Attempt != 2 {
			t.Errorf("after %+v came %+v, want the second delivery, to the other processor", first, second)
		}
		return second.When().Sub(first.When())
	case <-time.After(limit):
		return 0
	}
}
