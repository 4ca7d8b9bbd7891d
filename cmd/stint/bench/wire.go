package bench

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"stint/wire"
)

// spec is what a process of a round is told: the first line of its standard input. Fields that a role has no use for are
// set all the same.
type spec struct {
	Kind       Kind          `json:"kind"`
	Mode       Mode          `json:"mode"`
	Dir        string        `json:"dir"` // for the server alone
	URL        string        `json:"url"` // of the server, for the others
	Queues     []string      `json:"queues"`
	Items      int64         `json:"items"`    // 0: by Duration
	Duration   time.Duration `json:"duration"` // 0: by Items
	Size       int           `json:"size"`
	Window     int           `json:"window"`
	Processors int           `json:"processors"`
	Capacity   int           `json:"capacity"`
	Index      int           `json:"index"` // of a processor, from 0
	Batch      int           `json:"batch"` // items in one message; 0: messages of their own
	Backlog    int64         `json:"backlog"`
	DecodeJSON bool          `json:"decode_json"` // accept notices, as any JSON
	SlowSync   time.Duration `json:"slow_sync"`
	CPUProfile string        `json:"cpu_profile"`
	MemProfile string        `json:"mem_profile"`
	Live       bool          `json:"live"` // the sender tells how far it is
}

// The commands of the runner: further lines.
const (
	doFill    = "fill"    // sender: put the backlog there
	doMeasure = "measure" // sender: do the work
	doWork    = "work"    // processor: register
	doBegin   = "begin"   // server: start the profiles
	doFinish  = "finish"  // server: write the profiles
)

// event is what a process answers: a line of its standard output.
type event struct {
	Event     string  `json:"event"`
	URL       string  `json:"url,omitempty"`    // with ready, of the server
	Error     string  `json:"error,omitempty"`  // with failed
	Result    *result `json:"result,omitempty"` // with done, of measuring
	Accepted  int64   `json:"accepted,omitempty"`
	Completed int64   `json:"completed,omitempty"`
}

// The events.
const (
	isReady    = "ready"    // the process waits for a command
	isDone     = "done"     // it has done the command
	isProgress = "progress" // the sender is on its way
	isFailed   = "failed"   // it ends
)

// result is what the sender has seen.
type result struct {
	Sent      int64         `json:"sent"`
	Accepted  int64         `json:"accepted"`
	Completed int64         `json:"completed"`
	Accepting time.Duration `json:"accepting"`  // the time in which that many were accepted
	Finishing time.Duration `json:"completing"` // the time in which Finished were completed
	Finished  int64         `json:"finished"`
	Accept    latency       `json:"accept"`
	Roundtrip latency       `json:"roundtrip"`
}

// lines are a process's ends of the pipes.
type lines struct {
	in  *json.Decoder
	out *json.Encoder
}

func newLines(in io.Reader, out io.Writer) *lines {
	return &lines{json.NewDecoder(in), json.NewEncoder(out)}
}

func (l *lines) spec() (spec, error) {
	var s spec
	if err := l.in.Decode(&s); err != nil {
		return spec{}, fmt.Errorf("reading what to do: %w; this command is for stint bench itself", err)
	}
	return s, nil
}

// command waits for the next one. It is io.EOF when the runner is gone.
func (l *lines) command() (string, error) {
	var command string
	err := l.in.Decode(&command)
	return command, err
}

func (l *lines) tell(e event) error { return l.out.Encode(e) }

// headerReply is where a JetStream item's answer goes: its reply subject is taken by the acknowledgement.
const headerReply = "Bench-Reply"

// processorSubject is where a processor gets work from Stint and from the relay.
func processorSubject(index int) string { return "processor." + strconv.Itoa(index) }

// streamName is the stream that stands for a queue.
func streamName(address string) string { return address }

const consumerName = "processors"

// stampSize is the length of what an item begins with and what comes back: its number and the time it was sent at, on the
// sender's clock.
const stampSize = 16

func putStamp(body []byte, number int64, at time.Duration) {
	binary.BigEndian.PutUint64(body, uint64(number))
	binary.BigEndian.PutUint64(body[8:], uint64(at))
}

func readStamp(body []byte) (number int64, at time.Duration, ok bool) {
	if len(body) != stampSize {
		return 0, 0, false
	}
	return int64(binary.BigEndian.Uint64(body)), time.Duration(binary.BigEndian.Uint64(body[8:])), true
}

// checkAccepted reads an accept notice as stint send does, or with a decoder of any JSON.
func checkAccepted(body []byte, decodeJSON bool) error {
	var status wire.Status
	var ok bool
	if decodeJSON {
		ok = json.Unmarshal(body, &status) == nil
	} else {
		status, ok = wire.ParseStatus(body)
	}
	switch {
	case !ok:
		return fmt.Errorf("the accept notice is not one: %.80q", body)
	case status.Status != "accepted":
		return fmt.Errorf("an item was refused: %s (%s)", status.Message, status.Code)
	}
	return nil
}
