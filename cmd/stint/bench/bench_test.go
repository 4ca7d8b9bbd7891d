package bench

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"stint/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func good() Options {
	return Options{
		Peers: []Kind{JetStream, Relay}, Mode: Roundtrip, Duration: time.Second, Size: 128, Window: 256,
		Processors: 2, Capacity: 64, Rounds: 5, Queues: 1,
	}
}

func TestOptionsThatAreNotRight(t *testing.T) {
	base := good()
	if err := base.Check(); err != nil {
		t.Fatalf("good options: %v", err)
	}
	for want, change := range map[string]func(*Options){
		"--items":                                    func(o *Options) { o.Items = -1 },
		"--size must be from 16":                     func(o *Options) { o.Size = 15 },
		"--window must":                              func(o *Options) { o.Window = 0 },
		"--processors must":                          func(o *Options) { o.Processors = 0 },
		"--capacity must":                            func(o *Options) { o.Capacity = MaxCapacity + 1 },
		"--rounds must":                              func(o *Options) { o.Rounds = 0 },
		"--queues must":                              func(o *Options) { o.Queues = 0 },
		"--backlog must":                             func(o *Options) { o.Backlog = -1 },
		"--seconds":                                  func(o *Options) { o.Duration = 0 },
		"--slow-sync must":                           func(o *Options) { o.SlowSync = -1 },
		"--batch must":                               func(o *Options) { o.Batch = MaxBatch + 1 },
		"lower --batch or --size":                    func(o *Options) { o.Batch, o.Size = 1000, 901 },
		"--mode must":                                func(o *Options) { o.Mode = "both" },
		"--peer must be one of":                      func(o *Options) { o.Peers = []Kind{Stint} },
		"--peer relay is given":                      func(o *Options) { o.Peers = []Kind{Relay, Relay} },
		"--peer relay remembers":                     func(o *Options) { o.Mode = Drain },
		"relay remembers nothing":                    func(o *Options) { o.Backlog = 1 },
		"--backlog has no effect":                    func(o *Options) { o.Backlog, o.Mode, o.Peers = 1, Enqueue, nil },
		"lower --window or":                          func(o *Options) { o.Window, o.Size = MaxWindow, 100_000 },
		"lower --capacity, --processors or --size":   func(o *Options) { o.Capacity, o.Size = MaxCapacity, 100_000 },
		"lower --capacity, --processors or --queues": func(o *Options) { o.Capacity, o.Queues = 1000, MaxQueues },
	} {
		o := good()
		change(&o)
		if err := o.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want one with %q", err, want)
		}
	}
}

func TestSpecOfEachKind(t *testing.T) {
	o := good()
	o.SlowSync, o.Queues, o.CPUProfile = time.Millisecond, 2, "cpu"
	if diff := cmp.Diff([]Kind{Stint, StintSlow, JetStream, Relay}, o.kinds()); diff != "" {
		t.Error(diff)
	}
	s := o.spec(Stint)
	if s.SlowSync != 0 || s.CPUProfile != "cpu" || s.Processors != 2 || s.Duration != time.Second {
		t.Errorf("stint: %+v", s)
	}
	if diff := cmp.Diff([]string{"work-1", "work-2"}, s.Queues); diff != "" {
		t.Error(diff)
	}
	if o.DecodeJSON = true; !o.spec(Relay).DecodeJSON || s.DecodeJSON {
		t.Error("how notices are read is not passed on")
	}
	o.Batch = 8
	if o.spec(Stint).Batch != 8 || o.spec(StintSlow).Batch != 8 || o.spec(JetStream).Batch != 0 || o.spec(Relay).Batch != 0 {
		t.Error("batches are for Stint alone")
	}
	if s = o.spec(StintSlow); s.SlowSync != time.Millisecond || s.CPUProfile != "cpu.stint-slow" {
		t.Errorf("stint-slow: %+v", s)
	}
	o.Mode, o.Items = Enqueue, 7
	if s = o.spec(Relay); s.Processors != 0 || s.Items != 7 || s.Duration != 0 {
		t.Errorf("enqueue: %+v", s)
	}
}

func TestWorkIsOneSentence(t *testing.T) {
	all := map[string]bool{}
	for _, mode := range []Mode{Roundtrip, Enqueue, Drain} {
		for _, backlog := range []int64{0, 1000} {
			for _, batch := range []int{0, 1, 2} {
				o := good()
				o.Mode, o.Backlog, o.Batch = mode, backlog, batch
				work := o.Work()
				if strings.Count(work, ".") != 1 || !strings.HasSuffix(work, ".") {
					t.Errorf("%s: %q", mode, work)
				}
				all[work] = true
			}
		}
	}
	if len(all) != 8 {
		t.Errorf("there are %d sentences, want 8: %v", len(all), all)
	}
}

func TestSpread(t *testing.T) {
	if diff := cmp.Diff(Spread{3, 1, 9}, spreadOf([]float64{9, 1, 3})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Spread{4, 1, 9}, spreadOf([]float64{9, 1, 3, 5})); diff != "" {
		t.Error(diff)
	}
}

// The median of the ratios is not the ratio of the medians.
func TestRatiosAreMadeRoundByRound(t *testing.T) {
	o := good()
	o.Peers, o.SlowSync = []Kind{Relay}, time.Millisecond
	figures := func(rates ...float64) (out []Figures) {
		for _, r := range rates {
			out = append(out, Figures{"completed_per_s": r, "sent": r, "written_bytes_per_item": 0})
		}
		return out
	}
	r := o.report(map[Kind][]Figures{
		Stint:     figures(100, 400, 300),
		Relay:     figures(400, 200, 100),
		StintSlow: figures(50, 100, 300),
	})
	want := []Ratio{{StintSlow, Stint, nil, nil}, {Stint, Relay, nil, nil}}
	wantMedians := []Spread{{0.5, 0.25, 1}, {2, 0.25, 3}}
	for i, q := range r.Ratios {
		if q.Of != want[i].Of || q.To != want[i].To {
			t.Errorf("ratio %d is of %s to %s", i, q.Of, q.To)
		}
		if diff := cmp.Diff(map[string]Spread{"completed_per_s": wantMedians[i]}, q.Median); diff != "" {
			t.Errorf("%s / %s: %s", q.Of, q.To, diff)
		}
	}
	if got := r.Kinds[0].Median["completed_per_s"]; got != (Spread{300, 100, 400}) {
		t.Errorf("stint has %v", got)
	}
}

func TestFiguresOfARound(t *testing.T) {
	m := measured{
		result: result{
			Sent: 10, Accepted: 10, Completed: 8, Accepting: time.Second, Finished: 8, Finishing: 2 * time.Second,
			Accept: latency{5, 1000, 2000, 3000},
		},
		before: usage{CPU: time.Second, Written: 100}, after: usage{CPU: 2 * time.Second, Written: 900}, memory: 1 << 20,
	}
	want := Figures{
		"sent": 10, "accepted": 10, "completed": 8, "completed_per_s": 4, "accepted_per_s": 5,
		"accept_p50_us": 1, "accept_p99_us": 2, "accept_p999_us": 3,
		"cpu_us_per_item": 125_000, "written_bytes_per_item": 100, "peak_memory_bytes": 1 << 20,
	}
	if diff := cmp.Diff(want, m.figures(&spec{Mode: Roundtrip})); diff != "" {
		t.Error(diff)
	}
	m.before, m.after, m.memory = usage{-1, -1}, usage{-1, -1}, -1
	want = Figures{
		"sent": 10, "accepted": 10, "accepted_per_s": 5,
		"accept_p50_us": 1, "accept_p99_us": 2, "accept_p999_us": 3,
	}
	if diff := cmp.Diff(want, m.figures(&spec{Mode: Enqueue})); diff != "" {
		t.Errorf("enqueue, elsewhere than on Linux: %s", diff)
	}
}

func TestEveryMetricCanBePrinted(t *testing.T) {
	o := good()
	o.Peers = []Kind{JetStream}
	f := Figures{}
	for i, m := range Metrics() {
		if i > 0 {
			f[m.Key] = 12345.6
		}
	}
	r := o.report(map[Kind][]Figures{Stint: {f}, JetStream: {f}})
	r.Machine.FileSystem = inMemory
	var b strings.Builder
	if err := r.Print(&b); err != nil {
		t.Fatal(err)
	}
	for _, m := range Metrics() {
		if !strings.Contains(b.String(), "\n"+m.Label+" ") {
			t.Errorf("%s is not printed", m.Label)
		}
	}
	for _, want := range []string{r.Work, "n/a", "12,346 (12,346-12,346)", "12.3ms", "stint / jetstream", "1.00 (1.00-1.00)", "--dir"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("there is no %q in:\n%s", want, &b)
		}
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", -1234567: "-1,234,567", 100000: "100,000"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is shown as %s", n, got)
		}
	}
}

func TestLiveLineCoversTheOneBefore(t *testing.T) {
	var b bytes.Buffer
	l := liveLine{out: &b, rounds: 2}
	l.start(1, JetStreamSync)
	l.start(2, Relay)
	l.clear()
	want := "\rround 1 of 2, jetstream-sync\rround 2 of 2, relay         \r                   \r"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}

// idle is a sender with one slot in use and one item sent.
func idle() *sender {
	s := newSender(spec{Window: 1})
	s.slots[0].at.Store(1)
	s.sent.Store(1)
	return s
}

func answer(number int64) *nats.Msg {
	m := &nats.Msg{Data: make([]byte, stampSize)}
	putStamp(m.Data, number, 1)
	return m
}

func TestWhatComesTwiceOrFromNowhereFailsTheRound(t *testing.T) {
	failed := answer(0)
	failed.Header = nats.Header{wire.HeaderErrorCode: {"500"}, wire.HeaderError: {"dead"}}
	for want, do := range map[string]func(*sender){
		"answered twice":               func(s *sender) { s.answered(answer(0)); s.answered(answer(0)) },
		"an answer came to nothing":    func(s *sender) { s.answered(answer(1)) },
		"an accept notice came twice":  func(s *sender) { s.acceptedOne(0); s.acceptedOne(0) },
		"an item failed: dead (500)":   func(s *sender) { s.answered(failed) },
		"an answer came to nothing th": func(s *sender) { s.answered(&nats.Msg{Data: []byte("hello")}) },
		"nobody takes items":           func(s *sender) { s.answered(&nats.Msg{Header: nats.Header{"Status": {"503"}}}) },
	} {
		s := idle()
		do(s)
		select {
		case err := <-s.failed:
			if !strings.Contains(err.Error(), want) {
				t.Errorf("the error is %q, want one with %q", err, want)
			}
		default:
			t.Errorf("there is no error where %q is wanted", want)
		}
	}
}

func TestOneAnswerCompletes(t *testing.T) {
	s := idle()
	s.acceptedOne(0)
	s.answered(answer(0))
	if len(s.failed) != 0 || s.accepted.Load() != 1 || s.completed.Load() != 1 || len(s.free) != 1 {
		t.Fatalf("accepted %d, completed %d, %d slots free, %d errors",
			s.accepted.Load(), s.completed.Load(), len(s.free), len(s.failed))
	}
}

func TestAcceptNotice(t *testing.T) {
	for _, decode := range []bool{false, true} {
		if err := checkAccepted(wire.Accepted(7, false), decode); err != nil {
			t.Error(err)
		}
		refusal := wire.Errorf(wire.CodeQueueFull, "no room").Body()
		if err := checkAccepted(refusal, decode); err == nil || !strings.Contains(err.Error(), "no room (queue_full)") {
			t.Errorf("a refusal: %v", err)
		}
		if err := checkAccepted([]byte("hello"), decode); err == nil {
			t.Error("something else is taken for a notice")
		}
	}
}

func TestStallIsNoticed(t *testing.T) {
	start := time.Now()
	w := stallWatch{since: start}
	for _, step := range []struct {
		after           time.Duration
		sent, completed int64
		stalled         bool
	}{
		{stallLimit - 1, 0, 0, false},
		{stallLimit, 1, 0, false}, // something came
		{2*stallLimit - 1, 1, 0, false},
		{2 * stallLimit, 1, 0, true},
		{2 * stallLimit, 1, 1, false},
	} {
		err := w.look(start.Add(step.after), step.sent, 0, step.completed)
		if (err != nil) != step.stalled {
			t.Errorf("after %s: %v", step.after, err)
		}
	}
}

func TestCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCredit(1)
		taken := make(chan int, 10)
		for range 6 {
			go func() {
				c.take()
				taken <- 1
			}()
		}
		for i, more := range []int64{0, 2, 1, 2} {
			if more > 0 {
				c.give(more)
			}
			synctest.Wait()
			if want := []int{1, 3, 4, 6}[i]; len(taken) != want {
				t.Errorf("after grant %d %d are taken, want %d", i, len(taken), want)
			}
		}
	})
}

func TestRoleThatIsToldNothing(t *testing.T) {
	err := Play(context.Background(), RoleSender, Hosts{}, strings.NewReader(""), &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "this command is for stint bench itself") {
		t.Errorf("the error is %v", err)
	}
}

func TestRoleThatFailsTellsTheRunner(t *testing.T) {
	hosts := Hosts{Stint: func(context.Context, string, []string, func(int)) (Host, error) {
		return Host{}, errors.New("no luck")
	}}
	var out bytes.Buffer
	err := Play(context.Background(), RoleServer, hosts, strings.NewReader(`{"kind":"stint"}`), &out)
	if err == nil || !strings.Contains(out.String(), `{"event":"failed","error":"stint, server: no luck"}`) {
		t.Errorf("the error is %v, and it tells %s", err, &out)
	}
}

func TestWordsAreBounded(t *testing.T) {
	w := newWords()
	if w.quote() != "" {
		t.Errorf("nothing is quoted as %q", w.quote())
	}
	for range 3 {
		if n, err := w.Write(bytes.Repeat([]byte("x"), firstWords-1)); n != firstWords-1 || err != nil {
			t.Fatal(n, err)
		}
	}
	if got := strings.Count(w.quote(), "x"); got != firstWords {
		t.Errorf("%d bytes are kept, want %d", got, firstWords)
	}
}
