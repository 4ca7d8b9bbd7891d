package pool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"stint/broker/queue"
	"stint/wire"
)

// quick is a queue that gives failed items out again soon.
var quick = queue.Config{Backoff: queue.Backoff{Fixed: true, Base: 10 * time.Millisecond, Max: 10 * time.Millisecond}, MaxAttempts: 5}

func TestLinesBodiesPassUntouched(t *testing.T) {
	w := newWorld(t, quick)
	w.pool("plain", Options{Children: 2})
	for _, body := range []string{"", " ", "hello", "\"\\\n\r\t\x00\x1f\u2028€😀", strings.Repeat("long ", 100_000), `{"a":[1]}`} {
		w.want("echo "+body, body)
	}
	for _, body := range []string{"\xff", "raw\xff\x00\xfe"} {
		w.want(body, body)
	}
}

func TestLinesThroughStandardInputAndOutput(t *testing.T) {
	w := newWorld(t, quick)
	w.pool("plain", Options{Children: 1, Stdio: true})
	w.want("echo hello", "hello")
}

func TestHeadersGoBothWays(t *testing.T) {
	w := newWorld(t, quick)
	w.pool("plain", Options{Children: 1})
	m := w.wait(w.send("headers x", "X-Test", "seen"))
	if got := m.Header.Get("X-Seen"); got != "seen" || string(m.Data) != "x" {
		t.Errorf("got %q with header %q", m.Data, got)
	}
}

func TestOutcomes(t *testing.T) {
	q := quick
	q.MaxAttempts = 2
	w := newWorld(t, q)
	r := w.pool("plain", Options{Children: 1})
	for body, want := range map[string]string{
		"fail because":     `dead: item \w+ of queue orders is a dead letter after 2 failed attempts: E1: because`,
		"soon because":     `dead: item \w+ of queue orders is a dead letter after 2 failed attempts: because`,
		"reject because":   `dead: item \w+ of queue orders is a dead letter.*: because`,
		"once fail x":      `^$`,
		"once soon x":      `^$`,
		"once fail":        `^fail$`,
		"echo still alive": `^still alive$`,
	} {
		if got := w.ask(body); !regexp.MustCompile(want).MatchString(got) && body != "once fail x" && body != "once soon x" {
			t.Errorf("%s: got %q, want %q", body, got, want)
		}
	}
	if s := r.stats(); s.Died != 0 || s.Started != 1 {
		t.Errorf("failures are no reason to replace a child: %+v", s)
	}
}

// What a child does to itself costs the item one attempt, and the pool goes on.
func TestCrashesCostOneAttempt(t *testing.T) {
	w := newWorld(t, quick)
	r := w.pool("plain", Options{Children: 2, ExitTimeout: 50 * time.Millisecond, Timeout: time.Second, MaxOutput: 1 << 18})
	words := []string{"crash", "kill", "garbage", "half", "long", "wrongid", "hang", "deaf", "closeout"}
	for _, word := range words {
		t.Run(word, func(t *testing.T) {
			w.t = t
			began := time.Now()
			w.want("once "+word, word)
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
	w.t = t
	if s := r.stats(); s.Died != int64(len(words)) || s.Failed != int64(len(words)) || s.Done != int64(len(words)) {
		t.Errorf("%+v", s)
	}
}

func TestReasonsNameTheCauseAndTheLastWords(t *testing.T) {
	q := quick
	q.MaxAttempts = 1
	w := newWorld(t, q)
	w.pool("plain", Options{Children: 1, Timeout: 300 * time.Millisecond, ExitTimeout: 20 * time.Millisecond, MaxOutput: 1 << 18})
	for body, want := range map[string]string{
		"crash":    "the child ended with exit code 3: it hurts",
		"kill":     "the child was ended by signal 9 (killed)",
		"garbage":  `the child wrote a line that is no JSON object: "Segmentation fault"`,
		"wrongid":  `the child answers to "zzz" while it has item`,
		"hang":     "no answer from the child after 300ms",
		"closeout": "the child has closed the end of the pipe that it writes to",
		"long":     "the child wrote a line of more than 262144 bytes",
	} {
		if got := w.ask(body); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", body, got, want)
		}
	}
}

// An answer too many comes from a child that cannot be trusted; the item after it pays once and no reply is mixed up.
func TestSecondAnswerIsNobodyElses(t *testing.T) {
	w := newWorld(t, quick)
	w.pool("plain", Options{Children: 1, Ahead: 8, ExitTimeout: 20 * time.Millisecond})
	var replies []<-chan *nats.Msg
	for i := range 20 {
		body := fmt.Sprintf("echo %d", i)
		if i == 3 {
			body = "once twice"
		}
		replies = append(replies, w.send(body))
	}
	for i, c := range replies {
		want := fmt.Sprint(i)
		if i == 3 {
			want = "" // "twice" answers with what follows the word, at the first attempt
		}
		if got := text(w.wait(c)); got != want {
			t.Errorf("item %d: got %q", i, got)
		}
	}
}

func TestItemThatKillsChildrenInARowIsADeadLetter(t *testing.T) {
	q := quick
	q.MaxAttempts = 100
	w := newWorld(t, q)
	r := w.pool("plain", Options{Children: 2, MaxKills: 3})
	bad := w.send("crash")
	for i := range 50 {
		w.want(fmt.Sprintf("echo %d", i), fmt.Sprint(i))
	}
	if got := text(w.wait(bad)); !strings.Contains(got, "the item ended 3 children in a row: the child ended with exit code 3: it hurts") {
		t.Errorf("got %q", got)
	}
	if s := r.stats(); s.Died != 3 || s.Rejected != 1 {
		t.Errorf("%+v", s)
	}
}

// A program that cannot run spends the attempts of few items, and is said once with the reason. How its children are held back is
// a matter of the roster's clock, see TestBackoffOfChildrenThatDieAtOnce.
func TestProgramThatCannotRun(t *testing.T) {
	w := newWorld(t, quick)
	r := w.pool("dead", Options{Children: 4})
	reply := w.send("echo never")
	until(t, "the children have ended, and one more", func() bool { return r.stats().Died >= 5 })
	s := r.stats()
	if s.Failed > 4 {
		t.Errorf("%d attempts were spent", s.Failed)
	}
	if n := strings.Count(w.log.String(), "a child has ended"); n != 1 {
		t.Errorf("it was said %d times", n)
	}
	if !strings.Contains(w.log.String(), "cannot find my configuration") {
		t.Error("the reason is not said")
	}
	r.end()
	w.pool("plain", Options{Children: 1})
	if got := text(w.wait(reply)); got != "never" {
		t.Errorf("got %q", got)
	}
}

func TestProgramThatIsNotThere(t *testing.T) {
	_, err := New(Options{Address: testQueue, Command: []string{"no-such-program-anywhere"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-program-anywhere") {
		t.Errorf("got %v", err)
	}
}

// A program that vanishes while the pool runs costs no attempts.
func TestProgramThatVanishes(t *testing.T) {
	w := newWorld(t, quick)
	file := filepath.Join(t.TempDir(), "child")
	copyFile(t, os.Args[0], file)
	r := w.pool("plain", Options{Children: 1, Command: []string{file}})
	w.want("echo a", "a")
	os.Remove(file)
	reply := w.send("once kill")
	until(t, "the child is tried again", func() bool { return r.stats().Started > 2 })
	copyFile(t, os.Args[0], file)
	if got := text(w.wait(reply)); got != "kill" {
		t.Errorf("got %q", got)
	}
	if s := r.stats(); s.Failed != 1 {
		t.Errorf("%+v", s)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to+".new", text, 0o700)
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestProgressReachesASenderThatAsked(t *testing.T) {
	w := newWorld(t, quick)
	w.pool("plain", Options{Children: 1})
	c := w.send("progress done", wire.HeaderProgress, "true")
	if m := w.wait(c); string(m.Data) != "half" || m.Header.Get(wire.HeaderProgress) != "true" {
		t.Errorf("got %q first", m.Data)
	}
	if got := text(w.wait(c)); got != "done" {
		t.Errorf("got %q", got)
	}
}

func TestSignsOfLifeExtendTheTime(t *testing.T) {
	w := newWorld(t, quick)
	r := w.pool("plain", Options{Children: 1, Timeout: time.Second})
	w.want("echo warm", "warm")
	w.want("extend 300ms", "300ms")
	if s := r.stats(); s.Failed != 0 {
		t.Errorf("%+v", s)
	}
}

func TestTimeoutOfTheItemGoesBeforeThePools(t *testing.T) {
	q := quick
	q.MaxAttempts = 1
	w := newWorld(t, q)
	w.pool("plain", Options{Children: 1, ExitTimeout: 10 * time.Millisecond})
	if got := w.ask("hang", wire.HeaderTimeout, "200"); !strings.Contains(got, "no answer from the child after 200ms") {
		t.Errorf("got %q", got)
	}
}

func TestGrandchildrenEndWithTheirChild(t *testing.T) {
	w := newWorld(t, quick)
	r := w.pool("plain", Options{Children: 1})
	same := number(t, w.ask("grandchild"))
	other := number(t, w.ask("daemon"))
	if gone(same) || gone(other) {
		t.Fatal("they should live as long as the child")
	}
	w.want("once kill", "kill")
	until(t, "the grandchild of the same group is gone", func() bool { return gone(same) })
	until(t, "the grandchild of a session of its own is gone", func() bool { return gone(other) })
	last := number(t, w.ask("daemon"))
	r.end()
	until(t, "the last one is gone", func() bool { return gone(last) })
}

func TestMemoryLimit(t *testing.T) {
	w := newWorld(t, quick)
	r := w.pool("plain", Options{Children: 1, MaxMemory: 300 << 20})
	first := number(t, w.ask("who"))
	w.want("eat 100", "100")
	w.want("echo fits", "fits")
	w.want("eat 320", "320")
	until(t, "the fat child is replaced", func() bool { return gone(first) })
	if s := r.stats(); s.Died != 0 || s.Failed != 0 {
		t.Errorf("a child that has finished is replaced without a fault: %+v", s)
	}
	reply := w.send("once eathang 1000")
	if got := text(w.wait(reply)); !strings.HasPrefix(got, "eathang") && got != "1000" {
		t.Errorf("got %q", got)
	}
	until(t, "the eater is killed", func() bool { return r.stats().Died >= 1 || r.stats().Started >= 3 })
}

func TestEnvironmentDirectoryNiceAndUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("changing the user takes root")
	}
	dir, err := os.MkdirTemp("/tmp", "pool")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "child")
	copyFile(t, os.Args[0], bin)
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(bin, 0o755)); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, quick)
	t.Setenv("PET", "dog")
	w.pool("plain", Options{Children: 1, Command: []string{bin}, Dir: dir, Nice: 7, User: "65534", Env: []string{"PET=cat"}})
	w.want("env PET", "cat "+dir+" 7 65534 orders")
}

func TestMaxUseCount(t *testing.T) {
	w := newWorld(t, quick)
	r := w.pool("plain", Options{Children: 1, MaxUseCount: 3, Ahead: 2})
	uses := map[string]int{}
	var replies []<-chan *nats.Msg
	for range 12 {
		replies = append(replies, w.send("who"))
	}
	for _, c := range replies {
		uses[text(w.wait(c))]++
	}
	if len(uses) != 4 {
		t.Errorf("uses: %v", uses)
	}
	if s := r.stats(); s.Died != 0 {
		t.Errorf("%+v", s)
	}
}

func TestChildrenComeOnDemandAndGoWhenIdle(t *testing.T) {
	w := newWorld(t, quick)
	r := w.pool("plain", Options{Children: 3, MinChildren: -1, IdleTimeout: 300 * time.Millisecond})
	if s := r.stats(); len(s.Children) != 0 {
		t.Errorf("%d children before there is work", len(s.Children))
	}
	w.want("echo a", "a")
	if s := r.stats(); s.Started != 1 {
		t.Errorf("%d children for one item", s.Started)
	}
	var replies []<-chan *nats.Msg
	for range 6 {
		replies = append(replies, w.send("sleep 200ms"))
	}
	for _, c := range replies {
		w.wait(c)
	}
	if s := r.stats(); s.Started != 3 {
		t.Errorf("%d children for six items", s.Started)
	}
	until(t, "the idle ones have gone", func() bool { return len(r.stats().Children) == 0 })
	if s := r.stats(); s.Died != 0 {
		t.Errorf("%+v", s)
	}
}

func TestReloadReplacesOneByOneWithoutRefusingWork(t *testing.T) {
	w := newWorld(t, quick)
	file := filepath.Join(t.TempDir(), "version")
	version := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	version("one")
	r := w.pool("version", Options{Children: 3, Env: []string{"VERSION_FILE=" + file}})
	w.want("version", "one")
	before := r.stats()

	version("two")
	r.Reload()
	stop := make(chan struct{})
	asked := make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				asked <- n
				return
			default:
				w.ask("echo x")
				n++
			}
		}
	}()
	until(t, "all are new", func() bool {
		s := r.stats()
		return len(s.Children) == 3 && s.Children[0].Child > before.Children[2].Child
	})
	close(stop)
	if n := <-asked; n == 0 {
		t.Error("nothing was asked meanwhile")
	}
	if s := r.stats(); s.Failed+s.Returned+s.Died != 0 || s.Started != 6 {
		t.Errorf("%+v", s)
	}

	version("broken")
	good := r.stats()
	r.Reload()
	until(t, "the reload is given up", func() bool { return strings.Contains(w.log.String(), "the others stay as they are") })
	w.want("echo still", "still")
	if s := r.stats(); s.Started != 7 || len(s.Children) != 3 || s.Children[0].PID != good.Children[0].PID {
		t.Errorf("%+v", s)
	}
}

func TestRollOver(t *testing.T) {
	w := newWorld(t, quick)
	r := w.pool("plain", Options{Children: 2, RollOver: 200 * time.Millisecond})
	until(t, "three generations", func() bool { return r.stats().Started >= 6 })
	if s := r.stats(); s.Died != 0 {
		t.Errorf("%+v", s)
	}
}

func TestStopFinishesWhatIsInHandAndRunsStopHandlers(t *testing.T) {
	w := newWorld(t, quick)
	file := filepath.Join(t.TempDir(), "stopped")
	r := w.pool("plain", Options{Children: 1, Ahead: 2, StopTimeout: 5 * time.Second, Env: []string{"STOP_FILE=" + file}})
	var replies []<-chan *nats.Msg
	for range 4 {
		replies = append(replies, w.send("sleep 300ms"))
	}
	until(t, "it has its hands full", func() bool { s := r.stats(); return len(s.Children) > 0 && s.Children[0].Ahead == 1 })
	r.end()
	if text, _ := os.ReadFile(file); string(text) != "stopped" {
		t.Error("no stop handler has run")
	}
	for _, c := range replies[:2] {
		if m := text(w.wait(c)); m != "300ms" {
			t.Errorf("got %q", m)
		}
	}
	w.pool("plain", Options{Children: 2})
	for _, c := range replies[2:] {
		w.wait(c)
	}
}

// What does not finish in time goes back without a counted attempt.
func TestStopGivesBackWhatTakesTooLong(t *testing.T) {
	q := quick
	q.MaxAttempts = 1
	w := newWorld(t, q)
	r := w.pool("stubborn", Options{Children: 1, StopTimeout: 100 * time.Millisecond, ExitTimeout: 50 * time.Millisecond})
	reply := w.send("sleep 1h")
	until(t, "it is at work", func() bool { s := r.stats(); return len(s.Children) > 0 && s.Children[0].Item != "" })
	began := time.Now()
	r.end()
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("the end took %v", took)
	}
	w.pool("plain", Options{Children: 1, Timeout: 100 * time.Millisecond})
	if got := text(w.wait(reply)); !strings.Contains(got, "no answer from the child after 100ms") {
		t.Errorf("the second pool had it for the first attempt that counts: %q", got)
	}
}

// The guard dies: children with it, items go back uncounted, a new guard takes over.
func TestGuardThatIsKilled(t *testing.T) {
	q := quick
	q.MaxAttempts = 1
	w := newWorld(t, q)
	r := w.pool("plain", Options{Children: 2})
	r.post(func(own *owner, _ time.Time) { own.guarded = own.guarded.Add(-guardLife) }) // it has lived long enough
	first := number(t, w.ask("who"))
	reply := w.send("sleep 1s")
	until(t, "it is at work", func() bool { return r.stats().Children[0].Item != "" })
	guards := children()
	if len(guards) != 1 {
		t.Fatalf("guards: %v", guards)
	}
	syscall.Kill(guards[0], syscall.SIGKILL) //nolint:errcheck // it is there
	until(t, "its children are gone", func() bool { return gone(first) })
	if got := text(w.wait(reply)); got != "1s" {
		t.Errorf("got %q", got)
	}
}

func TestGuardThatDiesAtOnceEndsThePool(t *testing.T) {
	w := newWorld(t, quick)
	r := w.pool("plain", Options{Children: 1})
	syscall.Kill(children()[0], syscall.SIGKILL) //nolint:errcheck // it is there
	select {
	case err := <-r.ended:
		if !errors.Is(err, errGuardLost) {
			t.Errorf("got %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the pool goes on")
	}
	r.ended <- nil
}

func TestStatsOnASubject(t *testing.T) {
	w := newWorld(t, quick)
	r := w.pool("plain", Options{Children: 2, Name: "shop-1", MonitorInterval: 50 * time.Millisecond})
	w.want("echo x", "x")
	for _, subject := range []string{"stint.pool.stats", "stint.pool.shop-1.stats"} {
		until(t, "the children's own stats are there", func() bool {
			m, err := w.nc.Request(subject, nil, patience)
			return err == nil && strings.Contains(string(m.Data), `"reported":{"mood":"fine","type":"stats"}`)
		})
	}
	s := r.stats()
	if s.Pool != "shop-1" || s.Queue != testQueue || s.Done != 1 || len(s.Children) != 2 || s.Children[0].Memory == 0 || s.Children[0].State != "idle" {
		t.Errorf("%+v", s)
	}
	until(t, "a line in the log", func() bool { return strings.Contains(w.log.String(), "msg=pool pool=shop-1") })
}

func TestOutputIsPassedOn(t *testing.T) {
	w := newWorld(t, quick)
	out := &logBook{}
	w.pool("plain", Options{Children: 1, Output: out})
	w.want("print hello", "hello")
	until(t, "both lines", func() bool {
		s := out.String()
		return strings.Contains(s, "hello\n") && strings.Contains(s, "error: hello\n")
	})
}

func TestRunOnce(t *testing.T) {
	w := newWorld(t, quick)
	r := w.pool("plain", Options{Children: 1})
	if err := r.Pool.Run(context.Background(), r.nc); err == nil {
		t.Error("it runs twice")
	}
}
