package integration

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"stint/integration/harness"
)

// childEnv makes a process of this test binary the child of a pool.
const childEnv = "STINT_INTEGRATION_CHILD"

func init() {
	if os.Getenv(childEnv) != "" {
		poolChild()
		os.Exit(0)
	}
}

// poolChild answers at once, or holds an item of one that says so, with a grandchild beside it. It reads ahead and writes when it
// has nothing more to read.
func poolChild() {
	in, out := bufio.NewReaderSize(os.NewFile(3, "in"), 1<<16), bufio.NewWriterSize(os.NewFile(4, "out"), 1<<16)
	for {
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		if !bytes.HasPrefix(line, []byte(`{"type":"work"`)) {
			continue
		}
		if bytes.Contains(line, []byte(`"body":"hold`)) {
			nap := exec.Command("/bin/sleep", "1000")
			nap.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := nap.Start(); err != nil {
				panic(err)
			}
			os.WriteFile(os.Getenv(childEnv), fmt.Appendf(nil, "%d %d", os.Getpid(), nap.Process.Pid), 0o600) //nolint:errcheck // the test waits for it
			select {}
		}
		_, rest, _ := bytes.Cut(line, []byte(`"id":"`))
		id, _, _ := bytes.Cut(rest, []byte(`"`))
		out.WriteString(`{"type":"done","id":"`)
		out.Write(id)
		out.WriteString("\",\"body\":\"done\"}\n")
	}
}

// poolProcess is stint work with this test binary as the children.
func poolProcess(t testing.TB, b *harness.Broker, file string, more ...string) *harness.Command {
	t.Helper()
	args := []string{"work", "work", "--server", b.URL, "--env", childEnv + "=" + file}
	args = append(append(args, more...), "--", os.Args[0])
	return harness.Run(t, harness.Binary(t), args...)
}

func poolsOf(t testing.TB, nc *nats.Conn) (n int) {
	t.Helper()
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	if err := nc.PublishRequest("stint.pool.stats", inbox, nil); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := sub.NextMsg(200 * time.Millisecond)
		if err != nil || len(m.Data) == 0 {
			return n
		}
		n++
	}
}

// Kill -9 of stint work: its children and what they have started are gone, its items are with another pool at once, which
// the log has in figures: all that is asserted is that nothing waits for the process timeout of 5 minutes.
func TestKillNineOfAPool(t *testing.T) {
	b := harness.NewBroker(t, harness.Binary(t), harness.Config(harness.Durable("work")))
	b.Start()
	nc := b.Connect()
	for round := range 5 {
		first, second := filepath.Join(t.TempDir(), "first"), filepath.Join(t.TempDir(), "second")
		victim := poolProcess(t, b, first, "--children", "2", "--name", "first")
		harness.Until(t, 10*time.Second, "the first pool is there", func() bool { return poolsOf(t, nc) == 1 })
		if err := nc.PublishRequest("work", nc.NewInbox(), []byte("hold "+strconv.Itoa(round))); err != nil {
			t.Fatal(err)
		}
		held := readPIDs(t, first)
		other := poolProcess(t, b, second, "--children", "2", "--name", "second")
		harness.Until(t, 10*time.Second, "the second pool is there", func() bool { return poolsOf(t, nc) == 2 })

		began := time.Now()
		victim.Kill()
		again := readPIDs(t, second)
		t.Logf("round %d: with another child after %v", round, time.Since(began))
		harness.Until(t, soon, "the children of the killed pool are gone", func() bool { return allGone(held) })
		other.Kill()
		harness.Until(t, soon, "the children of the other are gone", func() bool { return allGone(again) })
		drainQueue(t, b, nc)
	}
}

// drainQueue has a third pool answer what is left.
func drainQueue(t *testing.T, b *harness.Broker, nc *nats.Conn) {
	t.Helper()
	p := harness.Run(t, harness.Binary(t), "work", "work", "--server", b.URL, "--exec", "--name", "third", "--", "/bin/true")
	if _, err := nc.Request("work", []byte("last"), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	harness.Until(t, 10*time.Second, "it is done", func() bool {
		m, err := nc.Request("stint.pool.third.stats", nil, time.Second)
		return err == nil && bytes.Contains(m.Data, []byte(`"done":2`))
	})
	p.Kill()
}

func readPIDs(t *testing.T, file string) (pids []int) {
	t.Helper()
	harness.Until(t, 10*time.Second, "a child has the item", func() bool {
		text, err := os.ReadFile(file)
		return err == nil && len(strings.Fields(string(text))) == 2
	})
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for field := range strings.FieldsSeq(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

func allGone(pids []int) bool {
	for _, pid := range pids {
		if syscall.Kill(pid, 0) == nil {
			return false
		}
	}
	return true
}

// The children of examples/pools, in every language that is installed here.
func TestPoolExamples(t *testing.T) {
	b := harness.NewBroker(t, harness.Binary(t), harness.Config(harness.Durable("work", harness.Queue{"max_attempts": 1})))
	b.Start()
	nc := b.Connect()
	dir := "../examples/pools/"
	for _, c := range []struct {
		name, item, reply string
		args              []string
	}{
		{"shell", `a "quoted" \ word`, `Hello, a "quoted" \ word`, []string{"--", "sh", dir + "child.sh"}},
		{"python", "Zoë\n\u2028", "Hello, Zoë\n\u2028", []string{"--", "python3", dir + "child.py"}},
		{"go", "Zoë\n\u2028", "Hello, Zoë\n\u2028", []string{"--", harness.Build(t, "stint/examples/pools/child")}},
		{"exec", "12345", "5\n", []string{"--exec", "--", "wc", "-c"}},
		{"node", `{"type":"greet","name":"you"}`, `"hello":"you"`, []string{"--node", dir + "ewd.js"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			program := c.args[1]
			switch c.name {
			case "exec":
				program = c.args[2]
			case "node":
				program = "node"
			}
			if _, err := exec.LookPath(program); err != nil {
				t.Skipf("%s is not installed here", program)
			}
			p := harness.Run(t, harness.Binary(t), append([]string{"work", "work", "--server", b.URL, "--children", "1"}, c.args...)...)
			m, err := nc.Request("work", []byte(c.item), 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(m.Data), c.reply) {
				t.Errorf("got %q %q, want %q", m.Header, m.Data, c.reply)
			}
			p.Kill()
		})
	}
}
