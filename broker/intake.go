package broker

import (
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"stint/broker/queue"
	"stint/internal/fifo"
	"stint/internal/tap"
	"stint/wire"
)

const (
	// inflow is how many messages nats.go may hold for an owner's intake to look at, which takes it a microsecond for each;
	// beyond them nats.go drops and says so.
	inflow = 64 << 10
	// maxBacklog and maxBacklogBytes bound what waits for each queue in front of its mailbox.
	maxBacklog      = 64 << 10
	maxBacklogBytes = 32 << 20
	// patience is how often the intake tries to put in a mailbox what waits for it.
	patience = 500 * time.Microsecond
)

// intake is the goroutine that takes messages for the queues of one owner: it translates, checks, and puts events in their
// mailboxes. They come past nats.go where that can be (see package tap), else in one channel of its: to have it call back would
// take a goroutine for each subscription, five for each queue, and to wake one took longer than what it did. The intake waits
// for nothing else, so that neither fills.
type intake struct {
	o      *owner
	flow   chan *nats.Msg
	lane   *tap.Lane                    // the same, past the client library
	routes []route                      // complete before run; their indexes are the tags of messages in the lane
	subs   map[*nats.Subscription]route // likewise
	open   *parcel                      // is being filled
	msg    incoming                     // is being looked at
	sent   queue.Sent                   // is being posted, as is answer: only what has to wait gets memory of its own
	answer queue.Answered
	reply  string        // the last new one: senders use one for many queues, which then have it in memory once
	late   []*inlet      // have a backlog
	done   chan struct{} // closed when run has ended
}

// route is what a subscription is for.
type route struct {
	subject string // or pattern
	in      *inlet
	handle  func(*inlet, *incoming)
}

// inlet is a queue's way in. It belongs to its intake's goroutine.
type inlet struct {
	*bus
	intake *intake
	a      *actor
	box    mailbox
	cfg    *queue.Config
	good   [2]string // the last reply and accept subject that were checked: senders use one for many items

	backlog fifo.List[queue.Event] // for the mailbox, which is full
	bytes   int64                  // of the bodies in it
}

func newIntake(o *owner) *intake {
	return &intake{
		o: o, flow: make(chan *nats.Msg, inflow), lane: tap.NewLane(), subs: map[*nats.Subscription]route{}, done: make(chan struct{}),
	}
}

// add makes the routes of a queue.
func (k *intake) add(b *bus, a *actor) {
	in := &inlet{bus: b, intake: k, a: a, box: mailbox{of: &a.stepped}, cfg: &a.cfg}
	k.routes = append(k.routes,
		route{wire.LeasePattern(a.cfg.Address), in, (*inlet).onAnswer},
		route{wire.TalkPattern(a.cfg.Address), in, (*inlet).onTalk},
		route{wire.RegisterSubject(a.cfg.Address), in, (*inlet).onRegister},
		route{wire.UnregisterSubject(a.cfg.Address), in, (*inlet).onUnregister},
		route{a.cfg.Address, in, (*inlet).onSend},
	)
}

// subscribe subscribes for all routes.
func (k *intake) subscribe(nc *nats.Conn) error {
	for _, r := range k.routes {
		sub, err := nc.ChanSubscribe(r.subject, k.flow)
		if err != nil {
			return fmt.Errorf("subscribing to %s: %w", r.subject, err)
		}
		k.subs[sub] = r
	}
	return nil
}

func (k *intake) unsubscribe() {
	for sub := range k.subs {
		sub.Unsubscribe() // a closed connection has none left
	}
}

// close is for an intake that never ran.
func (k *intake) close() {
	k.unsubscribe()
	k.lane.Close()
}

// run is the loop. It ends with the owner.
func (k *intake) run() {
	defer close(k.done)
	defer k.lane.Close()
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	unsent := 0 // messages from the library since the last parcel: many of them may make no event
	for {
		late := len(k.late)
		select {
		case m := <-k.flow:
			if r, ok := k.subs[m.Sub]; ok {
				k.msg = fromLibrary(m)
				r.handle(r.in, &k.msg)
			}
			if unsent++; len(k.flow) == 0 || unsent >= parcelRoom {
				k.send()
				unsent = 0
			}
		case b := <-k.lane.C():
			for i := range b.Messages {
				k.take(&b.Messages[i], b.Keep)
			}
			b.Done()
			k.send()
		case <-retry.C:
			k.catchUp()
			k.send()
			late = 0
		case <-k.o.quit:
			return
		}
		if late == 0 && len(k.late) > 0 {
			retry.Reset(patience)
		}
	}
}

// catchUp puts in the mailboxes what they have room for.
func (k *intake) catchUp() {
	still := k.late[:0]
	for _, in := range k.late {
		if in.catchUp(); in.backlog.Len() > 0 {
			still = append(still, in)
		}
	}
	clear(k.late[len(still):])
	k.late = still
}

func (in *inlet) catchUp() {
	for in.backlog.Len() > 0 && in.offer(in.backlog.First()) {
		in.bytes -= bodySize(in.backlog.Pop())
	}
}

// offer puts an event in a parcel if its mailbox has room.
func (in *inlet) offer(ev queue.Event) bool {
	n := bodySize(ev)
	if !in.box.hasRoom(n) || !in.intake.opened() {
		return false
	}
	in.box.sent.add(n)
	in.intake.open.add(in.a, ev, n)
	return true
}

// opened sees to it that a parcel with room is open, unless as many as may wait for the owner.
func (k *intake) opened() bool {
	if k.open != nil && k.open.full() {
		k.send()
	}
	if k.open != nil {
		return true
	}
	if len(k.o.parcels) == cap(k.o.parcels) {
		return false // else there is room for the one that is opened, for nobody else sends any
	}
	select {
	case k.open = <-k.o.empties:
	default:
		k.open = newParcel()
	}
	return true
}

// send sends what has been put together.
func (k *intake) send() {
	if k.open != nil {
		k.o.parcels <- k.open
		k.open = nil
	}
}

// post hands an event to the queue. While its mailbox is full the event waits, unless so much does that it has to be given up:
// then post returns false.
func (in *inlet) post(ev queue.Event) bool {
	if in.backlog.Len() == 0 && in.offer(ev) {
		return true
	}
	n := bodySize(ev)
	if in.backlog.Len() >= maxBacklog || in.backlog.Len() > 0 && in.bytes+n > maxBacklogBytes {
		return false
	}
	if in.backlog.Len() == 0 {
		in.intake.late = append(in.intake.late, in)
	}
	in.backlog.Push(kept(ev))
	in.bytes += n
	return true
}

func (in *inlet) onSend(m *incoming) {
	send, err := wire.ParseSend(m.header, m.data)
	in.takeSend(m, send, err)
}

// takeSend takes in what a send asks for. err is what was found wrong with it so far.
func (in *inlet) takeSend(m *incoming, send wire.Send, err *wire.Error) {
	if m.spoilt {
		err = first(err, wire.Errorf(wire.CodeBadHeader, "the item's header block cannot be read: send lines of name, colon and value"))
	}
	if wire.BatchCount(m.header) != "" {
		in.onSendBatch(m, send, err)
		return
	}
	ev := &in.intake.sent
	*ev = queue.Sent{Reply: m.reply, Header: wire.OfItem(m.header), Body: m.data, Send: send}
	err = in.checkTargets(&ev.Reply, &ev.AcceptedReply, err)
	if size := ev.Size(); size > in.cfg.MaxItemBytes {
		err = first(err, in.tooLarge(size))
	}
	if err == nil && !in.post(ev) {
		err = in.busy()
	}
	if err != nil {
		in.refuse(ev.AcceptedReply, ev.Reply, err)
	}
}

func (in *inlet) tooLarge(size int) *wire.Error {
	return wire.Errorf(wire.CodeTooLarge, "the item has %d bytes, queue %s takes %d (max_item_bytes): send less, or put the data elsewhere and send where it is", size, in.cfg.Address, in.cfg.MaxItemBytes)
}

func (in *inlet) busy() *wire.Error {
	return wire.Errorf(wire.CodeBusy, "queue %s is busy: too much waits to be taken in: send again, more slowly", in.cfg.Address)
}

// checkTargets empties the subjects of a send that the broker may not publish to, and adds an error for the first.
func (in *inlet) checkTargets(reply, accepted *string, err *wire.Error) *wire.Error {
	for i, subject := range [...]*string{reply, accepted} {
		if *subject == "" || *subject == in.good[i] {
			continue
		}
		if e := wire.CheckTarget(*subject, in.own, in.cfg.ReplySubjects); e != nil {
			*subject, err = "", first(err, e)
		} else {
			in.good[i] = *subject
		}
	}
	return err
}

func first(a, b *wire.Error) *wire.Error {
	if a != nil {
		return a
	}
	return b
}

// refuse answers what does not reach the queue, on each of its subjects that may be answered on.
func (in *inlet) refuse(accepted, reply string, err *wire.Error) {
	in.log.Debug("a send was refused", "queue", in.cfg.Address, "code", string(err.Code), "message", err.Message)
	in.sendError(accepted, err)
	if reply != accepted {
		in.sendError(reply, err)
	}
}

func (in *inlet) onAnswer(m *incoming) {
	item, attempt, ok := wire.ParseLease(in.cfg.Address, m.subject)
	if !ok {
		in.log.Debug("an answer to a lease that cannot exist", "subject", m.subject)
		return
	}
	if count := wire.BatchCount(m.header); count != "" {
		in.onAnswers(m, count, item, attempt)
		return
	}
	ans := wire.ParseAnswer(m.header, m.data, m.reply)
	if m.spoilt { // it may have said anything, also that the work failed
		ans = wire.Answer{Kind: wire.Failed, Code: string(wire.CodeBadHeader), Reason: "the header block of the processor's answer cannot be read"}
	}
	if ans.Kind == wire.Turn {
		if e := wire.CheckTarget(m.reply, in.own, in.cfg.ProcessorSubjects); e != nil {
			ans = wire.Answer{Kind: wire.Failed, Code: string(e.Code), Reason: "the processor's own reply subject was refused: " + e.Message}
		}
	}
	ev := &in.intake.answer
	*ev = queue.Answered{Item: item, Attempt: attempt, Header: m.header, Reply: m.reply, Answer: ans}
	if !in.post(ev) {
		in.log.Warn("an answer was dropped, its queue is too busy: the item is given out again after the process timeout", "subject", m.subject)
		return
	}
	if ans.Kind != wire.Turn {
		in.acknowledge(m)
	}
}

// acknowledge answers an answer that wants to be acknowledged, as NATS clients can send.
func (in *inlet) acknowledge(m *incoming) {
	if m.reply != "" && wire.CheckTarget(m.reply, in.own, in.cfg.ProcessorSubjects) == nil {
		in.send(m.reply, "", nil, nil)
	}
}

func (in *inlet) onTalk(m *incoming) {
	item, n, ok := wire.ParseTalk(in.cfg.Address, m.subject)
	if !ok || len(m.header["Status"]) > 0 && len(m.data) == 0 {
		return // not a turn, or word that the sender is away: its processor waits until the timeout
	}
	if m.reply != "" {
		if e := wire.CheckTarget(m.reply, in.own, in.cfg.ReplySubjects); e != nil {
			in.log.Warn("a turn of a conversation was refused", "subject", m.subject, "reason", e.Message)
			return
		}
	}
	if !in.post(&queue.Talked{Item: item, N: n, Header: m.header, Body: m.data, Reply: m.reply}) {
		in.sendError(m.reply, wire.Errorf(wire.CodeBusy, "queue %s is busy: send this turn again", in.cfg.Address))
	}
}

func (in *inlet) onRegister(m *incoming) {
	reg, err := wire.ParseRegister(m.data)
	if err == nil {
		err = wire.CheckTarget(reg.Processor, in.own, in.cfg.ProcessorSubjects)
	}
	in.registration(m, &queue.Registered{Registration: reg, Reply: m.reply}, err)
}

func (in *inlet) onUnregister(m *incoming) {
	processor, err := wire.ParseUnregister(m.data)
	in.registration(m, &queue.Unregistered{Processor: processor, Reply: m.reply}, err)
}

func (in *inlet) registration(m *incoming, ev queue.Event, err *wire.Error) {
	if e := wire.CheckTarget(m.reply, in.own, nil); m.reply != "" && e != nil {
		in.log.Warn("a registration with a forbidden reply subject was refused", "subject", m.subject, "reason", e.Message)
		return
	}
	if err == nil && !in.post(ev) {
		err = wire.Errorf(wire.CodeBusy, "queue %s is busy: send the registration again", in.cfg.Address)
	}
	if err != nil {
		in.sendError(m.reply, err)
	}
}
