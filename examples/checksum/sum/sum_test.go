package sum

import (
	"strconv"
	"testing"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

// TestTake: what each kind of word does to an item under way.
func TestTake(t *testing.T) {
	status := func(code wire.Code) []byte { return wire.Errorf(code, "no").Body() }
	for name, c := range map[string]struct {
		kind           string
		msg            nats.Msg
		known          bool // accepted before
		open, accepted bool
		failed         int
	}{
		"accepted":                 {kind: "accepted", msg: nats.Msg{Data: wire.Accepted(1, false)}, open: true, accepted: true},
		"a reply proves it":        {kind: "reply", msg: nats.Msg{Data: []byte(`{"sha256":"00"}`)}, accepted: true},
		"no broker":                {kind: "reply", msg: nats.Msg{Header: nats.Header{"Status": {"503"}}}, open: true},
		"a refusal that passes":    {kind: "accepted", msg: nats.Msg{Data: status(wire.CodeBusy)}, open: true},
		"and at the reply subject": {kind: "reply", msg: nats.Msg{Data: status(wire.CodeDiskFull)}, open: true},
		"a refusal that stays":     {kind: "accepted", msg: nats.Msg{Data: status(wire.CodeTooLarge)}, failed: 1},
		"a dead letter":            {kind: "reply", msg: nats.Msg{Data: status(wire.CodeDead)}, known: true, failed: 1},
		"not an answer":            {kind: "reply", msg: nats.Msg{Data: []byte("?")}, known: true, failed: 1},
		"of another item":          {kind: "reply.9", msg: nats.Msg{Data: []byte("?")}, open: true},
	} {
		t.Run(name, func(t *testing.T) {
			s := &sender{run: "run", files: []string{"f"}, open: map[int]*open{0: {accepted: c.known}}}
			s.res.Sums, s.res.Errors, s.res.By = map[string]string{}, map[string]string{}, map[int]int{}
			it := s.open[0]
			m := c.msg
			m.Subject = "run." + c.kind + "." + strconv.Itoa(0)
			s.take(&m)
			if _, isOpen := s.open[0]; isOpen != c.open {
				t.Errorf("under way: %t", isOpen)
			}
			if !c.known && it.accepted != c.accepted {
				t.Errorf("accepted: %t", it.accepted)
			}
			if s.res.Failed != c.failed {
				t.Errorf("%d failed: %v", s.res.Failed, s.res.Errors)
			}
		})
	}
}
