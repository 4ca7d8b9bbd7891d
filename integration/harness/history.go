package harness

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"stint/wire"
)

// Op is one item and everything its sender was told of it.
type Op struct {
	ID      string
	Sum     uint32 // of the body
	MsgID   bool   // it has a Nats-Msg-Id, so it may be sent more than once
	Sends   int
	SentAt  time.Time // the last time
	Accepts []Accept
	Rejects []string // codes
	Finals  []Final
}

// Accept is an accept notice.
type Accept struct {
	Item      string
	Duplicate bool
	At        time.Time
}

// Final is a message on the reply subject that is no rejection.
type Final struct {
	At     time.Time
	Marked bool // Stint-Redelivered
	Code   string
	Body   string
	Answer Answer
}

// final codes end an item that was accepted; every other code keeps it out.
var finalCodes = []wire.Code{wire.CodeDead, wire.CodeExpired, wire.CodeCancelled, wire.CodeUnavailable}

func isFinal(code string) bool { return slices.Contains(finalCodes, wire.Code(code)) }

// Accepted: somebody said that the broker has it. A final says so too.
func (o *Op) Accepted() bool { return len(o.Accepts)+len(o.Finals) > 0 }

// Rejected: it was sent once and definitely kept out.
func (o *Op) Rejected() bool {
	return o.Sends == 1 && len(o.Rejects) > 0 && !slices.Contains(o.Rejects, string(wire.CodeUnconfirmed))
}

// Verdict is what a history comes to. Lost, Unexpected and Wrong must be empty.
type Verdict struct {
	Sent, Accepted, Rejected, Unknown int
	Recovered                         int // unknown to the sender, but done
	Resent                            int // sends of an item beyond its first
	Delivered, Redelivered            int // deliveries, and those of an item beyond its first
	Marked                            int // second finals that say that they may be
	Lost, Unexpected, Wrong           []string
}

// OK: nothing was lost, unexpected or wrong.
func (v *Verdict) OK() bool { return len(v.Lost)+len(v.Unexpected)+len(v.Wrong) == 0 }

func (v *Verdict) String() string {
	s := fmt.Sprintf("%d sent (and %d resent), %d accepted, %d rejected, %d unknown of which %d done; %d deliveries, %d of them again; "+
		"%d marked second finals; %d lost, %d unexpected, %d wrong", v.Sent, v.Resent, v.Accepted, v.Rejected, v.Unknown, v.Recovered,
		v.Delivered, v.Redelivered, v.Marked, len(v.Lost), len(v.Unexpected), len(v.Wrong))
	for _, list := range [][]string{v.Lost, v.Unexpected, v.Wrong} {
		for _, line := range list[:min(len(list), 10)] {
			s += "\n  " + line
		}
	}
	return s
}

// again is how long after a final a delivery of its item may still come in that had left the broker before. What comes
// later was given out by a broker that had forgotten it.
const again = 500 * time.Millisecond

// Judge reads the history of some items after everything has ended. Items still on their way count as lost.
func Judge(ops []*Op, events []Event) *Verdict {
	v := &Verdict{}
	byID := make(map[string]*Op, len(ops))
	for _, o := range ops {
		if byID[o.ID] != nil {
			v.wrong("%s: two items have this id", o.ID)
		}
		byID[o.ID] = o
	}
	deliveries, answers := map[string][]Event{}, map[string][]Event{}
	for _, e := range events {
		switch e.Kind {
		case Got:
			deliveries[e.ID] = append(deliveries[e.ID], e)
		case Answered:
			answers[e.ID] = append(answers[e.ID], e)
		}
	}
	for id, got := range deliveries {
		if byID[id] == nil {
			v.unexpected("%s: delivered to %s, but never sent", id, got[0].By)
		}
	}
	for _, o := range ops {
		v.judge(o, deliveries[o.ID], answers[o.ID])
	}
	return v
}

func (v *Verdict) lost(format string, args ...any) {
	v.Lost = append(v.Lost, fmt.Sprintf(format, args...))
}

func (v *Verdict) wrong(format string, args ...any) {
	v.Wrong = append(v.Wrong, fmt.Sprintf(format, args...))
}

func (v *Verdict) unexpected(format string, args ...any) {
	v.Unexpected = append(v.Unexpected, fmt.Sprintf(format, args...))
}

func (v *Verdict) judge(o *Op, got, answered []Event) {
	v.Sent++
	v.Resent += max(0, o.Sends-1)
	v.Delivered += len(got)
	v.Redelivered += max(0, len(got)-1)
	v.judgeOutcome(o, got, answered)
	v.judgeFinals(o)
	v.judgeDeliveries(o, got)
	v.judgeAccepts(o)
}

// judgeOutcome counts the item and finds what is missing or ought not to be there.
func (v *Verdict) judgeOutcome(o *Op, got, answered []Event) {
	switch {
	case o.Rejected() && o.Accepted():
		v.wrong("%s: both rejected (%s) and accepted", o.ID, strings.Join(o.Rejects, ", "))
	case o.Rejected():
		v.Rejected++
		if len(got) > 0 {
			v.unexpected("%s: rejected (%s), but delivered to %s", o.ID, strings.Join(o.Rejects, ", "), got[0].By)
		}
	case o.Accepted():
		v.Accepted++
		if len(o.Finals) == 0 {
			v.lost("%s: sent last at %s, accepted as %s at %s, no final; delivered%s; answered%s", o.ID, o.SentAt.Format(Clock),
				o.Accepts[0].Item, o.Accepts[0].At.Format(Clock), times(got), times(answered))
		}
	default:
		v.Unknown++
		if len(got) > 0 {
			v.Recovered++
		}
	}
}

// Clock shows times so that they can be compared with the broker's log.
const Clock = "15:04:05.000000"

// times lists events.
func times(events []Event) string {
	s := ""
	for _, e := range events {
		s += fmt.Sprintf(" %s (attempt %d, %s)", e.When().Format(Clock), e.Attempt, e.By)
	}
	if s == "" {
		return " never"
	}
	return s
}

// judgeFinals: there is one, or copies of it that say so; and a processor gave it, to this item.
func (v *Verdict) judgeFinals(o *Op) {
	for i, f := range o.Finals {
		switch {
		case f.Code != "":
			v.unexpected("%s: ended with %s: %s", o.ID, f.Code, f.Body)
		case f.Answer.ID != o.ID:
			v.wrong("%s: the reply is of another item: %s", o.ID, f.Body)
		case f.Answer.Sum != o.Sum:
			v.wrong("%s: the processor got another body: sum %08x, sent %08x", o.ID, f.Answer.Sum, o.Sum)
		}
		if i == 0 {
			continue
		}
		if f.Body != o.Finals[0].Body {
			v.wrong("%s: two different finals: %s and %s", o.ID, o.Finals[0].Body, f.Body)
		}
		if !f.Marked {
			v.wrong("%s: a second final that is not marked: %s", o.ID, f.Body)
			continue
		}
		v.Marked++
	}
}

// judgeDeliveries: what was delivered is what was sent, and nothing is delivered once it is done.
func (v *Verdict) judgeDeliveries(o *Op, got []Event) {
	for _, e := range got {
		if e.Sum != o.Sum {
			v.wrong("%s: delivered to %s with another body: sum %08x, sent %08x", o.ID, e.By, e.Sum, o.Sum)
		}
		if len(o.Finals) == 0 {
			continue
		}
		f := o.Finals[0]
		if late := e.When().Sub(f.At); f.Code == "" && e.Attempt > f.Answer.Attempt && late > again {
			v.wrong("%s: delivered to %s %v after its final had come", o.ID, e.By, late)
		}
	}
}

// judgeAccepts: an item has one id for ever, and is accepted anew only as a duplicate.
func (v *Verdict) judgeAccepts(o *Op) {
	first := 0
	for _, a := range o.Accepts {
		if a.Item != o.Accepts[0].Item {
			v.wrong("%s: accepted as two items, %s and %s", o.ID, o.Accepts[0].Item, a.Item)
		}
		if !a.Duplicate {
			first++
		}
	}
	if first > o.Sends {
		v.wrong("%s: sent %d times, accepted %d times", o.ID, o.Sends, first)
	}
}
