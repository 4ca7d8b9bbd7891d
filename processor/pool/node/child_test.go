package node

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for a line or an exit that must come; it is never waited in full when all is well.
const patience = 90 * time.Second

// line is one line of the protocol, in either direction.
type line struct {
	Type     string  `json:"type"`
	ID       string  `json:"id,omitempty"`
	Attempt  int     `json:"attempt,omitempty"`
	Queue    string  `json:"queue,omitempty"`
	Deadline int64   `json:"deadline,omitempty"`
	Child    int     `json:"child,omitempty"`
	First    bool    `json:"first,omitempty"`
	Body     *string `json:"body,omitempty"`
	Body64   *string `json:"body64,omitempty"`
	Message  string  `json:"message,omitempty"`
	Level    string  `json:"level,omitempty"`
	Code     string  `json:"code,omitempty"`
	Retry    *bool   `json:"retry,omitempty"`
	Memory   int64   `json:"memory,omitempty"`
	Handled  int     `json:"handled,omitempty"`
}

// text is the body, or a word for its absence.
func (l line) text() string {
	if l.Body == nil {
		return "no body"
	}
	return *l.Body
}

// child is a bootstrap under test, with the pool's side of its lines in our hands.
type child struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     *os.File
	out    *os.File
	lines  *bufio.Reader
	logs   []line // the log lines that read has passed over
	stdout syncBuffer
	stderr syncBuffer
	exited bool
}

// syncBuffer may be read while a process still writes to it.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// needNode skips the test where there is no Node.js, and says so.
func needNode(t testing.TB) {
	t.Helper()
	out, err := exec.Command("node", "--version").Output()
	if err != nil {
		t.Skipf("SKIPPED, NOTHING WAS TESTED: Node.js is not installed here, and this test runs modules in it: %v", err)
	}
	var major int
	if _, err := fmt.Sscanf(string(out), "v%d.", &major); err != nil || major < 18 {
		t.Skipf("SKIPPED, NOTHING WAS TESTED: Node.js 18 or later is needed, here is %s", out)
	}
}

// tree writes a tree of files, names to texts, and returns its directory.
func tree(t testing.TB, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// run starts a child in dir and sends it the start line.
func run(t *testing.T, dir string, o Options) *child {
	t.Helper()
	c := prepare(t, dir, o)
	c.begin()
	c.send(line{Type: "start", Queue: "q", Child: 1, First: true})
	return c
}

// prepare makes a child's command with pipes on descriptors 3 and 4.
func prepare(t *testing.T, dir string, o Options) *child {
	t.Helper()
	needNode(t)
	argv, env, err := Command(o)
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, cmd: exec.Command(argv[0], argv[1:]...)}
	c.cmd.Dir = dir
	c.cmd.Env = append(os.Environ(), append(env, "STINT_IN=3", "STINT_OUT=4", "STINT_QUEUE=q", "STINT_CHILD=1", "STINT_PROTOCOL=1")...)
	c.cmd.Stdout, c.cmd.Stderr = &c.stdout, &c.stderr
	return c
}

func (c *child) begin() {
	c.t.Helper()
	theirIn, in, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	c.cmd.ExtraFiles = []*os.File{theirIn, theirOut}
	c.start(in, out)
	theirIn.Close()
	theirOut.Close()
}

func (c *child) start(in, out *os.File) {
	c.t.Helper()
	if err := c.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.in, c.out, c.lines = in, out, bufio.NewReader(out)
	c.t.Cleanup(func() {
		in.Close()
		out.Close()
		if !c.exited {
			_ = c.cmd.Process.Kill()
			_ = c.cmd.Wait()
		}
		if c.t.Failed() {
			c.t.Logf("standard output: %s\nstandard error: %s\nlog: %+v", c.stdout.String(), c.stderr.String(), c.logs)
		}
	})
}

// send writes lines in one write. It may be called by a goroutine of its own, for more than a pipe takes at once.
func (c *child) send(lines ...line) {
	c.t.Helper()
	var b []byte
	for _, l := range lines {
		data, err := json.Marshal(l)
		if err != nil {
			c.t.Error(err)
			return
		}
		b = append(append(b, data...), '\n')
	}
	if _, err := c.in.Write(b); err != nil {
		c.t.Errorf("write to the child: %v", err)
	}
}

// work is an item's line.
func work(id, body string) line {
	return line{Type: "work", ID: id, Attempt: 1, Queue: "q", Deadline: 1795000000000, Body: &body}
}

// read gives the next line that is no log line, and the zero line at the end of the output.
func (c *child) read() line {
	c.t.Helper()
	for {
		if err := c.out.SetReadDeadline(time.Now().Add(patience)); err != nil {
			c.t.Fatal(err)
		}
		data, err := c.lines.ReadBytes('\n')
		if err != nil && len(data) == 0 {
			if !strings.Contains(err.Error(), "EOF") {
				c.t.Fatalf("no line came: %v", err)
			}
			return line{}
		}
		var l line
		if err := json.Unmarshal(data, &l); err != nil {
			c.t.Fatalf("the child wrote what is no line of the protocol: %q: %v", data, err)
		}
		if l.Type != "log" {
			return l
		}
		c.logs = append(c.logs, l)
	}
}

// want reads the next line and compares it with what is expected: "done 1 {...}", "progress 1 {...}", "ready",
// "failed 1 message".
func (c *child) want(expected string) line {
	c.t.Helper()
	l := c.read()
	if got := l.brief(); got != expected {
		c.t.Fatalf("the child answered\n  %s\nexpected was\n  %s", got, expected)
	}
	return l
}

func (l line) brief() string {
	switch l.Type {
	case "done", "progress":
		return l.Type + " " + l.ID + " " + l.text()
	case "failed":
		s := "failed " + l.ID + " " + l.Message
		if l.Retry != nil && !*l.Retry {
			s += " (rejected)"
		}
		return s
	case "":
		return "end"
	default:
		return strings.TrimSpace(l.Type + " " + l.ID)
	}
}

// logged says whether a log line that was read contains the text.
func (c *child) logged(text string) bool {
	for _, l := range c.logs {
		if strings.Contains(l.Message, text) {
			return true
		}
	}
	return false
}

// exit waits for the end of the child and gives its exit code; all that it still writes has been read then.
func (c *child) exit() int {
	c.t.Helper()
	for l := c.read(); l.Type != ""; l = c.read() {
		c.t.Fatalf("the child wrote %s at its end", l.brief())
	}
	timer := time.AfterFunc(patience, func() { _ = c.cmd.Process.Kill() })
	defer timer.Stop()
	err := c.cmd.Wait()
	c.exited = true
	if c.cmd.ProcessState == nil {
		c.t.Fatal(err)
	}
	return c.cmd.ProcessState.ExitCode()
}

// stop sends the stop line and expects a clean end.
func (c *child) stop() {
	c.t.Helper()
	c.send(line{Type: "stop"})
	if code := c.exit(); code != 0 {
		c.t.Fatalf("the child ended with exit code %d after the stop line", code)
	}
}
