package harness

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

// NoResponders is the code under which a history has the server's word that nobody took an item.
const NoResponders = "no_responders"

// The ways in which a sender can name the subject of the accept notice.
const (
	AcceptBody   = "accepted_reply"
	AcceptDashed = "accepted-reply"
	AcceptHeader = wire.HeaderAcceptedReply
	AcceptNone   = "none"
)

const (
	// patience is how long a sender waits for an accept notice before it calls the outcome unknown.
	patience = 1500 * time.Millisecond
	// remain is how long a sender that subscribes for each item keeps that subscription after the final.
	remain = 2 * time.Second
	// inboxRoom is how many messages may wait for a sender, far beyond what its window allows.
	inboxRoom = 1 << 16
)

// SenderOptions say how a sender behaves.
type SenderOptions struct {
	Name   string
	URL    string
	Queue  string
	Raw    bool   // a subscription for each item; otherwise one for all, as for NATS requests
	Accept string // one of the ways above
	// MsgIDs is the share of items that have a Nats-Msg-Id. They are sent again when their outcome is unknown; the others
	// never are, for a sender without an id cannot do that.
	MsgIDs float64
	// Every is the pause between two bursts, Burst the most items in one, Window the most items that are not finished.
	Every  time.Duration
	Burst  int
	Window int
	// Total is how many items are sent; 0: until told to stop.
	Total int
	// Compose fills in what is to be done with an item, and its size.
	Compose func(r *rand.Rand) Order
	Seed    uint64
	// Spoken, if not nil, hears of accept notices, as far as it has room.
	Spoken chan<- struct{}
	// Drain is how long after its end it waits for what is owed.
	Drain time.Duration
}

// Sender sends items and notes what it is told. It belongs to the goroutine of Run.
type Sender struct {
	SenderOptions
	nc     *nats.Conn
	in     chan *nats.Msg
	inbox  string
	rand   *rand.Rand
	ops    []*Op
	byID   map[string]*Op
	open   map[string]*Op // no final yet, and still waited for
	bodies map[string]*nats.Msg
	subs   map[string]*nats.Subscription
	leave  []parting // subscriptions to be ended, the soonest first
}

type parting struct {
	at  time.Time
	sub *nats.Subscription
}

// NewSender connects a sender.
func NewSender(o SenderOptions) (*Sender, error) {
	nc, err := nats.Connect(o.URL, append(Stubborn(), nats.Name(o.Name))...)
	if err != nil {
		return nil, fmt.Errorf("connecting sender %s: %w", o.Name, err)
	}
	s := &Sender{
		SenderOptions: o, nc: nc, in: make(chan *nats.Msg, inboxRoom), inbox: nats.NewInbox(),
		rand: rand.New(rand.NewPCG(o.Seed, 0)), byID: map[string]*Op{}, open: map[string]*Op{},
		bodies: map[string]*nats.Msg{}, subs: map[string]*nats.Subscription{},
	}
	if !o.Raw {
		_, err = nc.ChanSubscribe(s.inbox+".*.*", s.in)
	}
	return s, err
}

// Run sends until stop is closed, at most Total items, waits for what it is owed, and returns its notes.
func (s *Sender) Run(stop <-chan struct{}) []*Op {
	defer s.nc.Close()
	tick := time.NewTicker(s.Every)
	defer tick.Stop()
	var end time.Time
	for {
		select {
		case m := <-s.in:
			s.receive(m)
			continue
		case now := <-tick.C:
			s.settle(now)
			if end.IsZero() {
				s.burst()
			}
		case <-stop:
			stop = nil
			end = time.Now().Add(s.Drain)
		}
		if !end.IsZero() && (len(s.open) == 0 || time.Now().After(end)) {
			s.linger()
			return s.ops
		}
	}
}

// linger takes in what comes although nothing more is owed.
func (s *Sender) linger() {
	end := time.NewTimer(again)
	defer end.Stop()
	for {
		select {
		case m := <-s.in:
			s.receive(m)
		case <-end.C:
			return
		}
	}
}

func (s *Sender) burst() {
	if s.Total > 0 && !s.nc.IsConnected() {
		return // or all of them would be spent while the broker is away
	}
	for n := s.rand.IntN(s.Burst + 1); n > 0 && len(s.open) < s.Window; n-- {
		if s.Total > 0 && len(s.ops) >= s.Total {
			return
		}
		s.send()
	}
}

// send makes an item and sends it for the first time.
func (s *Sender) send() {
	id := fmt.Sprintf("%s-%d", s.Name, len(s.ops)+1)
	order := s.Compose(s.rand)
	order.ID = id
	m := nats.NewMsg(s.Queue)
	m.Reply = s.inbox + "." + id + ".reply"
	accept := s.inbox + "." + id + ".accept"
	switch s.Accept {
	case AcceptBody:
		order.Accepted = accept
	case AcceptDashed:
		order.Dashed = accept
	case AcceptHeader:
		m.Header.Set(wire.HeaderAcceptedReply, accept)
	}
	body, err := json.Marshal(order)
	if err != nil {
		panic(err) // it is made of plain values
	}
	m.Data = body
	o := &Op{ID: id, Sum: Sum(body), MsgID: s.rand.Float64() < s.MsgIDs}
	if o.MsgID {
		m.Header.Set(wire.HeaderMsgID, id)
	}
	s.ops, s.byID[id], s.open[id], s.bodies[id] = append(s.ops, o), o, o, m
	if s.Raw && s.subs[id] == nil {
		sub, err := s.nc.ChanSubscribe(s.inbox+"."+id+".*", s.in)
		if err != nil {
			panic(err) // the connection is open and the subject is good
		}
		s.subs[id] = sub
	}
	s.publish(o)
}

func (s *Sender) publish(o *Op) {
	o.Sends++
	o.SentAt = time.Now()
	s.nc.PublishMsg(s.bodies[o.ID]) //nolint:errcheck // a full buffer leaves the outcome unknown, as a cut connection does
}

// settle gives up waiting, or sends again, where nothing has been heard for too long.
func (s *Sender) settle(now time.Time) {
	for id, o := range s.open {
		switch {
		case now.Sub(o.SentAt) < patience || o.Accepted() || s.Accept == AcceptNone && !o.MsgID && now.Sub(o.SentAt) < 4*patience:
		case o.MsgID:
			s.publish(o)
		default:
			s.close(id)
		}
	}
	for len(s.leave) > 0 && s.leave[0].at.Before(now) {
		s.leave[0].sub.Unsubscribe()
		s.leave = s.leave[1:]
	}
}

// close stops waiting for an item. What comes later is noted all the same.
func (s *Sender) close(id string) {
	delete(s.open, id)
	delete(s.bodies, id)
}

func (s *Sender) receive(m *nats.Msg) {
	parts := strings.Split(strings.TrimPrefix(m.Subject, s.inbox+"."), ".")
	o := s.byID[parts[0]]
	status, isStatus := wire.ParseStatus(m.Data)
	code := ""
	if m.Header.Get(wire.HeaderErrorCode) != "" && isStatus {
		code = status.Code
	}
	switch {
	case m.Header.Get("Status") == "503" && len(m.Data) == 0:
		s.rejected(o, NoResponders)
	case code != "" && !isFinal(code):
		s.rejected(o, code)
	case parts[1] == "accept":
		s.accepted(o, status)
	default:
		s.finished(o, m, code)
	}
}

func (s *Sender) accepted(o *Op, status wire.Status) {
	o.Accepts = append(o.Accepts, Accept{Item: status.ID, Duplicate: status.Duplicate, At: time.Now()})
	if len(o.Finals) == 0 {
		s.open[o.ID] = o // it may have been given up
	}
	select {
	case s.Spoken <- struct{}{}:
	default:
	}
}

// rejected notes an error. An item with an id is sent again, for its code may belong to either of two sends.
func (s *Sender) rejected(o *Op, code string) {
	o.Rejects = append(o.Rejects, code)
	if !o.MsgID && !o.Accepted() {
		s.close(o.ID)
	}
}

func (s *Sender) finished(o *Op, m *nats.Msg, code string) {
	f := Final{At: time.Now(), Marked: m.Header.Get(wire.HeaderRedelivered) == "true", Code: code, Body: string(m.Data)}
	json.Unmarshal(m.Data, &f.Answer) //nolint:errcheck // what is no answer differs from the one that is expected
	o.Finals = append(o.Finals, f)
	s.close(o.ID)
	if sub := s.subs[o.ID]; sub != nil {
		delete(s.subs, o.ID)
		s.leave = append(s.leave, parting{f.At.Add(remain), sub})
	}
}
