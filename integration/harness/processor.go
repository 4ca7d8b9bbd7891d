package harness

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// processorEnv carries the Spec to a process that is to be a processor.
const processorEnv = "STINT_INTEGRATION_PROCESSOR"

// Spec says what a processor process is.
type Spec struct {
	URL      string
	Queue    string
	Subject  string // where it takes work; also its name
	Capacity int    // 0: not named in the registration
	// Silent: it is subscribed but does not register, and relies on a registration that is stored.
	Silent bool
}

// Order is the body of an item for a processor process. Fields that are not here are ignored.
type Order struct {
	ID   string `json:"id"`
	Work int    `json:"work"` // milliseconds until it is answered
	// Do is what else happens; empty: it is answered with an Answer.
	Do string `json:"do,omitempty"`
	// Accepted is where the accept notice goes, in the two spellings of the key.
	Accepted string `json:"accepted_reply,omitempty"`
	Dashed   string `json:"accepted-reply,omitempty"`
	Pad      string `json:"pad,omitempty"`
}

// What an Order may ask for. Those that end in First hold for the first delivery only.
const (
	DoHold       = "hold" // never answer
	DoHoldFirst  = "hold-first"
	DoCrash      = "crash" // kill -9 of oneself
	DoCrashFirst = "crash-first"
	DoFail       = "fail" // report a failure
)

// Answer is the reply of a processor process.
type Answer struct {
	ID      string `json:"id"`
	By      string `json:"by"`
	Attempt uint32 `json:"attempt"`
	Sum     uint32 `json:"sum"` // of the body as it was delivered
}

// The kinds of an Event.
const (
	Registered = "registered" // the registration was confirmed
	Got        = "got"        // work has come in
	Answered   = "answered"   // the answer was given to NATS
	Left       = "left"       // unregistered, and about to end
)

// Event is what a processor process reports.
type Event struct {
	Kind    string `json:"kind"`
	By      string `json:"by"`
	ID      string `json:"id,omitempty"` // of the Order
	Attempt uint32 `json:"attempt,omitempty"`
	Sum     uint32 `json:"sum,omitempty"`
	At      int64  `json:"at"` // Unix nanoseconds
}

// When is the time of an event, which is comparable between processes of one machine.
func (e Event) When() time.Time { return time.Unix(0, e.At) }

// Processor is a processor process.
type Processor struct {
	Spec Spec

	t      testing.TB
	cmd    *exec.Cmd
	stdin  io.Closer
	exited chan struct{}
}

// StartProcessor runs a processor process. Its events go to a channel, which must be read: a processor whose pipe is full
// waits.
func StartProcessor(t testing.TB, spec Spec, events chan<- Event) *Processor {
	t.Helper()
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), processorEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = childAttr()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &Processor{Spec: spec, t: t, cmd: cmd, stdin: in, exited: make(chan struct{})}
	stop := make(chan struct{})
	go p.follow(out, events, stop)
	t.Cleanup(func() {
		close(stop)
		p.Kill()
	})
	return p
}

// follow passes the process's events on until it ends. When the test is over nobody reads any more.
func (p *Processor) follow(out io.Reader, events chan<- Event, stop <-chan struct{}) {
	defer close(p.exited)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var e Event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue // the last line of a process that was killed while it wrote
		}
		select {
		case events <- e:
		case <-stop:
		}
	}
	p.cmd.Wait() //nolint:errcheck // it may have been killed, which is what it is for
}

// Kill is kill -9, and waits until the process is gone and everything it reported has been passed on.
func (p *Processor) Kill() {
	p.cmd.Process.Kill() //nolint:errcheck // it may have ended by itself
	<-p.exited
}

// Freeze stops the process as a suspended machine does: its connection stays, it says nothing.
func (p *Processor) Freeze() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		p.t.Fatal(err)
	}
}

// Thaw lets a frozen process go on.
func (p *Processor) Thaw() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		p.t.Fatal(err)
	}
}
