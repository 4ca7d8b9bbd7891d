package pool

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"stint/broker/queue"
	"stint/wire"
)

var long = flag.Duration("long", 0, "how long the chaos lasts (default: some seconds)")

// chaos is what items have their children do, beside a plain answer. The first attempt only, so that every item ends well.
var chaos = []string{
	"crash", "kill", "garbage", "half", "wrongid", "hang", "deaf", "closeout", "closein", "twice", "long",
	"grandchild", "daemon", "eat 30", "eathang 1500", "fail no", "soon no", "progress half", "sleep 20ms", "print much",
}

// Children exit, hang, print garbage, write half a line, close descriptors, ignore SIGTERM, fork, and eat memory under load: no
// item is lost, none is answered twice, nothing is left.
func TestChaos(t *testing.T) {
	for _, ahead := range []int{1, 8} {
		t.Run(fmt.Sprintf("ahead=%d", ahead), func(t *testing.T) {
			runChaos(t, "plain", chaos, Options{
				Children: 4, Ahead: ahead, Timeout: 300 * time.Millisecond, ExitTimeout: 50 * time.Millisecond, MaxOutput: 1 << 16,
				MaxMemory: 900 << 20, MaxKills: -1, RollOver: 700 * time.Millisecond, MaxUseCount: 100,
			})
		})
	}
}

// chaosExec is the same for a process of its own.
var chaosExec = []string{"crash", "kill", "hang", "deaf", "flood", "grandchild", "linger", "closed", "long"}

func TestChaosExec(t *testing.T) {
	for _, ahead := range []int{1, 8} {
		t.Run(fmt.Sprintf("ahead=%d", ahead), func(t *testing.T) {
			runChaos(t, "exec", chaosExec, Options{
				Mode: Exec, Children: 4, Ahead: ahead, Timeout: 300 * time.Millisecond, ExitTimeout: 50 * time.Millisecond, MaxOutput: 1 << 20,
			})
		})
	}
}

func runChaos(t *testing.T, role string, words []string, o Options) {
	q := queue.Config{Backoff: queue.Backoff{Fixed: true, Base: 20 * time.Millisecond, Max: 20 * time.Millisecond}, MaxAttempts: 50}
	w := newWorld(t, q)
	r := w.pool(role, o)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	c := &crowd{t: t, w: w, words: words, random: rand.New(rand.NewPCG(seed, 0)), open: map[string]int{}, answers: make(chan *nats.Msg, 10_000)}
	c.inbox = w.nc.NewInbox()
	if _, err := w.nc.Subscribe(c.inbox+".*", func(m *nats.Msg) { c.answers <- m }); err != nil {
		t.Fatal(err)
	}
	during := 4 * time.Second
	if *long > 0 {
		during = *long
	}
	c.run(during)
	s := r.stats()
	t.Logf("%d items, %d answered, pool: %d done, %d failed, %d returned, %d children of which %d died", c.sent, c.answered, s.Done, s.Failed, s.Returned, s.Started, s.Died)
	if s.Died+s.Failed == 0 {
		t.Error("nothing has happened")
	}
	r.end() // fails if a process is left
}

// crowd is the sender of the chaos. It belongs to the test's goroutine.
type crowd struct {
	t              *testing.T
	w              *world
	words          []string
	random         *rand.Rand
	inbox          string
	answers        chan *nats.Msg
	open           map[string]int // items without a final reply
	sent, answered int
}

const crowdWindow = 60

func (c *crowd) run(during time.Duration) {
	c.t.Helper()
	end := time.After(during)
	for sending := true; sending || len(c.open) > 0; {
		for sending && len(c.open) < crowdWindow {
			c.send()
		}
		select {
		case <-end:
			sending = false
		case m := <-c.answers:
			c.answer(m)
		case <-time.After(patience):
			c.t.Fatalf("%d items have no answer: %v", len(c.open), c.open)
		}
	}
	for { // what comes now comes too often
		select {
		case m := <-c.answers:
			c.answer(m)
		case <-time.After(300 * time.Millisecond):
			return
		}
	}
}

func (c *crowd) send() {
	c.sent++
	body := fmt.Sprintf("echo item-%d", c.sent)
	if c.random.IntN(4) == 0 {
		body = "once " + c.words[c.random.IntN(len(c.words))]
	}
	subject := fmt.Sprintf("%s.%d", c.inbox, c.sent)
	c.open[subject] = c.sent
	m := &nats.Msg{Subject: testQueue, Reply: subject, Data: []byte(body), Header: nats.Header{wire.HeaderProgress: {"true"}}}
	if err := c.w.nc.PublishMsg(m); err != nil {
		c.t.Fatal(err)
	}
}

func (c *crowd) answer(m *nats.Msg) {
	c.t.Helper()
	if m.Header.Get(wire.HeaderProgress) != "" {
		return
	}
	number, open := c.open[m.Subject]
	if !open {
		c.t.Errorf("%s was answered twice: %q", m.Subject, m.Data)
		return
	}
	delete(c.open, m.Subject)
	c.answered++
	got := text(m)
	if strings.HasPrefix(got, "dead: ") {
		c.t.Errorf("item %d: %s", number, got)
	}
	if want := fmt.Sprintf("item-%d", number); strings.HasPrefix(got, "item-") && got != want {
		c.t.Errorf("%s has the answer %q", want, got)
	}
}
