package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync/atomic"
	"time"
)

const (
	commandLimit = time.Minute     // for every command but fill and measure, which watch themselves
	exitLimit    = 5 * time.Second // for the pipes of a killed process
	firstWords   = 4 << 10         // bytes of standard error that are kept
)

// process is a child of the runner.
type process struct {
	name   string
	cmd    *exec.Cmd
	in     io.Closer
	orders *json.Encoder
	events chan event // closed when the process has ended
	stderr *words
	ended  error // why; after events is closed
}

// start runs the hidden command of a role. The process is killed when ctx ends.
func start(ctx context.Context, exe, role string, s spec) (*process, error) {
	name := role
	if role == RoleProcessor {
		name = fmt.Sprintf("%s %d", role, s.Index+1)
	}
	cmd := exec.CommandContext(ctx, exe, "bench", role)
	cmd.Args[0] = "stint" // by which the test binary knows what to be
	cmd.SysProcAttr = childAttr()
	cmd.WaitDelay = exitLimit
	p := &process{name: name, cmd: cmd, events: make(chan event, 16), stderr: newWords()}
	cmd.Stderr = p.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the %s: %w", name, err)
	}
	p.in, p.orders = in, json.NewEncoder(in)
	go p.read(ctx, out)
	return p, p.order(s)
}

// read passes on what the process tells, until it ends.
func (p *process) read(ctx context.Context, out io.Reader) {
	defer close(p.events)
	lines := json.NewDecoder(out)
	for {
		var e event
		if err := lines.Decode(&e); err != nil {
			break
		}
		select {
		case p.events <- e:
		case <-ctx.Done():
		}
	}
	p.ended = p.cmd.Wait()
}

// order sends a command, or the spec.
func (p *process) order(what any) error {
	if err := p.orders.Encode(what); err != nil {
		return fmt.Errorf("the %s does not listen: %w%s", p.name, err, p.stderr.quote())
	}
	return nil
}

// expect waits for an event. Progress goes to progress, which may be nil.
func (p *process) expect(ctx context.Context, what string, progress func(event)) (event, error) {
	for {
		select {
		case e, ok := <-p.events:
			switch {
			case !ok && ctx.Err() != nil:
				return event{}, context.Cause(ctx)
			case !ok:
				return event{}, p.early()
			case e.Event == what:
				return e, nil
			case e.Event == isFailed:
				return event{}, fmt.Errorf("%s%s", e.Error, p.stderr.quote())
			case e.Event == isProgress && progress != nil:
				progress(e)
			}
		case <-ctx.Done():
			return event{}, context.Cause(ctx)
		}
	}
}

// early is the error of a process that has ended by itself.
func (p *process) early() error {
	if p.ended == nil {
		return fmt.Errorf("the %s has ended too early%s", p.name, p.stderr.quote())
	}
	return fmt.Errorf("the %s has ended too early: %w%s", p.name, p.ended, p.stderr.quote())
}

// obey sends a command and waits until it is done.
func (p *process) obey(ctx context.Context, command string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, commandLimit, fmt.Errorf("the %s does not answer to %q", p.name, command))
	defer cancel()
	if err := p.order(command); err != nil {
		return err
	}
	_, err := p.expect(ctx, isDone, nil)
	return err
}

// kill ends the process and waits until it is gone. The context it was started with must have ended.
func (p *process) kill() {
	_ = p.in.Close()     // it may be gone already
	for range p.events { // until it is closed
	}
}

// words keep the beginning of what a process writes to standard error, where the cause mostly is. One goroutine writes,
// another reads.
type words struct {
	text atomic.Pointer[string]
}

func newWords() *words {
	w := &words{}
	w.text.Store(new(string))
	return w
}

func (w *words) Write(b []byte) (int, error) {
	text := *w.text.Load()
	text += string(b[:min(len(b), firstWords-len(text))])
	w.text.Store(&text)
	return len(b), nil
}

// quote is for the end of an error.
func (w *words) quote() string {
	text := strings.TrimSpace(*w.text.Load())
	if text == "" {
		return ""
	}
	return "; it wrote: " + text
}
