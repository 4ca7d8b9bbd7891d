package integration

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"stint/integration/harness"
)

// campaign is senders and processors around a broker that is killed again and again.
type campaign struct {
	t      *testing.T
	broker *harness.Broker
	rand   *rand.Rand
	queue  string

	spoken  chan struct{} // an accept notice has come in somewhere
	stop    chan struct{} // closed when the senders are to finish
	notes   chan []*harness.Op
	senders int
	events  chan harness.Event
	gone    chan []harness.Event // all events, when the campaign is over
	procs   []*harness.Processor
	slowest time.Duration // from start to ready
	kills   []string      // when something was killed
}

// newCampaign starts a broker. Attempts and deaths are not limited, so that every item ends with a reply.
func newCampaign(t *testing.T, binary string, seed uint64, more ...harness.Queue) *campaign {
	t.Helper()
	return startCampaign(t, binary, seed, nil, more...)
}

// newCampaignAt has the broker at an outside server.
func newCampaignAt(t *testing.T, server *harness.Broker, seed uint64) *campaign {
	t.Helper()
	return startCampaign(t, harness.Binary(t), seed, server)
}

func startCampaign(t *testing.T, binary string, seed uint64, server *harness.Broker, more ...harness.Queue) *campaign {
	t.Helper()
	t.Logf("seed %d", seed)
	c := &campaign{
		t: t, rand: rand.New(rand.NewPCG(seed, 1)), queue: "q",
		spoken: make(chan struct{}, 1), stop: make(chan struct{}), notes: make(chan []*harness.Op, 64),
		events: make(chan harness.Event, 1024), gone: make(chan []harness.Event, 1),
	}
	limits := harness.Queue{"process_timeout": 4000, "max_attempts": 1000000, "max_deaths": 1000000}
	config := harness.Config(harness.Durable(c.queue, append([]harness.Queue{limits}, more...)...))
	if server != nil {
		config["nats"] = map[string]any{"url": server.URL}
	}
	c.broker = harness.NewBroker(t, binary, config)
	c.broker.Start()
	go func() {
		var all []harness.Event
		for e := range c.events {
			all = append(all, e)
		}
		c.gone <- all
	}()
	return c
}

func (c *campaign) processors(n, capacity int) {
	c.t.Helper()
	for i := range n {
		spec := harness.Spec{URL: c.broker.URL, Queue: c.queue, Subject: fmt.Sprintf("proc.%d", i), Capacity: capacity}
		c.procs = append(c.procs, harness.StartProcessor(c.t, spec, c.events))
	}
}

func (c *campaign) sender(o harness.SenderOptions) {
	c.t.Helper()
	o.Name, o.URL, o.Queue = fmt.Sprintf("s%d", c.senders), c.broker.URL, c.queue
	o.Seed, o.Spoken = c.rand.Uint64(), c.spoken
	s, err := harness.NewSender(o)
	if err != nil {
		c.t.Fatal(err)
	}
	c.senders++
	go func() { c.notes <- s.Run(c.stop) }()
}

// pause waits for a random time.
func (c *campaign) pause(most time.Duration) { <-time.After(time.Duration(c.rand.Int64N(int64(most)))) }

// moment waits for a random time while the broker runs.
func (c *campaign) moment(most time.Duration) {
	c.t.Helper()
	select {
	case <-time.After(time.Duration(c.rand.Int64N(int64(most)))):
	case <-c.broker.Exited():
		c.t.Fatalf("the broker ended by itself with %d", c.broker.Wait())
	}
}

// atAccept waits for the next accept notice that a sender takes in.
func (c *campaign) atAccept() {
	select {
	case <-c.spoken:
	default:
	}
	select {
	case <-c.spoken:
	case <-time.After(5 * time.Second):
	}
}

// kill kills the broker, or its server, and notes when.
func (c *campaign) kill(b *harness.Broker) {
	c.kills = append(c.kills, time.Now().Format(harness.Clock))
	b.Kill()
}

// restart starts the broker. Before that it may be started and killed on the way up.
func (c *campaign) restart() {
	c.t.Helper()
	if c.rand.IntN(5) == 0 {
		c.broker.Launch()
		c.moment(100 * time.Millisecond)
		c.kill(c.broker)
	}
	c.slowest = max(c.slowest, c.broker.Start())
}

// replace kills a processor and starts it anew.
func (c *campaign) replace() {
	i := c.rand.IntN(len(c.procs))
	c.procs[i].Kill()
	c.procs[i] = harness.StartProcessor(c.t, c.procs[i].Spec, c.events)
}

// end lets the senders finish, stops everything and judges.
func (c *campaign) end() *harness.Verdict {
	c.t.Helper()
	close(c.stop)
	var ops []*harness.Op
	for range c.senders {
		ops = append(ops, <-c.notes...)
	}
	for _, p := range c.procs {
		p.Kill()
	}
	close(c.events)
	v := harness.Judge(ops, <-c.gone)
	c.t.Logf("%v; slowest start %v", v, c.slowest.Round(time.Millisecond))
	if !v.OK() {
		c.t.Logf("killed at %s", strings.Join(c.kills, " "))
	}
	return v
}

// mixed composes small items of mostly short work. One in fifty works long enough for its lease to be written.
func mixed(r *rand.Rand) harness.Order {
	o := harness.Order{Work: r.IntN(15), Pad: strings.Repeat("x", r.IntN(2000))}
	if r.IntN(50) == 0 {
		o.Work = 600 + r.IntN(300)
	}
	return o
}

// bulky composes large items.
func bulky(size int) func(*rand.Rand) harness.Order {
	pad := strings.Repeat("x", size)
	return func(*rand.Rand) harness.Order { return harness.Order{Pad: pad} }
}

func mustBeGood(t *testing.T, v *harness.Verdict, least int) {
	t.Helper()
	if !v.OK() {
		t.Errorf("lost, unexpected or wrong: %v", v)
	}
	if v.Accepted < least {
		t.Errorf("only %d items were accepted, want at least %d for this to say anything", v.Accepted, least)
	}
	if !slices.IsSorted([]int{0, v.Accepted, v.Delivered}) {
		t.Errorf("%d items were accepted, but only %d deliveries made", v.Accepted, v.Delivered)
	}
}
