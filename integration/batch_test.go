package integration

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"stint/integration/harness"
	"stint/wire"
)

// batchSender sends batches and notes everything that is said about their items. All of it belongs to the goroutine of run.
type batchSender struct {
	name, queue string
	most        int  // items of a batch
	ids         bool // items have a Nats-Msg-Id, and a batch is sent again while nothing is heard of it
	gathered    bool
	every       time.Duration
	total       int // batches; 0: until it is stopped
	pad         int // bytes
	drain       time.Duration
	rand        *rand.Rand
	spoken      chan<- struct{}

	nc    *nats.Conn
	inbox string
	in    chan *nats.Msg
	sent  []*sentBatch
	ops   []*harness.Op
	open  map[int]*sentBatch // not heard of
	owed  int                // items that are accepted, and no final has come
}

type sentBatch struct {
	ops []*harness.Op
	msg *nats.Msg
	at  time.Time
}

// batchPatience is how long nothing may be heard of a batch.
const batchPatience = 1500 * time.Millisecond

func (s *batchSender) connect(t *testing.T, url string) {
	t.Helper()
	nc, err := nats.Connect(url, append(harness.Stubborn(), nats.Name(s.name))...)
	if err != nil {
		t.Fatal(err)
	}
	s.nc, s.inbox, s.in, s.open = nc, nc.NewInbox(), make(chan *nats.Msg, 1<<16), map[int]*sentBatch{}
	if _, err := nc.ChanSubscribe(s.inbox+".*.*", s.in); err != nil {
		t.Fatal(err)
	}
}

func (s *batchSender) run(stop <-chan struct{}) []*harness.Op {
	defer s.nc.Close()
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	var end time.Time
	for {
		select {
		case m := <-s.in:
			s.receive(m)
			continue
		case now := <-tick.C:
			s.settle(now)
			if end.IsZero() && len(s.open) < 20 && (s.total == 0 || len(s.sent) < s.total && s.nc.IsConnected()) {
				s.send()
			}
		case <-stop:
			stop, end = nil, time.Now().Add(s.drain)
		}
		if !end.IsZero() && (len(s.open)+s.owed == 0 || time.Now().After(end)) {
			s.linger()
			return s.ops
		}
	}
}

// linger takes in what comes although nothing more is owed.
func (s *batchSender) linger() {
	for end := time.After(500 * time.Millisecond); ; {
		select {
		case m := <-s.in:
			s.receive(m)
		case <-end:
			return
		}
	}
}

func (s *batchSender) send() {
	n, number := 1+s.rand.IntN(s.most), len(s.sent)
	b := &sentBatch{msg: nats.NewMsg(s.queue)}
	for i := range n {
		id := fmt.Sprintf("%s-%d-%d", s.name, number, i)
		body, err := json.Marshal(harness.Order{ID: id, Work: s.rand.IntN(15), Pad: strings.Repeat("x", s.pad)})
		if err != nil {
			panic(err) // it is made of plain values
		}
		var h wire.Header
		if s.ids {
			h = wire.Header{wire.HeaderMsgID: {id}}
		}
		b.msg.Data = wire.AppendFrame(b.msg.Data, fmt.Sprint(i), h, body)
		o := &harness.Op{ID: id, Sum: harness.Sum(body), MsgID: s.ids}
		b.ops, s.ops = append(b.ops, o), append(s.ops, o)
	}
	b.msg.Reply = fmt.Sprintf("%s.reply.%d", s.inbox, number)
	b.msg.Header.Set(wire.HeaderBatch, fmt.Sprint(n))
	b.msg.Header.Set(wire.HeaderAcceptedReply, fmt.Sprintf("%s.accept.%d", s.inbox, number))
	if s.gathered {
		b.msg.Header.Set(wire.HeaderBatchReplies, "gathered")
	}
	s.sent, s.open[number] = append(s.sent, b), b
	s.publish(b)
}

func (s *batchSender) publish(b *sentBatch) {
	b.at = time.Now()
	for _, o := range b.ops {
		o.Sends++
		o.SentAt = b.at
	}
	s.nc.PublishMsg(b.msg) //nolint:errcheck // a full buffer leaves the outcome unknown, as a cut connection does
}

// settle gives up waiting, or sends again, where nothing has been heard for too long.
func (s *batchSender) settle(now time.Time) {
	for number, b := range s.open {
		switch {
		case now.Sub(b.at) < batchPatience:
		case s.ids:
			s.publish(b)
		default:
			delete(s.open, number)
		}
	}
}

func (s *batchSender) receive(m *nats.Msg) {
	var kind string
	var number int
	parts := strings.Split(strings.TrimPrefix(m.Subject, s.inbox+"."), ".")
	kind = parts[0]
	fmt.Sscan(parts[1], &number) //nolint:errcheck // it was made by Sprint
	b := s.sent[number]
	switch count := m.Header.Get(wire.HeaderBatch); {
	case kind == "accept":
		delete(s.open, number)
		s.accepted(b, m)
	case m.Header.Get("Status") == "503" && len(m.Data) == 0:
		s.rejectedAll(b, harness.NoResponders)
	case count != "":
		frames := wire.ReadFrames(count, m.Data)
		for frames.Next() {
			h, _ := frames.Header()
			s.reply(b, string(frames.Key), h, frames.Body)
		}
		if err := frames.Err(); err != nil {
			b.ops[0].Rejects = append(b.ops[0].Rejects, err.Error(), "which must not be")
		}
	case m.Header.Get(wire.HeaderBatchKey) != "":
		s.reply(b, m.Header.Get(wire.HeaderBatchKey), wire.Header(m.Header), m.Data)
	}
}

func (s *batchSender) rejectedAll(b *sentBatch, code string) {
	for _, o := range b.ops {
		o.Rejects = append(o.Rejects, code)
	}
}

func (s *batchSender) accepted(b *sentBatch, m *nats.Msg) {
	notice, ok := wire.ParseBatchAccepted(m.Data)
	if !ok {
		st, _ := wire.ParseStatus(m.Data)
		s.rejectedAll(b, st.Code)
		return
	}
	as := map[string]harness.Accept{}
	for i := range b.ops {
		as[fmt.Sprint(i)] = harness.Accept{Item: wire.FormatID(notice.First + uint64(i))}
	}
	for _, d := range notice.Duplicates {
		as[d.Key] = harness.Accept{Item: d.ID, Duplicate: true}
	}
	for _, r := range notice.Refused {
		for _, key := range r.Keys {
			delete(as, key)
			o := s.opOf(b, key)
			o.Rejects = append(o.Rejects, string(r.Code))
		}
	}
	for key, a := range as {
		o := s.opOf(b, key)
		if !o.Accepted() {
			s.owed++
		}
		o.Accepts = append(o.Accepts, a)
	}
	select {
	case s.spoken <- struct{}{}:
	default:
	}
}

func (s *batchSender) opOf(b *sentBatch, key string) *harness.Op {
	var i int
	fmt.Sscan(key, &i) //nolint:errcheck // what is not a number is the first one's, and differs from what is expected
	return b.ops[i]
}

func (s *batchSender) reply(b *sentBatch, key string, h wire.Header, body []byte) {
	o := s.opOf(b, key)
	f := harness.Final{At: time.Now(), Marked: len(h[wire.HeaderRedelivered]) > 0, Body: string(body)}
	if st, ok := wire.ParseStatus(body); ok && len(h[wire.HeaderErrorCode]) > 0 {
		if st.Code != string(wire.CodeDead) && st.Code != string(wire.CodeExpired) {
			o.Rejects = append(o.Rejects, st.Code)
			return
		}
		f.Code = st.Code
	}
	if len(o.Accepts) > 0 && len(o.Finals) == 0 {
		s.owed--
	}
	json.Unmarshal(body, &f.Answer) //nolint:errcheck // what is no answer differs from the one that is expected
	o.Finals = append(o.Finals, f)
}

// batchProcessor takes work in batches and answers it in batches, of what is due at a time. It reports like a process.
type batchProcessor struct {
	subject, queue string
	nc             *nats.Conn
	events         chan<- harness.Event
	stop           chan struct{}
}

type dueAnswer struct {
	at   time.Time
	key  string
	body []byte
}

func (p *batchProcessor) run(in <-chan *nats.Msg, capacity, batch int) {
	tick, again := time.NewTicker(3*time.Millisecond), time.NewTicker(300*time.Millisecond)
	defer tick.Stop()
	defer again.Stop()
	body := wire.RegisterBody(wire.Registration{Processor: p.subject, Capacity: capacity, Batch: batch})
	register := func() { p.nc.Publish(wire.RegisterSubject(p.queue), body) } //nolint:errcheck // it is said again and again
	register()
	var due []dueAnswer
	for {
		select {
		case m := <-in:
			due = append(due, p.take(m)...)
		case now := <-tick.C:
			due = p.answer(now, due)
		case <-again.C:
			register()
		case <-p.stop:
			return
		}
	}
}

func (p *batchProcessor) take(m *nats.Msg) (due []dueAnswer) {
	frames := wire.ReadFrames(m.Header.Get(wire.HeaderBatch), m.Data)
	for frames.Next() {
		var o harness.Order
		json.Unmarshal(frames.Body, &o) //nolint:errcheck // an order that is none has no id that was sent
		_, attempt, _ := wire.ParseWorkKey(frames.Key)
		sum := harness.Sum(frames.Body)
		p.events <- harness.Event{Kind: harness.Got, By: p.subject, ID: o.ID, Attempt: attempt, Sum: sum, At: time.Now().UnixNano()}
		body, err := json.Marshal(harness.Answer{ID: o.ID, By: p.subject, Attempt: attempt, Sum: sum})
		if err != nil {
			panic(err) // it is made of plain values
		}
		due = append(due, dueAnswer{time.Now().Add(time.Duration(o.Work) * time.Millisecond), string(frames.Key), body})
	}
	if frames.Err() != nil {
		p.events <- harness.Event{Kind: harness.Got, By: p.subject, ID: "a message that cannot be read: " + frames.Err().Error()}
	}
	return due
}

// answer answers in one message what is due, and gives back what is not.
func (p *batchProcessor) answer(now time.Time, due []dueAnswer) (rest []dueAnswer) {
	var data []byte
	n, first := 0, ""
	for _, d := range due {
		if d.at.After(now) || n == wire.MaxBatch {
			rest = append(rest, d)
			continue
		}
		data = wire.AppendFrame(data, d.key, nil, d.body)
		if n++; n == 1 {
			first = d.key
		}
	}
	if n > 0 {
		item, attempt, _ := wire.ParseWorkKey([]byte(first))
		p.nc.PublishMsg(&nats.Msg{ //nolint:errcheck // as if the processor had died
			Subject: wire.LeaseSubject(p.queue, item, attempt), Header: nats.Header(wire.BatchHeader(n)), Data: data,
		})
	}
	return rest
}

// batchCampaign is a campaign with senders and processors of batches.
type batchCampaign struct {
	*campaign
	atEnd []func()
}

// batchProcessors run until the campaign ends.
func (c *batchCampaign) batchProcessors(n, capacity, batch int) {
	c.t.Helper()
	for i := range n {
		nc, err := nats.Connect(c.broker.URL, harness.Stubborn()...)
		if err != nil {
			c.t.Fatal(err)
		}
		p := &batchProcessor{subject: fmt.Sprintf("batch.%d", i), queue: c.queue, nc: nc, events: c.events, stop: make(chan struct{})}
		in := make(chan *nats.Msg, 4096)
		if _, err := nc.ChanSubscribe(p.subject, in); err != nil {
			c.t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			p.run(in, capacity, batch)
		}()
		c.atEnd = append(c.atEnd, func() {
			close(p.stop)
			<-ended
			nc.Close()
		})
	}
}

func (c *batchCampaign) batchSender(s *batchSender) {
	c.t.Helper()
	s.name, s.queue, s.rand, s.spoken = fmt.Sprintf("b%d", c.senders), c.queue, rand.New(rand.NewPCG(c.rand.Uint64(), 1)), c.spoken
	s.connect(c.t, c.broker.URL)
	c.senders++
	go func() { c.notes <- s.run(c.stop) }()
}

// TestKill9InBatches is TestKill9 with senders and processors of batches, beside those of single items.
func TestKill9InBatches(t *testing.T) {
	c := &batchCampaign{campaign: newCampaign(t, harness.Binary(t), seed())}
	c.processors(2, 6)
	c.batchProcessors(2, 100, 40)
	const drain = 60 * time.Second
	for _, s := range []*batchSender{
		{most: 60, ids: true, gathered: true}, {most: 60, gathered: true}, {most: 5, ids: true}, {most: 200}, {most: 1, ids: true, gathered: true},
	} {
		s.every, s.drain, s.pad = 20*time.Millisecond, drain, 100
		c.batchSender(s)
	}
	c.sender(harness.SenderOptions{
		Accept: harness.AcceptHeader, MsgIDs: 0.3, Every: 10 * time.Millisecond, Burst: 5, Window: 400, Compose: mixed, Drain: drain,
	})
	for n := range kills / 2 {
		c.moment(time.Second)
		if n%2 == 0 {
			c.atAccept()
		}
		c.kill(c.broker)
		c.pause(100 * time.Millisecond)
		c.restart()
	}
	mustBeGood(t, c.endBatches(), 100*kills)
}

// endBatches is end for a campaign with processors of batches.
func (c *batchCampaign) endBatches() *harness.Verdict {
	c.t.Helper()
	close(c.stop)
	var ops []*harness.Op
	for range c.senders {
		ops = append(ops, <-c.notes...)
	}
	for _, p := range c.procs {
		p.Kill()
	}
	for _, f := range c.atEnd {
		f()
	}
	close(c.events)
	v := harness.Judge(ops, <-c.gone)
	c.t.Logf("%v; slowest start %v", v, c.slowest.Round(time.Millisecond))
	return v
}

// killBatchesAtAccept kills the broker the moment the notice of a batch has come in, while nobody processes.
func killBatchesAtAccept(t *testing.T, binary string, rounds int, drain time.Duration) *harness.Verdict {
	t.Helper()
	c := &batchCampaign{campaign: newCampaign(t, binary, seed())}
	for range 2 {
		c.batchSender(&batchSender{most: 40, gathered: true, every: 20 * time.Millisecond, total: 10 * rounds, pad: 20_000, drain: drain})
	}
	for range rounds {
		c.atAccept()
		c.kill(c.broker)
		c.restart()
	}
	c.batchProcessors(2, 100, 40)
	return c.endBatches()
}

// TestKillAtAcceptOfABatch: the one notice of a batch speaks for all its items.
func TestKillAtAcceptOfABatch(t *testing.T) {
	t.Run("right", func(t *testing.T) {
		mustBeGood(t, killBatchesAtAccept(t, harness.Binary(t), 10, 30*time.Second), 100)
	})
	t.Run("accepted before the commit", func(t *testing.T) {
		v := killBatchesAtAccept(t, harness.Binary(t, "defect_earlyaccept"), 10, 3*time.Second)
		if len(v.Lost) == 0 {
			t.Error("a broker that says accepted before its commit was not caught")
		}
	})
}
