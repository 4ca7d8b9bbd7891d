package harness

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

// Sum is the checksum of bodies in answers and histories.
func Sum(body []byte) uint32 { return crc32.ChecksumIEEE(body) }

// worker is a processor process, from inside.
type worker struct {
	Spec
	nc     *nats.Conn
	events chan report
}

// report is an event on its way out, and how its reporter learns that it is.
type report struct {
	Event
	written chan struct{}
}

// processorMain is the main function of a processor process. It ends when its standard input is closed.
func processorMain(text string, in io.Reader, out io.Writer) int {
	w := &worker{events: make(chan report)}
	if err := json.Unmarshal([]byte(text), &w.Spec); err != nil {
		fmt.Fprintln(os.Stderr, "processor:", err)
		return 1
	}
	go w.write(out)
	if err := w.run(); err != nil {
		fmt.Fprintf(os.Stderr, "processor %s: %v\n", w.Subject, err)
		return 1
	}
	io.Copy(io.Discard, in) //nolint:errcheck // however it ends, so does this
	return 0
}

// write is the only writer of the output, so that lines stay whole.
func (w *worker) write(out io.Writer) {
	enc := json.NewEncoder(out)
	for r := range w.events {
		if enc.Encode(r.Event) != nil {
			os.Exit(1) // the test is gone
		}
		close(r.written)
	}
}

// note reports an event. When it returns the event is out of this process, which may then be killed.
func (w *worker) note(kind string, o Order, attempt, sum uint32) {
	r := report{
		Event{Kind: kind, By: w.Subject, ID: o.ID, Attempt: attempt, Sum: sum, At: time.Now().UnixNano()}, make(chan struct{}),
	}
	w.events <- r
	<-r.written
}

func (w *worker) run() error {
	var err error
	if w.nc, err = nats.Connect(w.URL, append(Stubborn(), nats.Name(w.Subject))...); err != nil {
		return err
	}
	if _, err = w.nc.Subscribe(w.Subject, w.take); err != nil {
		return err
	}
	if w.Silent {
		return w.nc.FlushTimeout(readyLimit)
	}
	return w.register()
}

// register asks until it is heard: the broker may be down at this moment.
func (w *worker) register() error {
	body, err := json.Marshal(struct {
		Processor string `json:"processor"`
		Capacity  int    `json:"capacity,omitempty"`
	}{w.Subject, w.Capacity})
	if err != nil {
		return err
	}
	for end := time.Now().Add(2 * readyLimit); time.Now().Before(end); {
		m, err := w.nc.Request(wire.RegisterSubject(w.Queue), body, 500*time.Millisecond)
		if err != nil {
			<-time.After(10 * time.Millisecond) // the server may be there and the broker not yet
			continue
		}
		s, _ := wire.ParseStatus(m.Data)
		switch {
		case s.Status == "ok":
			w.note(Registered, Order{}, 0, 0)
			return nil
		case s.Code != string(wire.CodeShuttingDown):
			return fmt.Errorf("the registration was answered %s", m.Data)
		}
	}
	return fmt.Errorf("no answer to the registration")
}

// take deals with one piece of work, beside others.
func (w *worker) take(m *nats.Msg) {
	var o Order
	if err := json.Unmarshal(m.Data, &o); err != nil {
		fmt.Fprintf(os.Stderr, "processor %s: work that is no order: %v\n", w.Subject, err)
	}
	_, attempt, _ := wire.ParseLease(w.Queue, m.Reply)
	sum := Sum(m.Data)
	w.note(Got, o, attempt, sum)
	time.AfterFunc(time.Duration(o.Work)*time.Millisecond, func() { w.do(m, o, attempt, sum) })
}

func (w *worker) do(m *nats.Msg, o Order, attempt, sum uint32) {
	do, first := strings.CutSuffix(o.Do, "-first")
	if first && attempt > 1 {
		do = ""
	}
	answer := nats.NewMsg(m.Reply)
	switch do {
	case DoHold:
		return
	case DoCrash:
		self, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = self.Kill()
		}
		fmt.Fprintln(os.Stderr, "processor: still there after killing itself:", err)
		return
	case DoFail:
		answer.Header.Set(wire.HeaderErrorCode, "500")
		answer.Header.Set(wire.HeaderError, "asked to fail")
	default:
		body, err := json.Marshal(Answer{ID: o.ID, By: w.Subject, Attempt: attempt, Sum: sum})
		if err != nil {
			panic(err) // it is made of plain values
		}
		answer.Data = body
	}
	if err := w.nc.PublishMsg(answer); err != nil {
		fmt.Fprintf(os.Stderr, "processor %s: answering: %v\n", w.Subject, err)
	}
	w.note(Answered, o, attempt, sum)
}
