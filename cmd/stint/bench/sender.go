package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"stint/wire"
)

const (
	stallLimit   = 30 * time.Second // without a notice or an answer
	progressStep = 250 * time.Millisecond
)

// sender is the process that sends and that measures. Three goroutines share it: the one of the commands, which publishes;
// the callback of accept notices; the callback of answers.
type sender struct {
	spec
	nc      *nats.Conn
	begun   time.Time // its clock counts from here
	publish func(*nats.Msg) error
	replies string // the subject of answers
	failed  chan error

	slots []slot
	free  chan int // indexes of slots: the window
	taken []int    // the publisher's: the slots of the message that is being made
	out   []byte   // the publisher's: its frames

	messages int // the publisher's: of several items, so far
	wake     chan struct{}

	sent      atomic.Int64 // by the publisher, before an item leaves
	accepted  atomic.Int64
	completed atomic.Int64
	target    atomic.Int64 // of completed; reaching it wakes the publisher

	accepts tally // the accept callback's; the publisher's while it has all slots
	answers tally // the answer callback's; the publisher's once all answers have come
	seen    seen  // the answer callback's
}

// slot is a place in the window with everything that an item needs, to be used again once the item is accepted.
type slot struct {
	msg nats.Msg
	at  atomic.Int64 // when its item was sent, on the sender's clock; 0: it is free
	// batch are the slots of a message that this is the first of. The publisher writes it before the message leaves, and the
	// accept callback reads it.
	batch []int
}

// tally is what is kept of the notices or the answers.
type tally struct {
	histogram
	last time.Duration // on the sender's clock
}

func (t *tally) note(now, took time.Duration) {
	t.add(took)
	t.last = now
}

// seen is the set of the items that were answered.
type seen []uint64

// mark adds an item and says whether it is new. The set grows up to the largest number.
func (s *seen) mark(number int64) bool {
	at, bit := int(number/64), uint64(1)<<(number%64)
	for len(*s) <= at {
		*s = append(*s, 0)
	}
	fresh := (*s)[at]&bit == 0
	(*s)[at] |= bit
	return fresh
}

func newSender(s spec) *sender {
	return &sender{
		spec: s, begun: time.Now(),
		failed: make(chan error, 1),
		slots:  make([]slot, s.Window),
		free:   make(chan int, s.Window),
		wake:   make(chan struct{}, 1),
	}
}

func (s *sender) now() time.Duration { return time.Since(s.begun) }

func (s *sender) fail(err error) {
	select {
	case s.failed <- err:
	default: // the first one is the cause
	}
}

func (s *sender) close() {
	if s.nc != nil {
		s.nc.Close()
	}
}

func (s *sender) ready(ctx context.Context) (event, error) {
	s.target.Store(math.MaxInt64)
	var err error
	if s.nc, err = connect(s.URL, "sender", s.fail); err != nil {
		return event{}, err
	}
	s.replies = s.nc.NewInbox()
	if err := listen(s.nc, s.replies, s.answered); err != nil {
		return event{}, err
	}
	if err := s.prepare(); err != nil {
		return event{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, setupLimit)
	defer cancel()
	return event{}, s.nc.FlushWithContext(ctx)
}

// prepare fills the slots.
func (s *sender) prepare() error {
	random := rand.NewChaCha8([32]byte{})
	accepts := s.nc.NewInbox() + "."
	for i := range s.slots {
		m := &s.slots[i].msg
		m.Data = make([]byte, s.Size)
		_, _ = random.Read(m.Data) // which cannot fail
		if s.Kind == JetStream || s.Kind == JetStreamSync {
			m.Header = nats.Header{headerReply: {s.replies}}
		} else {
			m.Header = nats.Header{wire.HeaderAcceptedReply: {accepts + strconv.Itoa(i)}}
			m.Reply = s.replies
		}
		s.free <- i
	}
	if s.Kind == JetStream || s.Kind == JetStreamSync {
		return s.throughJetStream()
	}
	s.publish = s.nc.PublishMsg
	return listen(s.nc, accepts+"*", func(m *nats.Msg) {
		i, err := strconv.Atoi(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
		if err != nil || i < 0 || i >= len(s.slots) {
			s.fail(fmt.Errorf("an accept notice came to %s", m.Subject))
			return
		}
		if err := s.acceptedAt(i, m.Data); err != nil {
			s.fail(err)
		}
	})
}

// throughJetStream publishes as its client library does. The library gives a message back with its acknowledgement.
func (s *sender) throughJetStream() error {
	index := make(map[*nats.Msg]int, len(s.slots))
	for i := range s.slots {
		index[&s.slots[i].msg] = i
	}
	js, err := jetstream.New(s.nc,
		jetstream.WithPublishAsyncMaxPending(s.Window),
		jetstream.WithPublishAsyncAckHandler(func(_ jetstream.JetStream, m *nats.Msg, _ *jetstream.PubAck) {
			s.acceptedOne(index[m])
		}),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) {
			s.fail(fmt.Errorf("an item was refused: %w", err))
		}))
	if err != nil {
		return err
	}
	s.publish = func(m *nats.Msg) error {
		_, err := js.PublishMsgAsync(m)
		return err
	}
	return nil
}

// acceptedAt takes the notice for what was sent from slot i.
func (s *sender) acceptedAt(i int, notice []byte) error {
	if s.Batch > 0 {
		return s.acceptedBatch(s.slots[i].batch, notice)
	}
	if err := checkAccepted(notice, s.DecodeJSON); err != nil {
		return err
	}
	s.acceptedOne(i)
	return nil
}

// acceptedOne takes the notice for the item in slot i.
func (s *sender) acceptedOne(i int) {
	now := s.now()
	at := s.slots[i].at.Swap(0)
	if at == 0 {
		s.fail(errors.New("an accept notice came twice, or to nothing that was sent"))
		return
	}
	s.accepts.note(now, now-time.Duration(at))
	s.accepted.Add(1)
	s.free <- i
}

// answered takes a message of answers.
func (s *sender) answered(m *nats.Msg) {
	now := s.now()
	var err error
	if count := wire.BatchCount(wire.Header(m.Header)); count != "" {
		err = s.answeredBatch(now, count, m.Data)
	} else {
		err = s.answeredOne(now, wire.Header(m.Header), m.Data)
	}
	if err != nil {
		s.fail(err)
	}
}

// answeredOne takes the answer to an item.
func (s *sender) answeredOne(now time.Duration, h wire.Header, body []byte) error {
	number, at, err := s.readAnswer(nats.Header(h), body)
	if err != nil {
		return err
	}
	if !s.seen.mark(number) {
		return fmt.Errorf("item %d was answered twice", number)
	}
	s.answers.note(now, now-at)
	if s.completed.Add(1) >= s.target.Load() {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
	return nil
}

func (s *sender) readAnswer(h nats.Header, body []byte) (number int64, at time.Duration, err error) {
	if h.Get("Status") == "503" {
		return 0, 0, errors.New("nobody takes items at the address")
	}
	if code := h.Get(wire.HeaderErrorCode); code != "" {
		return 0, 0, fmt.Errorf("an item failed: %s (%s)", h.Get(wire.HeaderError), code)
	}
	number, at, ok := readStamp(body)
	if !ok || number < 0 || number >= s.sent.Load() {
		return 0, 0, fmt.Errorf("an answer came to nothing that was sent: %.80q", body)
	}
	return number, at, nil
}
