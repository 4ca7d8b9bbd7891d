package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"stint/broker/queue"
	"stint/wire"
)

const (
	// maxBacklog and maxBacklogMsgs bound what may wait in a subscription of the broker's while a queue is busy.
	maxBacklog     = 32 << 20
	maxBacklogMsgs = 64 << 10
	// patience is how often a callback that waits for room tries again and looks at the backlog behind it.
	patience = 500 * time.Microsecond
	// askLimit bounds the questions under way to an outside server, askTimeout the wait for each.
	askLimit   = 256
	askTimeout = 500 * time.Millisecond
)

// bus is the broker's side of NATS: it turns what arrives into events and what the rules say into what is published.
// All fields are set before the first subscription and not changed afterwards.
type bus struct {
	nc      *nats.Conn
	log     *slog.Logger
	listens func(subject string) bool // nil: an outside server
	own     *wire.Own
	asking  chan struct{}
	flushes chan flushing   // has room for one of each queue
	ctx     context.Context // ends when the broker stops
}

// ConnOptions are the options that the broker's connection needs: it never gives up reconnecting and reports what goes
// wrong to the log.
func ConnOptions(log *slog.Logger) []nats.Option {
	return []nats.Option{
		nats.Name("stint broker"),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(100 * time.Millisecond),
		nats.ReconnectJitter(50*time.Millisecond, 50*time.Millisecond),
		nats.ReconnectBufSize(32 << 20),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			level := slog.LevelError
			if errors.Is(err, nats.ErrBadHeaderMsg) {
				level = slog.LevelDebug // a client's doing, who is told; it must not fill the log
			}
			log.Log(context.Background(), level, "NATS reports an error to the broker", "subject", subject, "err", err)
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("the broker lost its connection to NATS and reconnects", "err", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("the broker is connected to NATS again", "url", nc.ConnectedUrlRedacted())
		}),
	}
}

// inlet is a queue's way in: what the callbacks of its subscriptions need to know.
type inlet struct {
	*bus
	a   *actor
	cfg *queue.Config
}

// subscribe starts the intake of a queue.
func (b *bus) subscribe(a *actor) ([]*nats.Subscription, error) {
	cfg := &a.cfg
	in := &inlet{bus: b, a: a, cfg: cfg}
	handlers := []struct {
		subject string
		f       nats.MsgHandler
	}{
		{wire.LeasePattern(cfg.Address), in.onAnswer},
		{wire.TalkPattern(cfg.Address), in.onTalk},
		{wire.RegisterSubject(cfg.Address), in.onRegister},
		{wire.UnregisterSubject(cfg.Address), in.onUnregister},
		{cfg.Address, in.onSend},
	}
	var subs []*nats.Subscription
	for _, h := range handlers {
		sub, err := b.nc.Subscribe(h.subject, h.f)
		if err == nil {
			err = sub.SetPendingLimits(-1, -1)
		}
		if err != nil {
			return subs, fmt.Errorf("subscribing to %s: %w", h.subject, err)
		}
		subs = append(subs, sub)
	}
	return subs, nil
}

func (in *inlet) onSend(m *nats.Msg) {
	send, err := wire.ParseSend(m.Header, m.Data)
	if spoilt(m) {
		err = first(err, wire.Errorf(wire.CodeBadHeader, "the item's header block cannot be read: send lines of name, colon and value"))
	}
	if wire.BatchCount(m.Header) != "" {
		in.onSendBatch(m, send, err)
		return
	}
	ev := &queue.Sent{Reply: m.Reply, Header: wire.OfItem(m.Header), Body: m.Data, Send: send}
	err = in.checkTargets(&ev.Reply, &ev.AcceptedReply, err)
	if size := ev.Size(); size > in.cfg.MaxItemBytes {
		err = first(err, in.tooLarge(size))
	}
	if err == nil && !in.post(m.Sub, ev) {
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
	return wire.Errorf(wire.CodeBusy, "queue %s is busy: %d bytes wait to be taken in: send again, more slowly", in.cfg.Address, maxBacklog)
}

// checkTargets empties the subjects of a send that the broker may not publish to, and adds an error for the first.
func (in *inlet) checkTargets(reply, accepted *string, err *wire.Error) *wire.Error {
	for _, subject := range [...]*string{reply, accepted} {
		if *subject == "" {
			continue
		}
		if e := wire.CheckTarget(*subject, in.own, in.cfg.ReplySubjects); e != nil {
			*subject, err = "", first(err, e)
		}
	}
	return err
}

// spoilt says that a message came with a header block that nats.go could not read, and left out.
func spoilt(m *nats.Msg) bool {
	return m.Header == nil && m.Size() > len(m.Subject)+len(m.Reply)+len(m.Data)
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

// post hands an event to the queue. While the mailbox is full it waits, unless so much has gathered behind that the
// event has to be given up: then it returns false.
func (in *inlet) post(sub *nats.Subscription, ev queue.Event) bool {
	if in.a.offer(ev) {
		return true
	}
	t := time.NewTicker(patience)
	defer t.Stop()
	for {
		select {
		case <-in.a.o.done:
			return false
		case <-t.C:
			if in.a.offer(ev) {
				return true
			}
			if msgs, bytes, err := sub.Pending(); err != nil || msgs > maxBacklogMsgs || bytes > maxBacklog {
				return false
			}
		}
	}
}

func (in *inlet) onAnswer(m *nats.Msg) {
	item, attempt, ok := wire.ParseLease(in.cfg.Address, m.Subject)
	if !ok {
		in.log.Debug("an answer to a lease that cannot exist", "subject", m.Subject)
		return
	}
	if count := wire.BatchCount(m.Header); count != "" {
		in.onAnswers(m, count, item, attempt)
		return
	}
	ans := wire.ParseAnswer(m.Header, m.Data, m.Reply)
	if spoilt(m) { // it may have said anything, also that the work failed
		ans = wire.Answer{Kind: wire.Failed, Code: string(wire.CodeBadHeader), Reason: "the header block of the processor's answer cannot be read"}
	}
	if ans.Kind == wire.Turn {
		if e := wire.CheckTarget(m.Reply, in.own, in.cfg.ProcessorSubjects); e != nil {
			ans = wire.Answer{Kind: wire.Failed, Code: string(e.Code), Reason: "the processor's own reply subject was refused: " + e.Message}
		}
	}
	if !in.post(m.Sub, &queue.Answered{Item: item, Attempt: attempt, Header: m.Header, Reply: m.Reply, Answer: ans}) {
		in.log.Warn("an answer was dropped, its queue is too busy: the item is given out again after the process timeout", "subject", m.Subject)
		return
	}
	if ans.Kind != wire.Turn {
		in.acknowledge(m)
	}
}

// acknowledge answers an answer that wants to be acknowledged, as NATS clients can send.
func (in *inlet) acknowledge(m *nats.Msg) {
	if m.Reply != "" && wire.CheckTarget(m.Reply, in.own, in.cfg.ProcessorSubjects) == nil {
		in.send(m.Reply, "", nil, nil)
	}
}

func (in *inlet) onTalk(m *nats.Msg) {
	item, n, ok := wire.ParseTalk(in.cfg.Address, m.Subject)
	if !ok || m.Header.Get("Status") != "" && len(m.Data) == 0 {
		return // not a turn, or word that the sender is away: its processor waits until the timeout
	}
	if m.Reply != "" {
		if e := wire.CheckTarget(m.Reply, in.own, in.cfg.ReplySubjects); e != nil {
			in.log.Warn("a turn of a conversation was refused", "subject", m.Subject, "reason", e.Message)
			return
		}
	}
	if !in.post(m.Sub, &queue.Talked{Item: item, N: n, Header: m.Header, Body: m.Data, Reply: m.Reply}) {
		in.sendError(m.Reply, wire.Errorf(wire.CodeBusy, "queue %s is busy: send this turn again", in.cfg.Address))
	}
}

func (in *inlet) onRegister(m *nats.Msg) {
	reg, err := wire.ParseRegister(m.Data)
	if err == nil {
		err = wire.CheckTarget(reg.Processor, in.own, in.cfg.ProcessorSubjects)
	}
	in.registration(m, &queue.Registered{Registration: reg, Reply: m.Reply}, err)
}

func (in *inlet) onUnregister(m *nats.Msg) {
	processor, err := wire.ParseUnregister(m.Data)
	in.registration(m, &queue.Unregistered{Processor: processor, Reply: m.Reply}, err)
}

func (in *inlet) registration(m *nats.Msg, ev queue.Event, err *wire.Error) {
	if e := wire.CheckTarget(m.Reply, in.own, nil); m.Reply != "" && e != nil {
		in.log.Warn("a registration with a forbidden reply subject was refused", "subject", m.Subject, "reason", e.Message)
		return
	}
	if err == nil && !in.post(m.Sub, ev) {
		err = wire.Errorf(wire.CodeBusy, "queue %s is busy: send the registration again", in.cfg.Address)
	}
	if err != nil {
		in.sendError(m.Reply, err)
	}
}

// publish sends what the rules said. What goes to the sender of a batch says of which item it is.
func (b *bus) publish(address string, m *queue.Msg) {
	to, key, _ := queue.SplitReply(m.To)
	h := withKey(m.Header, key)
	switch m.Kind {
	case queue.Work:
		b.send(to, wire.LeaseSubject(address, m.Item, m.N), h, m.Body)
	case queue.Turn:
		b.send(to, wire.TalkSubject(address, m.Item, m.N), h, m.Body)
	case queue.Final:
		if errors.Is(b.trySend(to, "", h, m.Body), nats.ErrMaxPayload) {
			e := b.replyTooLarge(len(m.Body))
			b.send(to, "", withKey(e.Header(), key), e.Body())
		}
	case queue.Notice:
		b.send(to, "", h, m.Body)
	}
}

// replyTooLarge is what a sender gets in place of a reply that NATS does not take with the headers that belong to it.
func (b *bus) replyTooLarge(size int) *wire.Error {
	return wire.Errorf(wire.CodeTooLarge, "the processor's reply has %d bytes, too many beside its headers for the NATS server's max_payload of %d: "+
		"let the processor reply with less, or send fewer headers", size, b.nc.MaxPayload())
}

// sendError sends an error, or nothing where there is nobody to tell.
func (b *bus) sendError(subject string, err *wire.Error) {
	if subject != "" {
		b.send(subject, "", err.Header(), err.Body())
	}
}

// send publishes. An error here means that the connection is gone for good or its buffer is full; what was said is
// then repeated by the rules (a lease times out, a reply stays on record) or by the sender.
func (b *bus) send(subject, reply string, h wire.Header, body []byte) {
	_ = b.trySend(subject, reply, h, body) // which has logged it
}

// trySend is send that says what went wrong, after it has been logged.
func (b *bus) trySend(subject, reply string, h wire.Header, body []byte) error {
	err := b.nc.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Header: h, Data: body})
	if err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
		b.log.Error("publishing failed", "subject", subject, "err", err)
	}
	return err
}

// interest says whether the embedded server has a subscription for the subject.
func (b *bus) interest(subject string) bool { return b.listens(subject) }

// final sends a final if somebody listens. known is false where that takes a question to an outside server: the answer
// reaches the actor as an event.
func (b *bus) final(a *actor, m *queue.Msg) (delivered, known bool) {
	to, _, _ := queue.SplitReply(m.To)
	if b.listens != nil {
		if !a.listens(to) {
			return false, true
		}
		b.publish(a.address, m)
		return true, true
	}
	copied := *m
	b.inquire(to, func(listening bool) {
		if listening {
			b.publish(a.address, &copied)
		}
		a.post(queue.Settled{Item: copied.Item, Delivered: listening})
	})
	return false, false
}

// probe looks whether a sender that was away is back.
func (b *bus) probe(a *actor, p queue.Probe) {
	subject, _, _ := queue.SplitReply(p.Subject)
	if b.listens == nil {
		b.inquire(subject, func(listening bool) {
			if listening {
				a.post(queue.Listening{Item: p.Item})
			}
		})
	} else if b.listens(subject) {
		a.step(queue.Listening{Item: p.Item})
	}
}

// flush lets the actor know when the server has taken what was published so far.
func (b *bus) flush(a *actor, token uint64) {
	b.flushes <- flushing{a, token} // there is room: an actor has one under way
}

// flushing is an actor that waits for a flush.
type flushing struct {
	a     *actor
	token uint64
}

// flusher flushes for all who wait by then: a flush is a round trip to the server, whoever asks for it. It ends with the
// broker.
func (b *bus) flusher() {
	var waiting []flushing
	for {
		select {
		case f := <-b.flushes:
			waiting = append(waiting[:0], f)
		case <-b.ctx.Done():
			return
		}
		for more := true; more; {
			select {
			case f := <-b.flushes:
				waiting = append(waiting, f)
			default:
				more = false
			}
		}
		b.flushNow()
		for _, f := range waiting {
			f.a.flushed(f.token)
		}
	}
}

func (b *bus) flushNow() {
	for {
		ctx, cancel := context.WithTimeout(b.ctx, 10*time.Second)
		err := b.nc.FlushWithContext(ctx)
		cancel()
		if err == nil || b.ctx.Err() != nil || errors.Is(err, nats.ErrConnectionClosed) {
			return
		}
	}
}

// inquire asks an outside server whether anybody is subscribed at a subject and calls f with the answer, from another
// goroutine. At most askLimit questions are under way; more wait here.
func (b *bus) inquire(subject string, f func(bool)) {
	select {
	case b.asking <- struct{}{}:
	case <-b.ctx.Done():
		return
	}
	go func() {
		listening := b.traced(subject)
		<-b.asking
		f(listening)
	}()
}

// traced asks with NATS' message tracing (nats-server 2.11): a probe that is routed but not delivered, and whose trace
// names the subscriptions it would have gone to. A server that does not trace is taken to have a listener, for then
// the reply must not be held back.
func (b *bus) traced(subject string) bool {
	if !b.nc.HeadersSupported() || !traces(b.nc.ConnectedServerVersion()) {
		return true
	}
	inbox := b.nc.NewInbox()
	sub, err := b.nc.SubscribeSync(inbox)
	if err != nil {
		return true
	}
	defer sub.Unsubscribe()
	b.send(subject, "", wire.Header{"Nats-Trace-Dest": {inbox}, "Nats-Trace-Only": {"true"}}, nil)
	ctx, cancel := context.WithTimeout(b.ctx, askTimeout)
	defer cancel()
	m, err := sub.NextMsgWithContext(ctx)
	if err != nil {
		return true
	}
	var trace struct {
		Events []struct {
			Type string `json:"type"`
		} `json:"events"`
	}
	if json.Unmarshal(m.Data, &trace) != nil {
		return true
	}
	for _, e := range trace.Events {
		if e.Type == "eg" {
			return true
		}
	}
	return false
}

// traces says whether a server of this version knows message tracing.
func traces(version string) bool {
	var major, minor int
	_, err := fmt.Sscanf(strings.TrimPrefix(version, "v"), "%d.%d", &major, &minor)
	return err == nil && (major > 2 || major == 2 && minor >= 11)
}

func formatItem(id uint64) string {
	if id == 0 {
		return ""
	}
	return wire.FormatID(id)
}
