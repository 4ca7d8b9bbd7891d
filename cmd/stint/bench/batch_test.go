package bench

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

func answers(numbers ...int64) *nats.Msg {
	var data []byte
	for _, n := range numbers {
		data = wire.AppendFrame(data, "k", nil, answer(n).Data)
	}
	return &nats.Msg{Header: nats.Header(wire.BatchHeader(len(numbers))), Data: data}
}

func TestAnswersInOneMessage(t *testing.T) {
	s := idle()
	s.sent.Store(2)
	s.answered(answers(1, 0))
	if len(s.failed) != 0 || s.completed.Load() != 2 {
		t.Errorf("%d are completed, %d errors", s.completed.Load(), len(s.failed))
	}
	failed := &nats.Msg{Header: nats.Header(wire.BatchHeader(1))}
	failed.Data = wire.AppendFrame(nil, "k", wire.Header{wire.HeaderErrorCode: {"500"}, wire.HeaderError: {"dead"}}, nil)
	for want, m := range map[string]*nats.Msg{
		"answered twice":             answers(0, 0),
		"an item failed: dead (500)": failed,
		"cannot be read":             {Header: nats.Header(wire.BatchHeader(1))},
	} {
		s := idle()
		s.answered(m)
		select {
		case err := <-s.failed:
			if !strings.Contains(err.Error(), want) {
				t.Errorf("the error is %q, want one with %q", err, want)
			}
		default:
			t.Errorf("there is no error where %q is wanted", want)
		}
	}
}

func TestNoticeOfABatch(t *testing.T) {
	good := wire.BatchAccepted{First: 1, Count: 1}
	s := idle()
	if err := s.acceptedBatch([]int{0}, good.Body()); err != nil || s.accepted.Load() != 1 || len(s.free) != 1 {
		t.Errorf("%v, accepted %d, %d slots free", err, s.accepted.Load(), len(s.free))
	}
	refused := good
	refused.Refuse("0", wire.Errorf(wire.CodeTooLarge, "too large"))
	short := wire.BatchAccepted{First: 1, Count: 2}
	for want, notice := range map[string][]byte{
		"not all were accepted: \"{\\\"status\\\"": short.Body(),
		"too_large":          refused.Body(),
		"not one of a batch": wire.Accepted(1, false),
	} {
		if err := idle().acceptedBatch([]int{0}, notice); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want one with %q", err, want)
		}
	}
}

func TestCreditThatIsNotThere(t *testing.T) {
	c := newCredit(1)
	if !c.tryTake() || c.tryTake() {
		t.Error("a credit of one is not good for one")
	}
	c.give(1)
	if !c.tryTake() {
		t.Error("what is given cannot be taken")
	}
}
