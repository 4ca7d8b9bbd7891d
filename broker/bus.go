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
	"stint/internal/tap"
	"stint/wire"
)

const (
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
	flushes chan flushing
	ctx     context.Context // ends when the broker stops
}

// ConnOptions are the options that the broker's connection needs: it never gives up reconnecting and reports what goes
// wrong to the log.
func ConnOptions(log *slog.Logger) []nats.Option {
	return []nats.Option{
		nats.Name("stint broker"),
		nats.SetCustomDialer(&tap.Tap{}),
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
		if !a.o.listens(b, to) {
			return false, true
		}
		b.publish(a.cfg.Address, m)
		return true, true
	}
	copied := *m
	return b.ask(a, to, func() { b.publish(a.cfg.Address, &copied) }, func(o queue.Outcome) queue.Event {
		return queue.Settled{Item: copied.Item, Outcome: o}
	})
}

// probe looks whether a sender that was away is back.
func (b *bus) probe(a *actor, p queue.Probe) {
	subject, _, _ := queue.SplitReply(p.Subject)
	switch {
	case b.listens != nil:
		if b.listens(subject) {
			a.step(queue.Listening{Item: p.Item})
		}
	case b.nc.IsConnected():
		b.inquire(subject, func(listening bool) {
			if listening {
				a.post(queue.Listening{Item: p.Item})
			}
		})
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
