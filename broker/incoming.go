package broker

import (
	"bytes"
	"strings"

	"github.com/nats-io/nats.go"

	"stint/internal/tap"
	"stint/wire"
)

// incoming is a message as the intake looks at it, whichever way it came. What it points to is nobody else's; itself it is only good
// until the next one.
type incoming struct {
	subject, reply string
	header         wire.Header
	data           []byte
	spoilt         bool // it came with a header block that cannot be read and is left out
}

func fromLibrary(m *nats.Msg) incoming {
	return incoming{
		subject: m.Subject, reply: m.Reply, header: m.Header, data: m.Data,
		spoilt: m.Header == nil && m.Size() > len(m.Subject)+len(m.Reply)+len(m.Data),
	}
}

// take takes in a message that came past the client library. keep: its memory is not used again.
func (k *intake) take(m *tap.Message, keep bool) {
	r := &k.routes[m.Tag]
	in := r.in
	msg := &k.msg
	*msg = incoming{data: m.Data}
	if !keep {
		msg.data = bytes.Clone(m.Data)
	}
	switch {
	case len(m.Reply) == 0:
	case string(m.Reply) == in.good[0]: // which allocates nothing
		msg.reply = in.good[0]
	default:
		if string(m.Reply) != k.reply {
			k.reply = string(m.Reply)
		}
		msg.reply = k.reply
	}
	if r.subject == in.cfg.Address {
		if send, err, ok := wire.ParseLeanSend(m.Header, msg.data); ok {
			in.takeSend(msg, send, err)
			return
		}
	}
	msg.subject = string(m.Subject)
	if len(m.Header) > 0 {
		h, err := nats.DecodeHeadersMsg(m.Header)
		if err != nil {
			msg.spoilt = true
		} else {
			msg.header = wire.Header(h)
		}
	}
	r.handle(in, msg)
}

// finder finds the routes of these intakes by the subject of a message: most by all of it, leases and turns, whose last two words
// are numbers, by the rest.
func finder(intakes []*intake) tap.Find {
	type place struct {
		lane *tap.Lane
		tag  int
	}
	exact, numbered := map[string]place{}, map[string]place{}
	for _, k := range intakes {
		for i, r := range k.routes {
			p := place{k.lane, i}
			if base, ok := strings.CutSuffix(r.subject, ".*.*"); ok {
				numbered[base] = p
			} else {
				exact[r.subject] = p
			}
		}
	}
	return func(subject []byte) (*tap.Lane, int) {
		if base, ok := withoutNumbers(subject); ok {
			if p, ok := numbered[string(base)]; ok {
				return p.lane, p.tag
			}
		}
		p := exact[string(subject)]
		return p.lane, p.tag
	}
}

// withoutNumbers is a subject without its last two words, if the last one begins as a number does. That spares a look at one of
// the two maps, which with many queues are in no cache.
func withoutNumbers(subject []byte) (base []byte, ok bool) {
	last := bytes.LastIndexByte(subject, '.') + 1
	if last == 0 || last == len(subject) || subject[last] < '0' || subject[last] > '9' {
		return nil, false
	}
	at := bytes.LastIndexByte(subject[:last-1], '.')
	return subject[:max(at, 0)], true
}
