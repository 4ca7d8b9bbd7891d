package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"stint/integration/harness"
	"stint/wire"
)

// The things that a benchmark compares take turns, so that what else the machine does at a time is with all of them, and medians
// count. A round is b.N items, and of processes, which take longer, a hundredth of it.
const (
	benchRounds = 3
	execRounds  = 5
	execShare   = 100
)

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

// BenchmarkPool is durable items from a sender to children and back: stint serve, stint work and the sender are processes of
// their own. The sender sends batches and asks for gathered replies. In turns with it runs the benchmark that ewd-qoper8 brings,
// with two workers. Run it with a number of items:
//
//	go test -run '^$' -bench Pool -benchtime 100000x -timeout 30m ./integration
func BenchmarkPool(b *testing.B) {
	peer := newOriginal(b)
	for _, children := range []string{"1", "2", "4"} {
		for _, ahead := range []string{"1", "16", "256"} {
			b.Run("lines/children="+children+"/ahead="+ahead, func(b *testing.B) {
				benchBeside(b, peer, func(broker *harness.Broker) *harness.Command {
					return poolProcess(b, broker, "bench", "--children", children, "--ahead", ahead)
				})
			})
		}
	}
	if _, err := exec.LookPath("node"); err != nil {
		b.Log("NO CHILDREN OF NODE.JS: it is not installed here")
		return
	}
	for _, ahead := range []string{"1", "16", "256"} {
		b.Run("node/children=2/ahead="+ahead, func(b *testing.B) {
			benchBeside(b, peer, func(broker *harness.Broker) *harness.Command {
				return harness.Run(b, harness.Binary(b), "work", "work", "--server", broker.URL, "--children", "2", "--ahead", ahead,
					"--node", "../examples/pools/ewd.js")
			})
		})
	}
}

func benchBeside(b *testing.B, peer *original, start func(*harness.Broker) *harness.Command) {
	p := newPoolBench(b, start)
	defer p.close()
	var ours, theirs []float64
	b.ResetTimer()
	for range benchRounds {
		ours = append(ours, rate(b.N, p.sender.send))
		if peer != nil {
			theirs = append(theirs, peer.rate(b, b.N))
		}
	}
	b.StopTimer()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(ours), "items/s")
	if peer != nil {
		b.ReportMetric(median(theirs), "ewd-qoper8/s")
		b.ReportMetric(median(ours)/median(theirs), "of-ewd-qoper8")
	}
}

// original is ewd-qoper8 as npm has it. Its benchmark neither waits for its queue nor gathers, so it is run at the pace that
// suits the machine best.
type original struct {
	dir  string
	pace [2]string // messages in a block, and milliseconds between blocks
}

const originalItems = 50_000 // to find the pace

// newOriginal is nil, and says so, where there is none.
func newOriginal(b *testing.B) *original {
	o := &original{dir: b.TempDir()}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	npm := exec.CommandContext(ctx, "npm", "install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--prefix", o.dir, "ewd-qoper8@3.18.1")
	npm.Dir = o.dir
	npm.Env = append(os.Environ(), "npm_config_fetch_retries=0", "npm_config_update_notifier=false")
	if out, err := npm.CombinedOutput(); err != nil {
		b.Logf("NOTHING IS COMPARED WITH ewd-qoper8: npm could not install it: %v\n%s", err, out)
		return nil
	}
	best := 0.0
	for _, pace := range [][2]string{{"500", "20"}, {"1000", "40"}, {"2000", "60"}, {"2000", "100"}} {
		with := &original{dir: o.dir, pace: pace}
		if rate := with.rate(b, originalItems); rate > best {
			best, o.pace = rate, pace
		}
	}
	return o
}

var processingRate = regexp.MustCompile(`Processing rate: ([\d.]+)`)

// rate runs it. Now and then it does not come to an end, and is run again.
func (o *original) rate(b *testing.B, items int) float64 {
	var out []byte
	var err error
	for range 5 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second+time.Duration(items)*time.Millisecond/4)
		cmd := exec.CommandContext(ctx, "node", "node_modules/ewd-qoper8/examples/benchmark.js", "2", strconv.Itoa(max(items, 2000)), o.pace[0], o.pace[1])
		cmd.Dir = o.dir
		out, err = cmd.CombinedOutput()
		cancel()
		if said := processingRate.FindSubmatch(out); said != nil {
			if rate, err := strconv.ParseFloat(string(said[1]), 64); err == nil {
				return rate
			}
		}
	}
	b.Fatalf("the benchmark of ewd-qoper8: %v\n%.2000s", err, out)
	return 0
}

// BenchmarkPoolExec is a process for each item, in turns with the machine's own rate of starting one from Go: as many loops as
// the pool has children, each of which runs /bin/true and waits for it. forkexec/s is with nothing more, piped/s with the body
// as its input and what it writes read, as the pool does. The other figures are processor time per item.
func BenchmarkPoolExec(b *testing.B) {
	for _, children := range []int{1, 2, 4} {
		for _, ahead := range []int{1, 16} {
			b.Run(fmt.Sprintf("children=%d/ahead=%d", children, ahead), func(b *testing.B) { benchExec(b, children, ahead) })
		}
	}
}

func benchExec(b *testing.B, children, ahead int) {
	p := newPoolBench(b, func(broker *harness.Broker) *harness.Command {
		return harness.Run(b, harness.Binary(b), "work", "work", "--server", broker.URL, "--exec",
			"--children", strconv.Itoa(children), "--ahead", strconv.Itoa(ahead), "--", "/bin/true")
	})
	defer p.close()
	items := max(b.N/execShare, 1)
	var bare, piped, pool []float64
	spent := usage{}
	b.ResetTimer()
	for range execRounds {
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
		b.ReportMetric(float64(time.Microseconds())/float64(execRounds*items), "µs-"+name)
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
