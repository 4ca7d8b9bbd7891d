package harness

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// readyLimit is how long a broker may take to its ready line before the test gives it up. What is promised is less;
	// tests that care compare the time themselves.
	readyLimit = 30 * time.Second
	// stopLimit is how long it may take to end after SIGTERM, beyond its drain_timeout of 10 seconds.
	stopLimit = 20 * time.Second
	// logTail is how much of a broker's log a failed test shows, in bytes.
	logTail = 16 << 10
)

// Queue is the configuration of a queue; keys as in the file.
type Queue map[string]any

// Durable is a queue with a database.
func Durable(address string, more ...Queue) Queue {
	q := Queue{"address": address, "persistor_address": "main", "collection": address}
	for _, m := range more {
		for k, v := range m {
			q[k] = v
		}
	}
	return q
}

// Config is the configuration for some queues; keys as in the file. listen and data_dir are added.
func Config(queues ...Queue) map[string]any { return map[string]any{"queues": queues} }

// Broker is a broker process that may be killed and started again, with one port and one data directory.
type Broker struct {
	URL  string
	Data string // the data directory

	t      testing.TB
	binary string
	config string // file
	log    *os.File
	cmd    *exec.Cmd     // nil: not running
	ready  chan string   // the ready line; closed when there will be none
	exited chan struct{} // closed when the process has ended
	status *os.ProcessState
}

// NewBroker prepares a broker; Start runs it. data_dir and the nats.url of an outside server are kept if they are given.
func NewBroker(t testing.TB, binary string, config map[string]any) *Broker {
	t.Helper()
	dir := t.TempDir()
	port := freePort(t)
	b := &Broker{
		t: t, binary: binary, config: filepath.Join(dir, "stint.json"),
		URL: "nats://127.0.0.1:" + port, Data: filepath.Join(dir, "data"),
	}
	if given, ok := config["data_dir"].(string); ok {
		b.Data = given
	}
	if outside, ok := config["nats"].(map[string]any); ok {
		b.URL = outside["url"].(string)
	}
	b.Configure(config)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	b.log = log
	t.Cleanup(func() {
		b.Kill()
		if t.Failed() {
			t.Logf("the end of the broker's log:\n%s", b.Log())
		}
		log.Close()
	})
	return b
}

// Configure writes the configuration for the next start.
func (b *Broker) Configure(config map[string]any) {
	b.t.Helper()
	full := map[string]any{"data_dir": b.Data}
	if config["nats"] == nil {
		full["listen"] = strings.TrimPrefix(b.URL, "nats://")
	}
	for k, v := range config {
		full[k] = v
	}
	body, err := json.MarshalIndent(full, "", "  ")
	if err == nil {
		err = os.WriteFile(b.config, body, 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// freePort finds a port that nobody listens at and that the system does not give to connections.
func freePort(t testing.TB) string {
	t.Helper()
	for range 100 {
		port := strconv.Itoa(20000 + rand.IntN(12000))
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no free port found between 20000 and 32000")
	return ""
}

// Start runs the broker and waits for its ready line. It returns how long that took.
func (b *Broker) Start() time.Duration {
	b.t.Helper()
	began := time.Now()
	b.Launch()
	end := time.NewTimer(readyLimit)
	defer end.Stop()
	select {
	case line, ok := <-b.ready:
		if !ok {
			<-b.exited
			b.t.Fatalf("the broker ended without becoming ready: %v", b.status)
		}
		if want := "stint ready: " + b.URL + " queues="; !strings.HasPrefix(line, want) {
			b.t.Fatalf("ready line is %q, want it to begin with %q", line, want)
		}
	case <-end.C:
		b.t.Fatalf("the broker is not ready after %v", readyLimit)
	}
	return time.Since(began)
}

// Launch runs the broker and does not wait for anything.
func (b *Broker) Launch() {
	b.t.Helper()
	if b.cmd != nil {
		b.t.Fatal("the broker runs already")
	}
	cmd := exec.Command(b.binary, "serve", "--config", b.config)
	cmd.Stderr = b.log
	cmd.SysProcAttr = childAttr()
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.t.Fatal(err)
	}
	b.cmd, b.ready, b.exited = cmd, make(chan string, 1), make(chan struct{})
	go b.follow(cmd, out, b.ready, b.exited)
}

// follow reads the process's output to its end and takes its status.
func (b *Broker) follow(cmd *exec.Cmd, out io.Reader, ready chan<- string, exited chan<- struct{}) {
	lines := bufio.NewScanner(out)
	if lines.Scan() {
		ready <- lines.Text()
	}
	close(ready)
	io.Copy(io.Discard, out) //nolint:errcheck // what else is printed matters to nobody here
	cmd.Wait()               //nolint:errcheck // the status says it
	b.status = cmd.ProcessState
	close(exited)
}

// Kill is kill -9, and waits until the process is gone.
func (b *Broker) Kill() {
	if b.cmd == nil {
		return
	}
	b.cmd.Process.Kill() //nolint:errcheck // it may have ended by itself
	<-b.exited
	b.cmd = nil
}

// Terminate sends SIGTERM.
func (b *Broker) Terminate() {
	b.t.Helper()
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		b.t.Fatal(err)
	}
}

// Wait waits for the process to end and returns its exit code.
func (b *Broker) Wait() int {
	b.t.Helper()
	end := time.NewTimer(stopLimit)
	defer end.Stop()
	select {
	case <-b.exited:
	case <-end.C:
		b.t.Fatalf("the broker has not ended after %v", stopLimit)
	}
	b.cmd = nil
	return b.status.ExitCode()
}

// Exited is closed when the process that runs now has ended.
func (b *Broker) Exited() <-chan struct{} { return b.exited }

// Stop ends the broker with SIGTERM and expects exit code 0.
func (b *Broker) Stop() {
	b.t.Helper()
	b.Terminate()
	if code := b.Wait(); code != 0 {
		b.t.Fatalf("the broker ended with %d after SIGTERM, want 0", code)
	}
}

// Log is the end of what all runs have written to standard error.
func (b *Broker) Log() string {
	f, err := os.Open(b.log.Name())
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		f.Seek(max(0, size-logTail), io.SeekStart) //nolint:errcheck // a file that was just opened
	}
	text, err := io.ReadAll(f)
	return string(text) + errorText(err)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Connect makes a client's connection, which is closed at the end of the test.
func (b *Broker) Connect(options ...nats.Option) *nats.Conn {
	b.t.Helper()
	nc, err := nats.Connect(b.URL, append(Stubborn(), options...)...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(nc.Close)
	return nc
}

// Stubborn are the options of a client that reconnects for ever, quickly.
func Stubborn() []nats.Option {
	wait := func(int) time.Duration { return time.Duration(15+rand.IntN(20)) * time.Millisecond }
	return []nats.Option{
		nats.MaxReconnects(-1), nats.CustomReconnectDelay(wait), nats.RetryOnFailedConnect(true),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}),
	}
}

// Memory is the process's own memory, without the pages of its files, in bytes. It is 0 where the system does not say.
func (b *Broker) Memory() int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.cmd.Process.Pid))
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	if err != nil {
		b.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "RssAnon:" {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			return n << 10
		}
	}
	return 0
}
