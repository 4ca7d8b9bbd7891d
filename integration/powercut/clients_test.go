//go:build linux && (amd64 || arm64)

package powercut

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

// fate is what a processor does with an item.
type fate uint8

const (
	fateDone  fate = iota // answers at once
	fateHold              // answers only after the restart
	fateNever             // never answers
	fateLater             // gives it back for an hour
	fateFail              // fails it once, to be tried again in an hour
	fateTwice             // fails it once, to be tried again soon, and then answers
	fateDead              // refuses it for ever
	fates
)

// final says that the sender gets an answer before the run ends.
func (f fate) final() bool { return f != fateNever && f != fateLater && f != fateFail }

// item is one that was sent.
type item struct {
	N, Queue int
	Body     []byte
	Trace    string // a header of the sender's
	MsgID    string
	TTL      string
	Fate     fate
	ID       uint64   // as the accept notice said
	Accepts  []string // subjects of its accept notices
	Reply    string   // subject of its final
	Answer   []byte   // what the processor answers
	Failures uint32   // attempts that a processor failed
}

// regFact is a registration that was asked for.
type regFact struct {
	Queue     int
	Processor string
	Capacity  int
	OK        string // subject of its answer
	GoneAt    int    // operations in the log when it was taken back; -1: never
	GoneOK    string
}

// clients are the senders and processors of a run. All that NATS delivers comes through one channel, so one goroutine
// owns everything here.
type clients struct {
	facts
	rng      *rand.Rand
	now      func() int // operations in the log
	deadline time.Time

	nc     *nats.Conn
	in     chan *nats.Msg
	byBody map[string]int
	seen   map[string]bool // notices received, by subject
	finals map[int][]byte
	again  bool // the broker was restarted
	trials map[int]int
	held   map[int]string // lease subjects of work that a processor keeps until the restart
	err    error
}

func newClients(seed uint64, queues []string, now func() int, deadline time.Time) *clients {
	return &clients{
		facts: facts{Queues: queues}, rng: rand.New(rand.NewPCG(seed, 1)), now: now, deadline: deadline,
		in: make(chan *nats.Msg, 1<<16), byBody: map[string]int{}, seen: map[string]bool{},
		finals: map[int][]byte{}, trials: map[int]int{}, held: map[int]string{},
	}
}

// connect makes a new connection with the subscriptions that this moment wants.
func (c *clients) connect(url string, subjects ...string) error {
	nc, err := nats.Connect(url, nats.NoReconnect(), nats.Timeout(10*time.Second))
	if err != nil {
		return fmt.Errorf("connect to the broker: %w", err)
	}
	c.nc = nc
	for _, s := range subjects {
		if _, err := nc.ChanSubscribe(s, c.in); err != nil {
			return fmt.Errorf("subscribe to %s: %w", s, err)
		}
	}
	return c.nc.FlushTimeout(10 * time.Second)
}

// pump deals with what comes in until the condition holds.
func (c *clients) pump(what string, until func() bool) error {
	timeout := time.NewTimer(time.Until(c.deadline))
	defer timeout.Stop()
	for c.err == nil && !until() {
		select {
		case m := <-c.in:
			c.err = c.handle(m)
		case <-timeout.C:
			return fmt.Errorf("time is up while waiting for %s", what)
		}
	}
	return c.err
}

func (c *clients) handle(m *nats.Msg) error {
	switch {
	case strings.HasPrefix(m.Subject, noticePrefix+".a."):
		return c.acceptedNotice(m)
	case strings.HasPrefix(m.Subject, noticePrefix+".f."), strings.HasPrefix(m.Subject, noticePrefix+".w."):
		return c.finalReply(m)
	case strings.HasPrefix(m.Subject, noticePrefix+".r."):
		if s, _ := wire.ParseStatus(m.Data); s.Status != "ok" {
			return fmt.Errorf("a registration was answered %s", m.Data)
		}
		c.seen[m.Subject] = true
		return nil
	}
	return c.work(m)
}

func (c *clients) acceptedNotice(m *nats.Msg) error {
	s, _ := wire.ParseStatus(m.Data)
	id, ok := wire.ParseID(s.ID)
	if s.Status != "accepted" || !ok {
		return fmt.Errorf("an item was not accepted: %s", m.Data)
	}
	n := 0
	if _, err := fmt.Sscanf(m.Subject, noticePrefix+".a.%d", &n); err != nil {
		return fmt.Errorf("a notice at %s: %w", m.Subject, err)
	}
	it := &c.Items[n]
	if it.ID != 0 && it.ID != id {
		return fmt.Errorf("item %d was accepted as %x and as %x", n, it.ID, id)
	}
	it.ID = id
	c.seen[m.Subject] = true
	return nil
}

func (c *clients) finalReply(m *nats.Msg) error {
	n := 0
	if _, err := fmt.Sscanf(m.Subject[len(noticePrefix)+3:], "%d", &n); err != nil {
		return fmt.Errorf("a final at %s: %w", m.Subject, err)
	}
	it := &c.Items[n]
	if old, had := c.finals[n]; had && !bytes.Equal(old, m.Data) {
		return fmt.Errorf("item %d has two finals: %q and %q", n, old, m.Data)
	}
	c.finals[n] = m.Data
	return it.checkFinal(m.Data)
}

// checkFinal says whether this can be the item's final.
func (it *item) checkFinal(body []byte) error {
	if it.Fate == fateDead {
		if s, _ := wire.ParseStatus(body); s.Code != string(wire.CodeDead) {
			return fmt.Errorf("item %d has the final %.80q, it should be a dead letter", it.N, body)
		}
		return nil
	}
	if !it.Fate.final() || !bytes.Equal(body, it.Answer) {
		return fmt.Errorf("item %d has the final %.80q, its processor answered %.80q", it.N, body, it.Answer)
	}
	return nil
}

// work does with an item what its fate says.
func (c *clients) work(m *nats.Msg) error {
	n, known := c.byBody[string(m.Data)]
	if !known {
		return fmt.Errorf("work that was never sent: %.80q", m.Data)
	}
	it := &c.Items[n]
	c.trials[n]++
	answer := &nats.Msg{Subject: m.Reply, Data: it.Answer}
	switch it.Fate {
	case fateNever:
		return nil
	case fateHold:
		if !c.again {
			c.held[n] = m.Reply
			return nil
		}
	case fateLater:
		answer.Data = wire.NakBody(time.Hour)
	case fateDead:
		answer.Data = wire.TermBody("it was made to be refused")
	case fateFail:
		it.failed(answer, time.Hour)
	case fateTwice:
		if c.trials[n] == 1 {
			it.failed(answer, 5*time.Millisecond)
		}
	}
	return c.nc.PublishMsg(answer)
}

// answerHeld answers what was given out before the restart: a lease that was on record still stands.
func (c *clients) answerHeld() error {
	for n, lease := range c.held {
		if err := c.nc.Publish(lease, c.Items[n].Answer); err != nil {
			return err
		}
	}
	return nil
}

// failed makes a failure of an answer.
func (it *item) failed(m *nats.Msg, delay time.Duration) {
	it.Failures++
	m.Data = nil
	m.Header = nats.Header{
		wire.HeaderErrorCode:  {"500"},
		wire.HeaderError:      {"it was made to fail"},
		wire.HeaderRetryDelay: {fmt.Sprint(delay.Milliseconds())},
	}
}

// make adds an item. Its final goes to a subject under away if the sender is not to hear it now.
func (c *clients) make(queue int, f fate, away bool) *item {
	n := len(c.Items)
	letter := "f"
	if away {
		letter = "w"
	}
	it := item{
		N: n, Queue: queue, Fate: f,
		Reply:   fmt.Sprintf("%s.%s.%d", noticePrefix, letter, n),
		Accepts: []string{fmt.Sprintf("%s.a.%d", noticePrefix, n)},
		Answer:  fmt.Appendf(nil, "answer to %d %s", n, c.filler(c.size()/2)),
	}
	if n%3 == 0 {
		it.Body = fmt.Appendf(nil, `{"accepted_reply":%q,"fill":%q}`, it.Accepts[0], c.filler(c.size()))
	} else {
		it.Body = fmt.Appendf(nil, "item %d %s", n, c.filler(c.size()))
	}
	if n%4 == 0 {
		it.Trace = fmt.Sprintf("trace-%d", n)
	}
	if n%5 == 0 {
		it.MsgID = fmt.Sprintf("id-%d", n)
	}
	if n%7 == 0 {
		it.TTL = "24h"
	}
	c.Items = append(c.Items, it)
	c.byBody[string(it.Body)] = n
	return &c.Items[n]
}

// size is mostly small and sometimes more than a page of the database.
func (c *clients) size() int {
	switch c.rng.IntN(12) {
	case 0:
		return 3000 + c.rng.IntN(3000)
	case 1:
		return 9000 + c.rng.IntN(20000)
	}
	return c.rng.IntN(400)
}

func (c *clients) filler(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(c.rng.IntN(26))
	}
	return b
}

func (c *clients) publish(it *item, accept string) error {
	m := &nats.Msg{Subject: c.Queues[it.Queue], Reply: it.Reply, Data: it.Body, Header: nats.Header{}}
	if it.N%3 != 0 || accept != it.Accepts[0] {
		m.Header.Set(wire.HeaderAcceptedReply, accept)
	}
	for name, value := range map[string]string{wire.HeaderMsgID: it.MsgID, wire.HeaderTTL: it.TTL, "Trace": it.Trace} {
		if value != "" {
			m.Header.Set(name, value)
		}
	}
	return c.nc.PublishMsg(m)
}

// burst sends items without waiting for any, and then waits until all are accepted.
func (c *clients) burst(n int, away bool, choose func() fate) error {
	from := len(c.Items)
	for range n {
		it := c.make(c.rng.IntN(len(c.Queues)), choose(), away)
		if err := c.publish(it, it.Accepts[0]); err != nil {
			return err
		}
	}
	return c.allAccepted(from)
}

func (c *clients) allAccepted(from int) error {
	return c.pump("the accept notices", func() bool {
		for ; from < len(c.Items); from++ {
			for _, a := range c.Items[from].Accepts {
				if !c.seen[a] {
					return false
				}
			}
		}
		return true
	})
}

// repeat sends the items with a message id again.
func (c *clients) repeat(most int) error {
	for i := range c.Items {
		it := &c.Items[i]
		if it.MsgID == "" || most == 0 {
			continue
		}
		most--
		it.Accepts = append(it.Accepts, it.Accepts[0]+".again")
		if err := c.publish(it, it.Accepts[1]); err != nil {
			return err
		}
	}
	return c.allAccepted(0)
}

func (c *clients) register(queue int, processor string, capacity int) error {
	ok := fmt.Sprintf("%s.r.%d", noticePrefix, len(c.Regs))
	c.Regs = append(c.Regs, regFact{Queue: queue, Processor: processor, Capacity: capacity, OK: ok, GoneAt: -1})
	body := wire.RegisterBody(wire.Registration{Processor: processor, Capacity: capacity})
	if err := c.nc.PublishRequest(wire.RegisterSubject(c.Queues[queue]), ok, body); err != nil {
		return err
	}
	return c.pump("a registration", func() bool { return c.seen[ok] })
}

func (c *clients) unregister(i int) error {
	r := &c.Regs[i]
	r.GoneAt, r.GoneOK = c.now(), r.OK+".gone"
	err := c.nc.PublishRequest(wire.UnregisterSubject(c.Queues[r.Queue]), r.GoneOK, wire.UnregisterBody(r.Processor))
	if err != nil {
		return err
	}
	return c.pump("the end of a registration", func() bool { return c.seen[r.GoneOK] })
}

// allFinal waits until every item that can have a final by now has it.
func (c *clients) allFinal() error {
	err := c.pump("the finals", func() bool { return len(c.unfinished(1)) == 0 })
	if err != nil {
		return fmt.Errorf("%w of the items %v", err, c.unfinished(len(c.Items)))
	}
	return nil
}

// unfinished are the first items that should have a final by now and have none.
func (c *clients) unfinished(most int) (ns []int) {
	for i := range c.Items {
		it := &c.Items[i]
		away := strings.HasPrefix(it.Reply, noticePrefix+".w.")
		if it.Fate.final() && (c.again || it.Fate != fateHold && !away) && c.finals[i] == nil && len(ns) < most {
			ns = append(ns, i)
		}
	}
	return ns
}

// allTried waits until a processor has had every item.
func (c *clients) allTried() error {
	return c.pump("the items to reach a processor", func() bool {
		for i := range c.Items {
			if c.trials[i] == 0 {
				return false
			}
		}
		return true
	})
}
