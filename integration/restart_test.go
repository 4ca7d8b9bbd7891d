package integration

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"stint/integration/harness"
	"stint/wire"
)

// leaseWritten is how long work has been with a processor when that is on disk: it is written after half a second, and the
// rest is for a machine that is busy with something else.
const leaseWritten = 1500 * time.Millisecond

// TestStoredRegistrations: processors that are subscribed again after a kill -9 of the broker get work without a new
// registration; so does one that has been restarted itself and only subscribes.
func TestStoredRegistrations(t *testing.T) {
	b := harness.NewBroker(t, harness.Binary(t), harness.Config(harness.Durable("q")))
	b.Start()
	events := make(chan harness.Event, 64)
	var procs []*harness.Processor
	for _, name := range []string{"p.a", "p.b"} {
		procs = append(procs, harness.StartProcessor(t, harness.Spec{URL: b.URL, Queue: "q", Subject: name}, events))
		expect(t, events, harness.Registered)
	}
	b.Kill()
	silent := procs[1].Spec
	silent.Silent = true
	procs[1].Kill()
	harness.StartProcessor(t, silent, events)
	b.Start()
	nc := b.Connect()
	var by []string
	for i := range 4 {
		s := ask(t, nc, "q", harness.Order{ID: fmt.Sprint(i), Work: 300})
		s.accepted(t)
		defer s.answer(t)
	}
	for range 4 {
		by = append(by, await(t, events, harness.Got).By)
	}
	slices.Sort(by)
	if !slices.Equal(by, []string{"p.a", "p.a", "p.b", "p.b"}) {
		t.Errorf("the items went to %v, want two to each", by)
	}
}

// TestTerminate: after SIGTERM nothing is taken in or given out, what is in hand may be answered, and the rest is there
// at the next start.
func TestTerminate(t *testing.T) {
	b := harness.NewBroker(t, harness.Binary(t), harness.Config(harness.Durable("q")))
	b.Start()
	events := make(chan harness.Event, 64)
	harness.StartProcessor(t, harness.Spec{URL: b.URL, Queue: "q", Subject: "p", Capacity: 2}, events)
	expect(t, events, harness.Registered)
	nc := b.Connect()
	var all []sent
	for i := range 5 {
		all = append(all, ask(t, nc, "q", harness.Order{ID: fmt.Sprint(i), Work: 1000}))
	}
	for range 2 {
		expect(t, events, harness.Got)
	}
	for _, s := range all {
		s.accepted(t)
	}
	b.Terminate()
	harness.Until(t, soon, "new items are refused", func() bool {
		in := newInbox(t, nc)
		if err := nc.PublishRequest("q", in.subject, []byte("late")); err != nil {
			t.Fatal(err)
		}
		select {
		case m := <-in.c:
			st, _ := wire.ParseStatus(m.Data)
			return st.Code == string(wire.CodeShuttingDown)
		case <-time.After(50 * time.Millisecond):
			return false
		}
	})
	for _, s := range all[:2] {
		if a := s.answer(t); a.Attempt != 1 {
			t.Errorf("answer %+v while draining", a)
		}
	}
	if code := b.Wait(); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
	for e := range drained(events) {
		if e.Kind == harness.Got {
			t.Errorf("%+v was given out while draining", e)
		}
	}
	b.Start()
	for i, s := range all[2:] {
		if a := s.answer(t); a.ID != fmt.Sprint(i+2) {
			t.Errorf("answer %+v after the restart, want item %d", a, i+2)
		}
	}
	for _, s := range all {
		harness.None(t, s.reply.c, 20*time.Millisecond, "a second final")
	}
}

// drained yields what waits in the channel.
func drained(events <-chan harness.Event) func(yield func(harness.Event) bool) {
	return func(yield func(harness.Event) bool) {
		for {
			select {
			case e := <-events:
				if !yield(e) {
					return
				}
			default:
				return
			}
		}
	}
}

// TestDrainTimeout: work that is not answered within drain_timeout stays with its processor, whose answer the next
// broker takes.
func TestDrainTimeout(t *testing.T) {
	config := harness.Config(harness.Durable("q"))
	config["drain_timeout"] = 200
	b := harness.NewBroker(t, harness.Binary(t), config)
	b.Start()
	events := make(chan harness.Event, 64)
	harness.StartProcessor(t, harness.Spec{URL: b.URL, Queue: "q", Subject: "p"}, events)
	expect(t, events, harness.Registered)
	s := ask(t, b.Connect(), "q", harness.Order{ID: "1", Work: 5000})
	expect(t, events, harness.Got)
	began := time.Now()
	b.Stop()
	if took := time.Since(began); took < 200*time.Millisecond || took > 4500*time.Millisecond {
		t.Errorf("it stopped after %v, want a little more than 200ms", took)
	}
	b.Start()
	if a := s.answer(t); a.Attempt != 1 {
		t.Errorf("answer %+v, want that of the first delivery", a)
	}
	if e := expect(t, events, harness.Answered); e.Attempt != 1 {
		t.Errorf("%+v, want one delivery only", e)
	}
}

// TestLongWork: work that has been with a processor for more than half a second is not given out again when the broker
// is killed and comes back, whether its answer comes after that or was given while there was no broker.
func TestLongWork(t *testing.T) {
	for _, work := range []time.Duration{2 * time.Second, 4 * time.Second} {
		t.Run(work.String(), func(t *testing.T) {
			b := harness.NewBroker(t, harness.Binary(t), harness.Config(harness.Durable("q")))
			b.Start()
			events := make(chan harness.Event, 64)
			for i := range 4 {
				harness.StartProcessor(t, harness.Spec{URL: b.URL, Queue: "q", Subject: fmt.Sprintf("p.%d", i)}, events)
				expect(t, events, harness.Registered)
			}
			nc := b.Connect()
			var all []sent
			for i := range 4 {
				all = append(all, ask(t, nc, "q", harness.Order{ID: fmt.Sprint(i), Work: int(work.Milliseconds())}))
				expect(t, events, harness.Got)
			}
			<-time.After(leaseWritten)
			b.Kill()
			<-time.After(time.Second) // the shorter work is answered in this time
			b.Start()
			for _, s := range all {
				if a := s.answer(t); a.Attempt != 1 {
					t.Errorf("answer %+v, want that of the first delivery", a)
				}
			}
			for e := range drained(events) {
				if e.Kind == harness.Got {
					t.Errorf("%+v, want one delivery of each item", e)
				}
			}
		})
	}
}

// TestLostAnswer: an answer that is lost because the broker is killed costs its processor nothing: when the item's time is
// up, the one processor there is has it again, and what waits behind it.
func TestLostAnswer(t *testing.T) {
	const timeout = 2 * time.Second
	b := harness.NewBroker(t, harness.Binary(t),
		harness.Config(harness.Durable("q", harness.Queue{"process_timeout": timeout.Milliseconds()})))
	b.Start()
	events := make(chan harness.Event, 64)
	harness.StartProcessor(t, harness.Spec{URL: b.URL, Queue: "q", Subject: "p"}, events)
	expect(t, events, harness.Registered)
	nc := b.Connect()
	first := ask(t, nc, "q", harness.Order{ID: "1", Do: harness.DoHoldFirst}) // as if it were answered into a dead connection
	expect(t, events, harness.Got)
	second := ask(t, nc, "q", harness.Order{ID: "2"})
	second.accepted(t)
	<-time.After(leaseWritten)
	b.Kill()
	began := time.Now()
	b.Start()
	for i, s := range []sent{first, second} {
		if a := s.answer(t); a.ID != fmt.Sprint(i+1) {
			t.Errorf("answer %+v, want that of item %d", a, i+1)
		}
	}
	if took := time.Since(began); took < timeout {
		t.Errorf("the item was given out again after %v, want its processor to have %v", took, timeout)
	}
}

// TestAnswersWhileDown: answers that were given while there was no broker are sent by the processors' clients the moment
// they are connected again, which is before the broker itself is ready. None is lost.
func TestAnswersWhileDown(t *testing.T) {
	const n = 50
	b := harness.NewBroker(t, harness.Binary(t), harness.Config(harness.Durable("q")))
	b.Start()
	eager := nats.CustomReconnectDelay(func(int) time.Duration { return time.Millisecond })
	held := make(chan *nats.Msg, 2*n)
	var conns []*nats.Conn
	for i := range n {
		name, nc := fmt.Sprintf("p.%d", i), b.Connect(eager)
		conns = append(conns, nc)
		processor(t, nc, "q", name, `{"processor":"`+name+`"}`, func(m *nats.Msg) { held <- m })
	}
	nc := b.Connect()
	reply := newInbox(t, nc)
	for range n {
		publish(t, nc, &nats.Msg{Subject: "q", Reply: reply.subject})
	}
	var work []*nats.Msg
	for range n {
		work = append(work, harness.Next(t, held, soon, "work"))
	}
	<-time.After(leaseWritten)
	b.Kill()
	for _, nc := range conns {
		harness.Until(t, soon, "the client knows that the server is gone", nc.IsReconnecting)
	}
	for _, m := range work {
		done(m)
	}
	b.Start()
	for range n {
		if m := reply.next(t); string(m.Data) != "done" {
			t.Errorf("reply %q", m.Data)
		}
	}
	harness.None(t, held, 0, "work was given out a second time")
}
