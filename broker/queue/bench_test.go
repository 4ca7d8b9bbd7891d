package queue

import (
	"testing"
	"time"

	"stint/store"
	"stint/wire"
)

// cycle is what one item costs the rules: send, lease, answer.
type cycle struct {
	q   *Queue
	now time.Time
	out Out
	n   uint64
}

func newCycle(b *testing.B) *cycle {
	c := &cycle{now: start}
	c.q = New(Options{Config: Config{Address: "q"}.WithDefaults(true), Persistent: true, Watched: true}, store.Snapshot{Epoch: 1}, start)
	for _, p := range []string{"p1", "p2", "p3", "p4"} {
		c.step(&Registered{Registration: wire.Registration{Processor: p, Capacity: 1000}})
	}
	c.commit(b)
	b.ReportAllocs()
	b.ResetTimer()
	return c
}

func (c *cycle) step(ev Event) {
	c.q.Step(c.now, ev, &c.out)
}

// item sends one item and returns the event of its answer. Events are made by the bus, once for each message.
func (c *cycle) item(body []byte) *Answered {
	c.n++
	c.now = c.now.Add(10 * time.Microsecond)
	c.step(&Sent{Reply: "r", Body: body, Send: wire.Send{AcceptedReply: "a"}})
	return &Answered{Item: 1<<store.EpochShift + c.n, Attempt: 1, Answer: wire.Answer{Kind: wire.Done, Body: body}}
}

// perform stands for the actor: finals are heard, the server has what it was given.
func (c *cycle) perform() {
	for i := 0; i < len(c.out.Msgs); i++ {
		if m := &c.out.Msgs[i]; m.Kind == Final {
			c.step(Settled{Item: m.Item, Outcome: Outcome{Delivered: true}})
		}
	}
	token := c.out.Flush
	c.out.Reset()
	if token != 0 {
		c.step(Flushed{Token: token})
	}
}

// commit writes until nothing is left to write.
func (c *cycle) commit(b *testing.B) {
	for {
		batch := c.q.Take(c.now)
		if batch == nil {
			return
		}
		c.step(Committed{})
		for i := range batch.After {
			if m := &batch.After[i]; m.Kind == Final {
				c.step(Settled{Item: m.Item, Outcome: Outcome{Delivered: true}})
			}
		}
		c.perform()
	}
}

// BenchmarkCancelled is a queue whose processors keep up: nothing is written.
func BenchmarkCancelled(b *testing.B) {
	c, body := newCycle(b), make([]byte, 100)
	for b.Loop() {
		a := c.item(body)
		c.perform()
		c.step(a)
		c.perform()
		if c.n%100 == 0 {
			c.commit(b)
		}
	}
	if c.q.counts.Ready != 0 || len(c.q.items) > 0 {
		b.Fatalf("%+v", c.q.counts)
	}
}

// BenchmarkWritten writes every item before it is answered, a hundred to a batch.
func BenchmarkWritten(b *testing.B) {
	c, body := newCycle(b), make([]byte, 100)
	answers := make([]*Answered, 0, 100)
	for b.Loop() {
		answers = append(answers, c.item(body))
		c.perform()
		if len(answers) < cap(answers) {
			continue
		}
		c.commit(b)
		for _, a := range answers {
			c.step(a)
		}
		c.commit(b)
		answers = answers[:0]
	}
}

// BenchmarkInBatches is BenchmarkCancelled with 64 items in each message: sent, given out, answered and replied to.
func BenchmarkInBatches(b *testing.B) {
	const size = 64
	c, body := newCycle(b), make([]byte, 100)
	for _, p := range []string{"p1", "p2", "p3", "p4"} {
		c.step(&Registered{Registration: wire.Registration{Processor: p, Capacity: 1000, Batch: size}})
	}
	c.commit(b)
	to := ReplyTo("r", "1", true)
	b.ResetTimer()
	for n := 0; n < b.N; n += size {
		c.now = c.now.Add(size * 5 * time.Microsecond)
		sent := &SentBatch{Reply: "r", AcceptedReply: "a", Items: make([]BatchItem, size)}
		for i := range sent.Items {
			sent.Items[i] = BatchItem{Key: "1", Sent: Sent{Reply: to, Body: body}}
		}
		c.step(sent)
		answered := &AnsweredBatch{Answers: make([]Answered, 0, size)}
		for i := range c.out.Work {
			for _, g := range c.out.Work[i].Items {
				answered.Answers = append(answered.Answers, Answered{Item: g.Item, Attempt: g.Attempt, Answer: wire.Answer{Kind: wire.Done, Body: body}})
			}
		}
		c.perform()
		c.step(answered)
		settled := &SettledBatch{Outcome: Outcome{Delivered: true}}
		for i := range c.out.Msgs {
			settled.Items = append(settled.Items, c.out.Msgs[i].Item)
		}
		c.step(settled)
		c.out.Reset()
	}
	if c.q.counts.Ready != 0 || len(c.q.items) > 0 {
		b.Fatalf("%+v", c.q.counts)
	}
}
