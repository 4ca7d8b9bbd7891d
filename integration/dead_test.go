package integration

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"stint/integration/harness"
	"stint/wire"
)

// deathBound is how long the work of a processor that is killed may take to reach another one.
const deathBound = 100 * time.Millisecond

// TestKilledProcessor: what a killed processor held is with another within 100 ms, although the process timeout is the
// default, five minutes. Each of the rounds must hold.
//
// On a machine that is busy with other things anything can take longer than that. So at the moment of each kill an item
// goes through another queue, whose processor is well; what that takes, and what the system takes to end the process, is
// not held against the broker.
func TestKilledProcessor(t *testing.T) {
	const rounds = 8
	queues := []harness.Queue{harness.Durable("control")}
	for round := range rounds {
		queues = append(queues, harness.Durable(fmt.Sprintf("q%d", round)))
	}
	b := harness.NewBroker(t, harness.Binary(t), harness.Config(queues...))
	b.Start()
	control := make(chan harness.Event, 4*rounds)
	harness.StartProcessor(t, harness.Spec{URL: b.URL, Queue: "control", Subject: "control.p"}, control)
	expect(t, control, harness.Registered)
	for round := range rounds {
		moved, other := moveOn(t, b, fmt.Sprintf("q%d", round), control)
		t.Logf("with another processor after %v; meanwhile other things took %v", moved.Round(10*time.Microsecond),
			other.Round(10*time.Microsecond))
		if moved > other+deathBound {
			t.Errorf("round %d: it took %v until another processor had all of the work, want at most %v", round, moved, deathBound)
		}
	}
}

// moveOn kills a processor that holds some items. It returns how long it takes until another one has them all, and how
// long it takes for the process to be gone and for an item of the control queue to be delivered.
func moveOn(t *testing.T, b *harness.Broker, queue string, control <-chan harness.Event) (moved, other time.Duration) {
	t.Helper()
	const held = 8
	nc, events := b.Connect(), make(chan harness.Event, 64)
	start := func(name string) *harness.Processor {
		spec := harness.Spec{URL: b.URL, Queue: queue, Subject: queue + "." + name, Capacity: held}
		p := harness.StartProcessor(t, spec, events)
		expect(t, events, harness.Registered)
		return p
	}
	victim := start("victim")
	var all []sent
	for i := range held {
		all = append(all, ask(t, nc, queue, harness.Order{ID: fmt.Sprint(i), Do: harness.DoHoldFirst}))
		expect(t, events, harness.Got)
	}
	heir := start("heir")
	killed := time.Now()
	victim.Kill()
	ask(t, nc, "control", harness.Order{ID: queue})
	for range held {
		e := await(t, events, harness.Got)
		if e.By != heir.Spec.Subject || e.Attempt != 2 {
			t.Errorf("%+v, want a second delivery to %s", e, heir.Spec.Subject)
		}
		moved = e.When().Sub(killed)
	}
	other = await(t, control, harness.Got).When().Sub(killed)
	for _, s := range all {
		if a := s.answer(t); a.By != heir.Spec.Subject {
			t.Errorf("answered by %s", a.By)
		}
	}
	heir.Kill()
	return moved, other
}

// TestFrozenProcessor: a processor that stands still keeps its connection, so its work moves on at the process timeout.
// When it wakes up, its late answer counts if it is the first, and the other one changes nothing.
func TestFrozenProcessor(t *testing.T) {
	b := harness.NewBroker(t, harness.Binary(t), harness.Config(harness.Durable("q", harness.Queue{"process_timeout": 500})))
	b.Start()
	events := make(chan harness.Event, 64)
	frozen := harness.StartProcessor(t, harness.Spec{URL: b.URL, Queue: "q", Subject: "frozen"}, events)
	expect(t, events, harness.Registered)
	nc := b.Connect()
	s := ask(t, nc, "q", harness.Order{ID: "1", Work: 300})
	expect(t, events, harness.Got)
	frozen.Freeze()
	held := make(chan *nats.Msg, 16)
	processor(t, b.Connect(), "q", "other", `{"processor":"other"}`, func(m *nats.Msg) { held <- m })
	second := harness.Next(t, held, soon, "the second delivery")
	if _, attempt, _ := wire.ParseLease("q", second.Reply); attempt != 2 {
		t.Fatalf("the other was given %s, want the second delivery", second.Reply)
	}
	frozen.Thaw()
	if a := s.answer(t); a.By != "frozen" || a.Attempt != 1 {
		t.Errorf("the reply is %+v, want that of the one who answered first", a)
	}
	done(second)
	harness.None(t, s.reply.c, 100*time.Millisecond, "a second final")
	// Both are taken back into service.
	await(t, events, harness.Answered)
	for range 2 {
		ask(t, nc, "q", harness.Order{ID: "2"})
	}
	if e := expect(t, events, harness.Got); e.By != "frozen" {
		t.Errorf("%+v, want work for the one that was frozen", e)
	}
	harness.Next(t, held, soon, "work for the other")
}

// TestPoison: an item that kills every processor it comes to is a dead letter after max_deaths, and the rest is served.
func TestPoison(t *testing.T) {
	const deaths = 3
	b := harness.NewBroker(t, harness.Binary(t), harness.Config(harness.Durable("q", harness.Queue{"max_deaths": deaths})))
	b.Start()
	events := make(chan harness.Event, 64)
	for i := range deaths {
		harness.StartProcessor(t, harness.Spec{URL: b.URL, Queue: "q", Subject: fmt.Sprintf("victim.%d", i)}, events)
		expect(t, events, harness.Registered)
	}
	nc := b.Connect()
	s := ask(t, nc, "q", harness.Order{ID: "poison", Do: harness.DoCrash})
	for range deaths {
		expect(t, events, harness.Got)
	}
	s.reply.refused(t, wire.CodeDead)
	harness.StartProcessor(t, harness.Spec{URL: b.URL, Queue: "q", Subject: "survivor"}, events)
	expect(t, events, harness.Registered)
	ask(t, nc, "q", harness.Order{ID: "good"}).answer(t)
	if e := expect(t, events, harness.Got); e.ID != "good" {
		t.Errorf("%+v, want the good item only", e)
	}
}
