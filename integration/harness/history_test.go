package harness

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// start is when the histories of these tests begin.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// good is an item that was sent, accepted, delivered once and answered.
func good() (*Op, []Event) {
	o := &Op{ID: "a", Sum: 7, Sends: 1, SentAt: start, Accepts: []Accept{{Item: "1"}}}
	o.Finals = []Final{finalOf(o, "p", 1, time.Second)}
	return o, []Event{{Kind: Got, By: "p", ID: "a", Attempt: 1, Sum: 7, At: start.UnixNano()}}
}

func finalOf(o *Op, by string, attempt uint32, after time.Duration) Final {
	return Final{
		At: start.Add(after), Body: fmt.Sprintf("%s by %s at %d", o.ID, by, attempt),
		Answer: Answer{ID: o.ID, By: by, Attempt: attempt, Sum: o.Sum},
	}
}

func marked(f Final) Final {
	f.Marked = true
	return f
}

// TestJudge changes a good history in one way and looks at what the judge says: where, and with which words.
func TestJudge(t *testing.T) {
	late := func(o *Op, events []Event, attempt uint32, after time.Duration) []Event {
		return append(events, Event{Kind: Got, By: "q", ID: o.ID, Attempt: attempt, Sum: o.Sum, At: start.Add(after).UnixNano()})
	}
	for _, c := range []struct {
		name   string
		change func(o *Op, events []Event) []Event
		where  string // lost, unexpected, wrong; empty: all is well
		says   string
	}{
		{"nothing", func(_ *Op, e []Event) []Event { return e }, "", ""},
		{"a marked second final", func(o *Op, e []Event) []Event {
			o.Finals = append(o.Finals, marked(o.Finals[0]))
			return e
		}, "", ""},
		{"delivered again before the final", func(o *Op, e []Event) []Event { return late(o, e, 2, 900*time.Millisecond) }, "", ""},
		{"an earlier attempt arrives late", func(o *Op, e []Event) []Event {
			o.Finals[0].Answer.Attempt = 2
			return late(o, e, 1, time.Minute)
		}, "", ""},
		{"rejected", func(o *Op, _ []Event) []Event {
			o.Accepts, o.Finals, o.Rejects = nil, nil, []string{"queue_full"}
			return nil
		}, "", ""},
		{"unconfirmed, yet done", func(o *Op, e []Event) []Event {
			o.Accepts, o.Rejects = nil, []string{"unconfirmed"}
			return e
		}, "", ""},
		{"unknown and done", func(o *Op, e []Event) []Event {
			o.Accepts, o.Finals = nil, nil
			return e
		}, "", ""},
		{"rejected, then accepted when sent again", func(o *Op, e []Event) []Event {
			o.Rejects, o.Sends, o.MsgID = []string{"shutting_down"}, 2, true
			o.Accepts = append(o.Accepts, Accept{Item: "1", Duplicate: true})
			return e
		}, "", ""},

		{"no final", func(o *Op, e []Event) []Event {
			o.Finals = nil
			return e
		}, "lost", "no final"},
		{"never delivered", func(o *Op, _ []Event) []Event {
			o.Finals = nil
			return nil
		}, "lost", "delivered never"},
		{"delivered but never sent", func(_ *Op, e []Event) []Event {
			return append(e, Event{Kind: Got, By: "p", ID: "z"})
		}, "unexpected", "never sent"},
		{"rejected and delivered", func(o *Op, e []Event) []Event {
			o.Accepts, o.Finals, o.Rejects = nil, nil, []string{"disk_full"}
			return e
		}, "unexpected", "disk_full"},
		{"an error as the final", func(o *Op, e []Event) []Event {
			o.Finals[0].Code = "dead"
			o.Finals[0].Answer = Answer{}
			return e
		}, "unexpected", "dead"},
		{"rejected and accepted", func(o *Op, e []Event) []Event {
			o.Rejects = []string{"busy"}
			return e
		}, "wrong", "both rejected"},
		{"a second final without a mark", func(o *Op, e []Event) []Event {
			o.Finals = append(o.Finals, o.Finals[0])
			return e
		}, "wrong", "not marked"},
		{"two different finals", func(o *Op, e []Event) []Event {
			o.Finals = append(o.Finals, marked(finalOf(o, "q", 2, 2*time.Second)))
			return e
		}, "wrong", "two different finals"},
		{"the reply of another item", func(o *Op, e []Event) []Event {
			o.Finals[0].Answer.ID = "b"
			return e
		}, "wrong", "another item"},
		{"the processor got another body", func(o *Op, e []Event) []Event {
			o.Finals[0].Answer.Sum++
			return e
		}, "wrong", "another body"},
		{"delivered with another body", func(_ *Op, e []Event) []Event {
			e[0].Sum++
			return e
		}, "wrong", "another body"},
		{"delivered after the final", func(o *Op, e []Event) []Event { return late(o, e, 2, 1600*time.Millisecond) }, "wrong", "after its final"},
		{"accepted as two items", func(o *Op, e []Event) []Event {
			o.Sends, o.Accepts = 2, append(o.Accepts, Accept{Item: "2"})
			return e
		}, "wrong", "two items"},
		{"accepted more often than sent", func(o *Op, e []Event) []Event {
			o.Accepts = append(o.Accepts, o.Accepts[0])
			return e
		}, "wrong", "accepted 2 times"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, events := good()
			v := Judge([]*Op{o}, c.change(o, events))
			for where, list := range map[string][]string{"lost": v.Lost, "unexpected": v.Unexpected, "wrong": v.Wrong} {
				said := strings.Join(list, "; ")
				if want := where == c.where; (said != "") != want || want && !strings.Contains(said, c.says) {
					t.Errorf("%s: %q, want %q with %q", where, said, c.where, c.says)
				}
			}
			if v.OK() != (c.where == "") {
				t.Errorf("OK is %v", v.OK())
			}
		})
	}
}

// TestJudgeTwice: an id is used once.
func TestJudgeTwice(t *testing.T) {
	a, events := good()
	b, _ := good()
	if v := Judge([]*Op{a, b}, events); len(v.Wrong) == 0 {
		t.Error("two items of one id pass")
	}
}
