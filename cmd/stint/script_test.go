package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rogpeppe/go-internal/testscript"

	"stint/wire"
)

// patience bounds every wait of a script.
const patience = 20 * time.Second

// TestScripts runs the program from outside. The scripts know these words beside testscript's own:
//
//	exits CODE COMMAND...      the command exits with this code
//	serve NAME [FLAG...]       starts a broker at a free port, waits until it is ready, sets READY and NATS_URL; its log
//	                           goes to NAME.log
//	work NAME [ARG...]         starts a pool, waits until it is ready and sets POOL; its log goes to NAME.log
//	signal NAME SIGNAL         sends TERM, INT, HUP or KILL
//	ended NAME CODE            waits for its exit
//	logged NAME TEXT           waits until its log has this text
//	outside FILE               starts a NATS server outside stint and sets NATS_URL
//	processor ADDRESS HOW...   registers a processor: echo, fail, stop, progress, talk or hold; USER and PASSWORD, if set,
//	                           are its user
//	holding                    waits until a processor that holds has an item
//	release                    lets it answer
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "config"))
			env.Setenv("GOTRACEBACK", "all")
			for _, file := range []string{"users.conf", "outside.conf"} { // the documented ones
				text, err := os.ReadFile(filepath.Join("testdata", file))
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(env.WorkDir, file), text, 0o600); err != nil {
					return err
				}
			}
			env.Values["stage"] = &stage{env: env, processes: map[string]*process{}, held: make(chan *nats.Msg, 16)}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "serve": onStage((*stage).serve), "work": onStage((*stage).work), "signal": onStage((*stage).signal), "ended": onStage((*stage).ended),
			"logged": onStage((*stage).logged), "outside": onStage((*stage).outside),
			"processor": onStage((*stage).processor), "holding": onStage((*stage).holding), "release": onStage((*stage).release),
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if neg || got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// stage is what a script has started.
type stage struct {
	env        *testscript.Env
	processes  map[string]*process
	processors int
	held       chan *nats.Msg // by processors that hold
	current    *nats.Msg
}

func onStage(f func(*stage, *testscript.TestScript, []string)) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg {
			ts.Fatalf("not with !")
		}
		f(ts.Value("stage").(*stage), ts, args)
	}
}

type process struct {
	cmd   *exec.Cmd
	log   *logFile
	ended chan error // one value
}

// logFile tells when something has been added.
type logFile struct {
	file  *os.File // not embedded: its ReadFrom would go past Write
	grown chan struct{}
}

func (l *logFile) Write(p []byte) (int, error) {
	n, err := l.file.Write(p)
	select {
	case l.grown <- struct{}{}:
	default:
	}
	return n, err
}

func (s *stage) serve(ts *testscript.TestScript, args []string) {
	if len(args) < 1 {
		ts.Fatalf("usage: serve NAME [FLAG...]")
	}
	name := args[0]
	all := append([]string{"serve"}, args[1:]...)
	if given := strings.Join(args, " "); !strings.Contains(given, "outside.json") && !strings.Contains(given, "--listen") {
		all = append(all, "--listen", "127.0.0.1:0")
	}
	line := s.run(ts, name, all)
	url := strings.TrimPrefix(line, "stint ready: ")
	if url == line {
		ts.Fatalf("not ready: %q\n%s", line, ts.ReadFile(name+".log"))
	}
	ts.Setenv("READY", line)
	url, _, _ = strings.Cut(url, " ")
	ts.Setenv("NATS_URL", url)
	_, port, _ := strings.Cut(strings.TrimPrefix(url, "nats://"), ":")
	ts.Setenv("PORT", port)
}

func (s *stage) work(ts *testscript.TestScript, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: work NAME ADDRESS [ARG...]")
	}
	line := s.run(ts, args[0], append([]string{"work"}, args[1:]...))
	if !strings.HasPrefix(line, "stint work ready: ") {
		ts.Fatalf("not ready: %q\n%s", line, ts.ReadFile(args[0]+".log"))
	}
	_, pool, _ := strings.Cut(line, "pool=")
	pool, _, _ = strings.Cut(pool, " ")
	ts.Setenv("READY", line)
	ts.Setenv("POOL", pool)
}

// run starts stint and waits for its first line.
func (s *stage) run(ts *testscript.TestScript, name string, all []string) string {
	log, err := os.OpenFile(ts.MkAbs(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	ts.Defer(func() { _ = log.Close() })
	p := &process{log: &logFile{file: log, grown: make(chan struct{}, 1)}, ended: make(chan error, 1)}
	p.cmd = exec.Command("stint", all...)
	p.cmd.Dir, p.cmd.Env, p.cmd.Stderr = ts.MkAbs("."), s.env.Vars, p.log
	for _, name := range []string{"SENDER_PASSWORD", "PROCESSOR_PASSWORD", "NATS_URL"} {
		p.cmd.Env = append(p.cmd.Env, name+"="+ts.Getenv(name))
	}
	out, err := p.cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(p.cmd.Start())
	s.processes[name] = p
	ts.Defer(func() { _ = p.cmd.Process.Kill() })
	lines := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(out).ReadString('\n')
		lines <- strings.TrimSpace(line)
		p.ended <- p.cmd.Wait()
	}()
	select {
	case line := <-lines:
		return line
	case <-time.After(patience):
		ts.Fatalf("no ready line")
		return ""
	}
}

func (s *stage) process(ts *testscript.TestScript, name string) *process {
	p := s.processes[name]
	if p == nil {
		ts.Fatalf("nothing was started as %s", name)
	}
	return p
}

func (s *stage) signal(ts *testscript.TestScript, args []string) {
	signals := map[string]os.Signal{"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL}
	if len(args) != 2 || signals[args[1]] == nil {
		ts.Fatalf("usage: signal NAME TERM|INT|HUP|KILL")
	}
	ts.Check(s.process(ts, args[0]).cmd.Process.Signal(signals[args[1]]))
}

func (s *stage) ended(ts *testscript.TestScript, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: ended NAME CODE")
	}
	p := s.process(ts, args[0])
	select {
	case err := <-p.ended:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		if got := fmt.Sprint(p.cmd.ProcessState.ExitCode()); got != args[1] {
			ts.Fatalf("exit code %s, want %s\n%s", got, args[1], ts.ReadFile(args[0]+".log"))
		}
	case <-time.After(patience):
		ts.Fatalf("%s does not end", args[0])
	}
}

func (s *stage) logged(ts *testscript.TestScript, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: logged NAME TEXT")
	}
	p := s.process(ts, args[0])
	for late := time.After(patience); ; {
		text, err := os.ReadFile(p.log.file.Name())
		ts.Check(err)
		if strings.Contains(string(text), args[1]) {
			return
		}
		select {
		case <-p.log.grown:
		case <-late:
			ts.Fatalf("the log does not have %q:\n%s", args[1], text)
		}
	}
}

// outside runs a NATS server from a server file, which finds its passwords in the environment of this process.
func (s *stage) outside(ts *testscript.TestScript, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: outside FILE")
	}
	for _, name := range []string{"BROKER_PASSWORD", "SENDER_PASSWORD", "PROCESSOR_PASSWORD"} {
		ts.Check(os.Setenv(name, ts.Getenv(name)))
	}
	o, err := server.ProcessConfigFile(ts.MkAbs(args[0]))
	ts.Check(err)
	o.NoSigs, o.Port = true, server.RANDOM_PORT
	srv, err := server.NewServer(o)
	ts.Check(err)
	srv.Start()
	if !srv.ReadyForConnections(patience) {
		ts.Fatalf("the NATS server is not ready")
	}
	ts.Defer(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	ts.Setenv("NATS_URL", srv.ClientURL())
}

func (s *stage) processor(ts *testscript.TestScript, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: processor ADDRESS HOW")
	}
	handle := map[string]func(*stage, *nats.Conn, *nats.Msg){
		"echo": echo, "fail": fail, "stop": term, "progress": progress, "talk": talk, "hold": hold,
	}[args[1]]
	if handle == nil {
		ts.Fatalf("no processor of the kind %s", args[1])
	}
	options := []nats.Option{nats.CustomInboxPrefix("_INBOX_processor")}
	if user := ts.Getenv("USER"); user != "" {
		options = append(options, nats.UserInfo(user, ts.Getenv("PASSWORD")))
	}
	nc, err := nats.Connect(ts.Getenv("NATS_URL"), options...)
	ts.Check(err)
	ts.Defer(nc.Close)
	s.processors++
	subject := fmt.Sprintf("stint.processor.%s%d", args[1], s.processors) // a new one each time: it is another processor
	_, err = nc.Subscribe(subject, func(m *nats.Msg) { handle(s, nc, m) })
	ts.Check(err)
	m, err := nc.Request(wire.RegisterSubject(args[0]), wire.RegisterBody(wire.Registration{Processor: subject, Capacity: 1}), patience)
	ts.Check(err)
	if status, _ := wire.ParseStatus(m.Data); status.Status != "ok" {
		ts.Fatalf("registering: %s", m.Data)
	}
}

func echo(_ *stage, _ *nats.Conn, m *nats.Msg) {
	answer := nats.NewMsg("")
	answer.Data = append([]byte("echo: "), m.Data...)
	_ = m.RespondMsg(answer)
}

func fail(_ *stage, _ *nats.Conn, m *nats.Msg) {
	answer := nats.NewMsg("")
	answer.Header.Set(wire.HeaderErrorCode, "500")
	answer.Header.Set(wire.HeaderError, "it does not work")
	_ = m.RespondMsg(answer)
}

func term(_ *stage, _ *nats.Conn, m *nats.Msg) { _ = m.Respond([]byte("+TERM it never will work")) }

func progress(_ *stage, _ *nats.Conn, m *nats.Msg) {
	for _, part := range []string{"a third", "two thirds"} {
		answer := nats.NewMsg("")
		answer.Header.Set(wire.HeaderProgress, "true")
		answer.Data = []byte(part)
		_ = m.RespondMsg(answer)
	}
	_ = m.Respond([]byte("all of it\xff"))
}

func talk(_ *stage, nc *nats.Conn, m *nats.Msg) {
	_ = nc.PublishRequest(m.Reply, nc.NewInbox(), []byte("which one?"))
}

func hold(s *stage, _ *nats.Conn, m *nats.Msg) { s.held <- m }

func (s *stage) holding(ts *testscript.TestScript, _ []string) {
	select {
	case s.current = <-s.held:
	case <-time.After(patience):
		ts.Fatalf("no item came")
	}
}

func (s *stage) release(ts *testscript.TestScript, _ []string) {
	if s.current == nil {
		ts.Fatalf("nothing is held")
	}
	echo(s, nil, s.current)
}
