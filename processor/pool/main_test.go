package pool

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// roleEnv makes a process of this test binary a child of a pool, or something else that a test needs.
const roleEnv = "POOL_TEST_ROLE"

func TestMain(m *testing.M) {
	Init()
	switch role := os.Getenv(roleEnv); role {
	case "":
		goleak.VerifyTestMain(m)
	case "exec":
		execMain()
	case "fast":
		fastMain()
	default:
		childMain(role)
	}
}

// testChild is a child written as the documentation tells, that does what each item's body says.
type testChild struct {
	in   *bufio.Reader
	out  *os.File
	held []byte // memory that is eaten
}

type toChild struct {
	Type     string              `json:"type"`
	ID       string              `json:"id"`
	Attempt  int                 `json:"attempt"`
	Child    int                 `json:"child"`
	First    bool                `json:"first"`
	Deadline int64               `json:"deadline"`
	Body     string              `json:"body"`
	Body64   []byte              `json:"body64"`
	Headers  map[string][]string `json:"headers"`
}

func fileOf(env string) *os.File {
	fd, err := strconv.Atoi(os.Getenv(env))
	if err != nil {
		panic(err)
	}
	return os.NewFile(uintptr(fd), env)
}

func childMain(role string) {
	c := &testChild{in: bufio.NewReaderSize(fileOf(envIn), 1<<16), out: fileOf(envOut)}
	switch role {
	case "dead":
		fmt.Fprintln(os.Stderr, "cannot find my configuration")
		os.Exit(7)
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
	case "version": // a program that changes: the file says how it behaves
		if text, _ := os.ReadFile(os.Getenv("VERSION_FILE")); string(text) == "broken" {
			os.Exit(9)
		}
	}
	for {
		line, err := c.in.ReadBytes('\n')
		if err != nil {
			if role == "stubborn" {
				select {}
			}
			os.Exit(0)
		}
		var m toChild
		if err := json.Unmarshal(line, &m); err != nil {
			panic(err)
		}
		c.handle(role, &m)
	}
}

func (c *testChild) say(v map[string]any) {
	line, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	if _, err := c.out.Write(append(line, '\n')); err != nil {
		os.Exit(0)
	}
}

func (c *testChild) handle(role string, m *toChild) {
	switch m.Type {
	case "start":
		if role != "quiet" {
			c.say(map[string]any{"type": "ready"})
		}
	case "stats":
		c.say(map[string]any{"type": "stats", "mood": "fine"})
	case "stop":
		if file := os.Getenv("STOP_FILE"); file != "" {
			os.WriteFile(file, []byte("stopped"), 0o600) //nolint:errcheck // the test looks
		}
	case "work":
		c.work(m)
	}
}

// work does what the body says: a word, and what belongs to it.
func (c *testChild) work(m *toChild) {
	word, rest, _ := strings.Cut(m.Body, " ")
	if m.Body64 != nil {
		word = "raw"
	}
	done := map[string]any{"type": "done", "id": m.ID, "body": rest}
	switch word {
	case "echo":
		c.say(done)
	case "raw":
		c.say(map[string]any{"type": "done", "body64": m.Body64})
	case "who":
		done["body"] = fmt.Sprint(os.Getpid())
		c.say(done)
	case "env":
		dir, _ := os.Getwd()
		nice, _ := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
		done["body"] = fmt.Sprintf("%s %s %d %d %s", os.Getenv(rest), dir, 20-nice, os.Getuid(), os.Getenv(envQueue))
		c.say(done)
	case "headers":
		done["headers"] = map[string][]string{"X-Seen": m.Headers["X-Test"]}
		c.say(done)
	case "version":
		text, _ := os.ReadFile(os.Getenv("VERSION_FILE"))
		done["body"] = string(text)
		c.say(done)
	case "once": // hurts at the first attempt only
		if m.Attempt > 1 {
			c.say(done)
			return
		}
		m.Body = rest
		c.work(m)
	default:
		c.misbehave(word, rest, m, done)
	}
}

func (c *testChild) misbehave(word, rest string, m *toChild, done map[string]any) {
	switch word {
	case "fail":
		c.say(map[string]any{"type": "failed", "id": m.ID, "message": rest, "code": "E1"})
	case "soon":
		c.say(map[string]any{"type": "failed", "id": m.ID, "message": rest, "delay": 1})
	case "reject":
		c.say(map[string]any{"type": "failed", "id": m.ID, "message": rest, "retry": false})
	case "crash":
		fmt.Fprintln(os.Stderr, "it hurts")
		os.Exit(3)
	case "kill":
		syscall.Kill(os.Getpid(), syscall.SIGKILL) //nolint:errcheck // it is us
		select {}
	case "garbage":
		fmt.Fprintln(c.out, "Segmentation fault")
	case "half":
		fmt.Fprint(c.out, `{"type":"done","id":"`+m.ID)
		os.Exit(0)
	case "long":
		io.WriteString(c.out, `{"type":"done","body":"`+strings.Repeat("x", 1<<20)) //nolint:errcheck // we are killed
	case "twice":
		c.say(done)
		c.say(done)
	case "wrongid":
		c.say(map[string]any{"type": "done", "id": "zzz"})
	case "hang":
		select {}
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		select {}
	case "closeout":
		c.out.Close()
		select {}
	case "closein":
		syscall.Close(3) //nolint:errcheck // that is the point
		c.say(done)
		select {}
	case "grandchild", "daemon":
		cmd := exec.Command("/bin/sleep", os.Getenv("NAP"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: word == "daemon"}
		if word == "grandchild" {
			cmd.Env = []string{"A=b"} // it is known by its group only
		}
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		done["body"] = fmt.Sprint(cmd.Process.Pid)
		c.say(done)
	case "eat":
		mb, _ := strconv.Atoi(rest)
		c.held = eat(c.held, mb)
		c.say(done)
	case "eathang":
		c.work(&toChild{ID: m.ID, Body: "eat " + rest, Attempt: m.Attempt})
		select {}
	case "sleep":
		d, _ := time.ParseDuration(rest)
		time.Sleep(d)
		c.say(done)
	case "progress":
		c.say(map[string]any{"type": "progress", "id": m.ID, "body": "half"})
		c.say(done)
	case "extend": // longer than the time limit, with signs of life
		d, _ := time.ParseDuration(rest)
		for range 5 {
			time.Sleep(d)
			c.say(map[string]any{"type": "extend", "id": m.ID})
		}
		c.say(done)
	case "print":
		fmt.Println(rest)
		fmt.Fprintln(os.Stderr, "error:", rest)
		c.say(done)
	default:
		panic("unknown word " + word)
	}
}

// eat takes so many megabytes instead of those before, outside Go's heap, of which the race detector keeps a shadow.
func eat(before []byte, mb int) []byte {
	if before != nil {
		syscall.Munmap(before) //nolint:errcheck // it is ours
	}
	held, err := syscall.Mmap(-1, 0, mb<<20, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_POPULATE)
	if err != nil {
		panic(err)
	}
	return held
}

// execMain is a program for mode Exec.
func execMain() {
	body, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	execWord(string(body))
	os.Exit(0)
}

func execWord(body string) {
	word, rest, _ := strings.Cut(body, " ")
	switch word {
	case "once": // hurts at the first attempt only
		if os.Getenv(envAttempt) == "1" {
			execWord(rest)
			return
		}
		fmt.Print(rest)
	case "kill":
		syscall.Kill(os.Getpid(), syscall.SIGKILL) //nolint:errcheck // it is us
	case "closed":
		os.Stdout.Close()
		os.Stderr.Close()
		select {}
	case "long": // more than a pipe holds, from a program that ends soon
		fmt.Print(strings.Repeat("x", 200_000))
	case "linger": // a process of the same group holds the output
		cmd := exec.Command("/bin/sleep", os.Getenv("NAP"))
		cmd.Stdout = os.Stdout
		if err := cmd.Start(); err != nil {
			panic(err)
		}
	case "echo":
		fmt.Print(rest)
	case "env":
		fmt.Print(os.Getenv(rest))
	case "crash":
		fmt.Print("half a reply")
		fmt.Fprintln(os.Stderr, "it", rest)
		os.Exit(3)
	case "hang":
		select {}
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		select {}
	case "flood":
		for {
			if _, err := os.Stdout.Write(make([]byte, 1<<16)); err != nil {
				select {}
			}
		}
	case "grandchild":
		cmd := exec.Command("/bin/sleep", os.Getenv("NAP"))
		cmd.Stdout = os.Stdout
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		fmt.Print(cmd.Process.Pid)
	case "eathang":
		eat(nil, 400)
		select {}
	case "pid":
		fmt.Print(os.Getpid())
	}
}

// fastMain is a child that costs little: it writes when it has nothing more to read.
func fastMain() {
	in, out := bufio.NewReaderSize(fileOf(envIn), 1<<16), bufio.NewWriterSize(fileOf(envOut), 1<<16)
	for {
		if in.Buffered() == 0 && out.Flush() != nil {
			os.Exit(0)
		}
		line, err := in.ReadString('\n')
		if err != nil {
			os.Exit(0)
		}
		if _, rest, ok := strings.Cut(line, `"id":"`); ok {
			id, _, _ := strings.Cut(rest, `"`)
			out.WriteString(`{"type":"done","id":"` + id + `","body":"done"}` + "\n") //nolint:errcheck // by Flush
		}
	}
}
