//go:build linux && (amd64 || arm64)

package powercut

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// runTime is how long a recording may take.
const runTime = 60 * time.Second

// The database of the recorded broker, below the root: its directories do not exist before.
const (
	dataDir  = "var/data"
	database = dataDir + "/main.db"
)

// session is one recorded run. It lives in the tracer process.
type session struct {
	*clients
	t      *tracer
	rec    *recorder
	root   string
	binary string
	config string
	phases []phase

	program begun
	stderr  *os.File
}

// recordBroker runs a broker through everything that changes its files, and returns the recording. A brief one ends with
// the kill: a broker that is wrong on purpose may have lost by that what the rest would wait for.
func recordBroker(binary, work string, seed uint64, brief bool) (*recording, error) {
	s, err := newSession(binary, work, seed, "q", "p.q")
	if err != nil {
		return nil, err
	}
	s.Path = database
	s.config, err = writeConfig(work, filepath.Join(s.root, dataDir), s.Queues)
	if err != nil {
		return nil, err
	}
	if err := s.live(brief); err != nil {
		return nil, s.abandon(err)
	}
	return s.recording()
}

func newSession(binary, work string, seed uint64, queues ...string) (*session, error) {
	work, err := filepath.EvalSymlinks(work)
	if err != nil {
		return nil, err
	}
	root := filepath.Join(work, "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		return nil, err
	}
	rec, err := newRecorder(root)
	if err != nil {
		return nil, err
	}
	stderr, err := os.Create(filepath.Join(work, "stderr"))
	if err != nil {
		return nil, err
	}
	now := func() int { return int(rec.count.Load()) }
	return &session{
		clients: newClients(seed, queues, now, time.Now().Add(runTime)),
		t:       newTracer(rec), rec: rec, root: root, binary: binary, stderr: stderr,
	}, nil
}

func writeConfig(work, data string, queues []string) (string, error) {
	type queue = map[string]any
	var qs []queue
	for _, q := range queues {
		qs = append(qs, queue{"address": q, "persistor_address": "main", "collection": q})
	}
	b, err := json.Marshal(map[string]any{"listen": "127.0.0.1:0", "data_dir": data, "drain_timeout": 200, "queues": qs})
	if err != nil {
		return "", err
	}
	path := filepath.Join(work, "stint.json")
	return path, os.WriteFile(path, b, 0o600)
}

// step is a part of a run.
type step struct {
	name string
	do   func() error
}

func (s *session) upToTheKill() []step {
	return []step{
		{"the first start", func() error { return s.serve("pcut.a.>", "pcut.f.>", "pcut.r.>", "proc.>") }},
		{"items one at a time", s.singles},
		{"items in bursts", s.bursts},
		{"items sent again", func() error { return s.repeat(12) }},
		{"registrations", s.registrations},
		{"work", s.workPhase},
		{"a registration ends", func() error { return s.unregister(1) }},
		{"senders away", s.sendersAway},
		{"kill -9", s.killed},
	}
}

func (s *session) afterTheKill() []step {
	return []step{
		{"the second start", func() error { return s.serve("pcut.>", "proc.>") }},
		{"work after the restart", s.afterRestart},
		{"a stop", s.stop},
	}
}

// live takes the broker through its steps.
func (s *session) live(brief bool) error {
	steps := s.upToTheKill()
	if !brief {
		steps = append(steps, s.afterTheKill()...)
	}
	for _, step := range steps {
		s.phases = append(s.phases, phase{step.name, s.now(), strings.HasSuffix(step.name, " start")})
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// serve starts the broker and connects to it.
func (s *session) serve(subjects ...string) error {
	url, err := s.start(os.Environ(), s.binary, "serve", "--config", s.config)
	if err != nil {
		return err
	}
	return s.connect(url, subjects...)
}

// start runs the program under the tracer and returns the URL of its ready line.
func (s *session) start(env []string, args ...string) (string, error) {
	out, w, err := os.Pipe()
	if err != nil {
		return "", err
	}
	s.program = s.t.run(start{path: args[0], args: args, env: env, stdout: w, stderr: s.stderr})
	w.Close()
	if s.program.err != nil {
		return "", s.program.err
	}
	if err := out.SetReadDeadline(s.deadline); err != nil {
		return "", err
	}
	return readyURL(out)
}

// readyURL waits for the ready line, and lets nothing else that the program prints hold it up.
func readyURL(out io.Reader) (url string, err error) {
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("wait for the ready line: %w", err)
	}
	if _, err := fmt.Sscanf(line, "stint ready: %s", &url); err != nil {
		return "", fmt.Errorf("the ready line is %q: %w", line, err)
	}
	go io.Copy(io.Discard, lines) //nolint:errcheck // it ends with the program
	return url, nil
}

func (s *session) singles() error {
	for range 40 {
		if err := s.burst(1, false, s.anyFate); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) bursts() error {
	for range 4 {
		if err := s.burst(20, false, s.anyFate); err != nil {
			return err
		}
	}
	return nil
}

// anyFate is mostly fateDone.
func (s *session) anyFate() fate {
	if f := fate(s.rng.IntN(2 * int(fates))); f < fates {
		return f
	}
	return fateDone
}

func doneFate() fate { return fateDone }

func (s *session) registrations() error {
	for _, r := range []struct {
		queue     int
		processor string
		capacity  int
	}{{0, "proc.a", 300}, {0, "proc.b", 2}, {1, "proc.c", 300}, {1, "proc.d", 1}} {
		if err := s.register(r.queue, r.processor, r.capacity); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) workPhase() error {
	for range 3 {
		if err := s.burst(20, false, s.anyFate); err != nil {
			return err
		}
	}
	return errors.Join(s.allTried(), s.allFinal())
}

// sendersAway has items answered whose senders do not listen. The item at the end, whose final comes after theirs are
// on record, is the sign that they are.
func (s *session) sendersAway() error {
	if err := s.burst(16, true, doneFate); err != nil {
		return err
	}
	if err := s.allTried(); err != nil {
		return err
	}
	if err := s.burst(6, false, s.anyFate); err != nil {
		return err
	}
	return errors.Join(s.allTried(), s.allFinal())
}

func (s *session) killed() error {
	s.again = true
	if err := s.t.end(s.program.pid); err != nil {
		return err
	}
	status, err := s.ended()
	if err == nil && status.Signal() != unix.SIGKILL {
		err = fmt.Errorf("the broker ended with status %#x instead of being killed", status)
	}
	s.nc.Close()
	return err
}

func (s *session) ended() (unix.WaitStatus, error) {
	timeout := time.NewTimer(time.Until(s.deadline))
	defer timeout.Stop()
	select {
	case e := <-s.program.ended:
		return e.status, e.err
	case <-timeout.C:
		return 0, errors.New("time is up while waiting for the program to end")
	}
}

func (s *session) afterRestart() error {
	if err := s.answerHeld(); err != nil {
		return err
	}
	if err := s.allFinal(); err != nil {
		return err
	}
	for range 3 {
		if err := s.burst(10, false, s.anyFate); err != nil {
			return err
		}
	}
	return s.allFinal()
}

func (s *session) stop() error {
	if err := unix.Kill(s.program.pid, unix.SIGTERM); err != nil {
		return err
	}
	status, err := s.ended()
	if err == nil && status != 0 {
		err = fmt.Errorf("the program ended with status %#x", status)
	}
	return err
}

// role runs another role of the test binary under the tracer, to its end.
func (s *session) role(args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	env := append(os.Environ(), roleVariable+"="+strings.Join(args, " "))
	if _, err := s.start(env, self); err != nil {
		return s.abandon(err)
	}
	status, err := s.ended()
	if err == nil && status != 0 {
		err = fmt.Errorf("it ended with status %#x", status)
	}
	if err != nil {
		return errors.Join(err, s.log())
	}
	return nil
}

// abandon ends a program with which a run cannot go on, and returns all that is known of why.
func (s *session) abandon(cause error) error {
	if s.program.pid == 0 {
		return cause
	}
	_ = unix.Kill(s.program.pid, unix.SIGKILL) // it may have ended by itself
	s.deadline = time.Now().Add(runTime / 10)
	_, err := s.ended()
	return errors.Join(cause, err, s.log())
}

// log is what the program said, as an error.
func (s *session) log() error {
	b, err := os.ReadFile(s.stderr.Name())
	if err != nil {
		return err
	}
	return fmt.Errorf("the program said:\n%s", bytes.TrimSpace(b[max(0, len(b)-8000):]))
}

func (s *session) recording() (*recording, error) {
	r := &recording{
		Ops: s.rec.ops, Nodes: s.rec.nodes(), Told: s.rec.told, Phases: s.phases, Facts: s.facts, Stops: s.rec.stops,
	}
	if err := r.check(s.root); err != nil {
		return nil, fmt.Errorf("the recording is not what happened: %w", err)
	}
	for subject := range s.seen {
		if _, told := r.at(subject); !told {
			return nil, fmt.Errorf("the recording is not what happened: the notice at %s was received but never left", subject)
		}
	}
	return r, nil
}

// check replays the log with nothing lost and compares it with the files.
func (r *recording) check(root string) error {
	d := newDisk(r)
	d.advance(len(r.Ops))
	img := d.image(everything)
	err := filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		name := strings.TrimPrefix(path, root+"/")
		if e.IsDir() {
			if !img.dirs[name] {
				return fmt.Errorf("the directory %s is not in the log", name)
			}
			return nil
		}
		c := img.files[name]
		if c == nil {
			return fmt.Errorf("the file %s is not in the log", name)
		}
		delete(img.files, name)
		return c.compare(path)
	})
	if err != nil {
		return err
	}
	for name := range img.files {
		err = errors.Join(err, fmt.Errorf("the file %s is in the log, but not there", name))
	}
	return err
}
