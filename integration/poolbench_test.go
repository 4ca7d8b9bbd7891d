package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"stint/integration/harness"
	"stint/wire"
)

// benchRounds is in how many parts a benchmark that compares does its items: the things compared take turns, so that what else
// the machine does at a time is with all of them, and medians count.
const benchRounds = 7

// poolBench is a broker with a pool and a sender, all processes of their own.
type poolBench struct {
	b      *testing.B
	broker *harness.Broker
	nc     *nats.Conn
	pool   *harness.Command
	sender *poolSender
}

func newPoolBench(b *testing.B, start func(*harness.Broker) *harness.Command) *poolBench {
	broker := harness.NewBroker(b, harness.Binary(b), harness.Config(harness.Durable("work")))
	broker.Start()
	p := &poolBench{b: b, broker: broker, nc: broker.Connect()}
	p.pool = start(broker)
	harness.Until(b, 10*time.Second, "the pool is there", func() bool { return poolsOf(b, p.nc) == 1 })
	p.sender = &poolSender{b: b, nc: p.nc, inbox: p.nc.NewInbox(), done: make(chan int, 1000)}
	p.sender.send(min(b.N, 100)) // everything is warm
	return p
}

func (p *poolBench) close() {
	p.pool.Kill()
	p.broker.Kill()
}

// rate is how many items per second f does.
func rate(items int, f func(items int)) float64 {
	began := time.Now()
	f(items)
	return float64(items) / time.Since(began).Seconds()
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// BenchmarkPoolExec is a process for each item, in turns with the machine's own rate of starting one from Go: as many loops as
// the pool has children, each of which runs /bin/true and waits for it. forkexec/s is with nothing more, piped/s with the body
// as its input and what it writes read, as the pool does. The other figures are processor time per item.
//
//	go test -run '^$' -bench PoolExec -benchtime 10000x ./integration
func BenchmarkPoolExec(b *testing.B) {
	for _, n := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("children=%d", n), func(b *testing.B) { benchExec(b, n) })
	}
}

func benchExec(b *testing.B, children int) {
	p := newPoolBench(b, func(broker *harness.Broker) *harness.Command {
		args := append([]string{"work", "work", "--server", broker.URL, "--exec", "--children", strconv.Itoa(children)}, strings.Fields(os.Getenv("BENCH_ARGS"))...)
		return harness.Run(b, harness.Binary(b), append(args, "--", "/bin/true")...)
	})
	defer p.close()
	items := max(b.N/benchRounds, 1)
	var bare, piped, pool []float64
	spent := usage{}
	b.ResetTimer()
	for range benchRounds {
		bare = append(bare, rate(items, func(n int) { forkExec(b, n, children, false) }))
		before := p.usage()
		pool = append(pool, rate(items, p.sender.send))
		spent.add(before, p.usage())
		piped = append(piped, rate(items, func(n int) { forkExec(b, n, children, true) }))
	}
	b.StopTimer()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(pool), "items/s")
	b.ReportMetric(median(bare), "forkexec/s")
	b.ReportMetric(median(piped), "piped/s")
	b.ReportMetric(median(pool)/median(bare), "of-forkexec")
	b.ReportMetric(median(pool)/median(piped), "of-piped")
	for name, time := range spent {
		b.ReportMetric(float64(time.Microseconds())/float64(benchRounds*items), "µs-"+name)
	}
}

// forkExec runs /bin/true so many times in so many loops.
func forkExec(b *testing.B, items, loops int, piped bool) {
	room := make(chan struct{}, items)
	for range items {
		room <- struct{}{}
	}
	close(room)
	ended := make(chan error, loops)
	for range loops {
		go func() {
			for range room {
				cmd := exec.Command("/bin/true")
				if piped {
					cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(benchBody), new(bytes.Buffer), new(bytes.Buffer)
				}
				if err := cmd.Run(); err != nil {
					ended <- err
					return
				}
			}
			ended <- nil
		}()
	}
	for range loops {
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
	}
}

// usage is the processor time of the processes that take part.
type usage map[string]time.Duration

func (u usage) add(before, after usage) {
	for name, t := range after {
		u[name] += t - before[name]
	}
}

func (p *poolBench) usage() usage {
	p.b.Helper()
	m, err := p.nc.Request("stint.pool.stats", nil, 5*time.Second)
	var stats struct{ PID int }
	if err == nil {
		err = json.Unmarshal(m.Data, &stats)
	}
	if err != nil {
		p.b.Fatal(err)
	}
	u := usage{"sender": spentBy(p.b, "self", false), "pool": spentBy(p.b, strconv.Itoa(stats.PID), false)}
	for _, child := range childrenOf(p.b, "self") {
		if child != strconv.Itoa(stats.PID) {
			u["broker"] += spentBy(p.b, child, false)
		}
	}
	for _, guard := range childrenOf(p.b, strconv.Itoa(stats.PID)) {
		u["guard"] += spentBy(p.b, guard, false)
		u["processes"] += spentBy(p.b, guard, true)
	}
	return u
}

func childrenOf(b *testing.B, pid string) (children []string) {
	b.Helper()
	lists, err := filepath.Glob("/proc/" + pid + "/task/*/children")
	if err != nil {
		b.Fatal(err)
	}
	for _, file := range lists {
		if text, err := os.ReadFile(file); err == nil {
			children = append(children, strings.Fields(string(text))...)
		}
	}
	return children
}

// spentBy is the processor time of a process so far, or of the children that it has reaped.
func spentBy(b *testing.B, pid string, children bool) time.Duration {
	b.Helper()
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	at := 11 // user and system time, in ticks of 10 ms; behind them those of the children
	if children {
		at += 2
	}
	user, err := strconv.Atoi(fields[at])
	if err != nil {
		b.Fatal(err)
	}
	system, err := strconv.Atoi(fields[at+1])
	if err != nil {
		b.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// BenchmarkPool is durable items from a sender to children and back: stint serve, stint work and the sender are processes of
// their own. The sender sends batches and asks for gathered replies. Run it with a number of items:
//
//	go test -run '^$' -bench Pool -benchtime 100000x ./integration
func BenchmarkPool(b *testing.B) {
	for _, children := range []int{1, 2, 4} {
		for _, ahead := range []int{1, 16, 256} {
			b.Run(fmt.Sprintf("lines/children=%d/ahead=%d", children, ahead), func(b *testing.B) {
				benchPool(b, "--children", strconv.Itoa(children), "--ahead", strconv.Itoa(ahead))
			})
		}
	}
}

// BenchmarkPoolNode is the same with children of Node.js.
func BenchmarkPoolNode(b *testing.B) {
	if _, err := exec.LookPath("node"); err != nil {
		b.Skip("Node.js is not installed here")
	}
	for _, ahead := range []string{"16", "256"} {
		b.Run("children=2/ahead="+ahead, func(b *testing.B) {
			benchWith(b, func(broker *harness.Broker) *harness.Command {
				return harness.Run(b, harness.Binary(b), "work", "work", "--server", broker.URL, "--children", "2", "--ahead", ahead,
					"--node", "../examples/pools/ewd.js")
			})
		})
	}
}

func benchPool(b *testing.B, more ...string) {
	benchWith(b, func(broker *harness.Broker) *harness.Command { return poolProcess(b, broker, "bench", more...) })
}

func benchWith(b *testing.B, start func(*harness.Broker) *harness.Command) {
	p := newPoolBench(b, start)
	b.ResetTimer()
	p.sender.send(b.N)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
	p.close()
}

// poolSender keeps a window of items under way.
type poolSender struct {
	b     *testing.B
	nc    *nats.Conn
	inbox string
	sub   *nats.Subscription
	done  chan int // items that came back in one message
}

const (
	benchWindow = 4096
	benchBatch  = 64
)

var benchBody = fmt.Sprintf(`{"type":"greet","name":"%s"}`, strings.Repeat("x", 100))

func (s *poolSender) listen() {
	sub, err := s.nc.Subscribe(s.inbox, func(m *nats.Msg) {
		n, err := strconv.Atoi(m.Header.Get("Stint-Batch"))
		if err != nil {
			s.b.Errorf("an unexpected message: %q %q", m.Header, m.Data)
		}
		if bytes.Contains(m.Data, []byte(wire.HeaderErrorCode)) {
			s.b.Errorf("a failed item: %.200q", m.Data)
		}
		s.done <- n
	})
	if err != nil {
		s.b.Fatal(err)
	}
	s.sub = sub
}

func (s *poolSender) send(items int) {
	if s.sub == nil {
		s.listen()
	}
	var data []byte
	for sent, back := 0, 0; back < items; {
		for sent < items && sent-back+benchBatch <= benchWindow {
			n := min(benchBatch, items-sent)
			data = data[:0]
			for range n {
				data = fmt.Appendf(data, "0 0 %d\n", len(benchBody))
				data = append(append(data, benchBody...), '\n')
			}
			m := &nats.Msg{Subject: "work", Reply: s.inbox, Data: data, Header: nats.Header{
				"Stint-Batch": {strconv.Itoa(n)}, "Stint-Batch-Replies": {"gathered"},
			}}
			if err := s.nc.PublishMsg(m); err != nil {
				s.b.Fatal(err)
			}
			sent += n
		}
		select {
		case n := <-s.done:
			back += n
		case <-time.After(20 * time.Second):
			s.b.Fatalf("%d of %d items came back", back, items)
		}
	}
}
