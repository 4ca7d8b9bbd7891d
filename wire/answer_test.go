package wire

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestParseAnswer(t *testing.T) {
	micro := head(HeaderErrorCode, "500", HeaderError, "no such order")
	failed := func(body string) Answer {
		return Answer{Kind: Failed, Code: "500", Reason: "no such order", Body: []byte(body)}
	}
	delayed := func(d time.Duration) Answer { return Answer{Kind: Nak, Delay: d, HasDelay: true} }
	body := func(kind AnswerKind, s string) Answer { return Answer{Kind: kind, Body: []byte(s)} }
	for _, c := range []struct {
		name  string
		h     Header
		body  string
		reply string
		want  Answer
	}{
		{"body", nil, "result", "", body(Done, "result")},
		{"empty", nil, "", "", body(Done, "")},
		{"other headers", head("traceparent", "x"), "result", "", body(Done, "result")},

		{"no responders", head("Status", "503"), "", "", Answer{Kind: NoResponders}},
		{"503 with a body", head("Status", "503"), "x", "", body(Done, "x")},
		{"other status", head("Status", "404"), "", "", body(Done, "")},
		{"no responders first", head("Status", "503", HeaderErrorCode, "1"), "", "r", Answer{Kind: NoResponders}},

		{"micro error", micro, "detail", "", failed("detail")},
		{"micro error over words", micro, "+ACK", "r", failed("+ACK")},
		{"micro error, code only", head(HeaderErrorCode, "500"), "", "", Answer{Kind: Failed, Code: "500", Body: []byte{}}},
		{"micro error, text only", head("nats-service-error", "x"), "", "", Answer{Kind: Failed, Reason: "x", Body: []byte{}}},
		{"micro error, both empty", head(HeaderErrorCode, "", HeaderError, ""), "a", "", body(Done, "a")},
		{
			"retry delay", head(HeaderError, "x", HeaderRetryDelay, "1500"), "", "",
			Answer{Kind: Failed, Reason: "x", Delay: 1500 * time.Millisecond, HasDelay: true, Body: []byte{}},
		},
		{
			"retry delay 0", head(HeaderError, "x", HeaderRetryDelay, "0"), "", "",
			Answer{Kind: Failed, Reason: "x", HasDelay: true, Body: []byte{}},
		},
		{
			"retry delay cut", head(HeaderError, "x", HeaderRetryDelay, "999999999999999999"), "", "",
			Answer{Kind: Failed, Reason: "x", Delay: MaxDelay, HasDelay: true, Body: []byte{}},
		},
		{"retry delay spoilt", head(HeaderError, "x", HeaderRetryDelay, "-1"), "", "", Answer{Kind: Failed, Reason: "x", Body: []byte{}}},
		{"retry delay alone", head(HeaderRetryDelay, "5"), "a", "", body(Done, "a")},

		{"ack", nil, "+ACK", "", Answer{Kind: Done}},
		{"ack with confirmation", nil, "+ACK", "_INBOX.x", Answer{Kind: Done}},
		{"ack with more", nil, "+ACK!", "", body(Done, "+ACK!")},
		{"ack in lower case", nil, "+ack", "", body(Done, "+ack")},
		{"working", nil, "+WPI", "", Answer{Kind: Working}},
		{"working over progress", head(HeaderProgress, "true"), "+WPI", "r", Answer{Kind: Working}},
		{"working with more", nil, "+WPI ", "", body(Done, "+WPI ")},
		{"nak", nil, "-NAK", "", Answer{Kind: Nak}},
		{"nak delay", nil, `-NAK {"delay":5000000}`, "", delayed(5 * time.Millisecond)},
		{"nak delay close", nil, `-NAK{"delay": 5000000}`, "", delayed(5 * time.Millisecond)},
		{"nak delay exponent", nil, `-NAK {"delay":2e9}`, "", delayed(2 * time.Second)},
		{"nak delay 0", nil, `-NAK {"delay":0}`, "", delayed(0)},
		{"nak delay cut", nil, `-NAK {"delay":1e300}`, "", delayed(MaxDelay)},
		{"nak duration", nil, "-NAK 1m30s\n", "", delayed(90 * time.Second)},
		{"nak long duration", nil, "-NAK 10000h", "", delayed(MaxDelay)},
		{"nak negative", nil, `-NAK {"delay":-5}`, "", Answer{Kind: Nak}},
		{"nak negative fraction", nil, `-NAK {"delay":-0.5}`, "", Answer{Kind: Nak}},
		{"nak negative duration", nil, `-NAK -5s`, "", Answer{Kind: Nak}},
		{"nak string delay", nil, `-NAK {"delay":"5s"}`, "", Answer{Kind: Nak}},
		{"nak no delay", nil, `-NAK {}`, "", Answer{Kind: Nak}},
		{"nak null delay", nil, `-NAK {"delay":null}`, "", Answer{Kind: Nak}},
		{"nak broken", nil, `-NAK {"delay":5`, "", Answer{Kind: Nak}},
		{"nak too big a number", nil, `-NAK {"delay":1e999}`, "", Answer{Kind: Nak}},
		{"nak junk", nil, "-NAK junk", "", Answer{Kind: Nak}},
		{"nak long junk", nil, "-NAK {" + repeat(" ", 1000) + `"delay":5}`, "", Answer{Kind: Nak}},
		{"naked", nil, "-NAKED", "", body(Done, "-NAKED")},
		{"term", nil, "+TERM", "", Answer{Kind: Term}},
		{"term reason", nil, "+TERM no such order ", "", Answer{Kind: Term, Reason: "no such order"}},
		{"term bytes", nil, "+TERM a\xffb", "", Answer{Kind: Term, Reason: "a\ufffdb"}},
		{"term long", nil, "+TERM " + strings.Repeat("é", 2000), "", Answer{Kind: Term, Reason: strings.Repeat("é", MaxMessage/2)}},
		{"term odd", nil, "+TERM a" + strings.Repeat("😀", 2000), "", Answer{Kind: Term, Reason: "a" + strings.Repeat("😀", MaxMessage/4-1)}},
		{"terminal", nil, "+TERMINAL", "", body(Done, "+TERMINAL")},
		{"number", nil, "-1", "", body(Done, "-1")},

		{"progress", head(HeaderProgress, "true"), "half", "", body(Progress, "half")},
		{"progress over turn", head("stint-progress", "TRUE"), "half", "r", body(Progress, "half")},
		{"progress false", head(HeaderProgress, "False"), "all", "", body(Done, "all")},
		{"progress otherwise", head(HeaderProgress, "1"), "half", "", body(Progress, "half")},
		{"turn", nil, "which?", "_INBOX.x", body(Turn, "which?")},
		{"turn with headers", head("a", "b"), "", "_INBOX.x", body(Turn, "")},
	} {
		got := ParseAnswer(c.h, []byte(c.body), c.reply)
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestHeaderLookupIsSteady(t *testing.T) {
	for range 20 {
		if got := lookup(head("stint-PROGRESS", "b", "Stint-PROGRESS", "a", "stint-progress", "c"), HeaderProgress); got != "a" {
			t.Fatalf("got %q, want the first name in byte order", got)
		}
		if got := lookup(head("STINT-PROGRESS", "a", HeaderProgress, "exact"), HeaderProgress); got != "exact" {
			t.Fatalf("got %q, want the exact name", got)
		}
	}
}

func TestAnswerBodies(t *testing.T) {
	for _, c := range []struct {
		body []byte
		want string
	}{
		{NakBody(0), "-NAK"},
		{NakBody(-time.Second), "-NAK"},
		{NakBody(time.Second), `-NAK {"delay":1000000000}`},
		{TermBody(""), "+TERM"},
		{TermBody("  "), "+TERM"},
		{TermBody("no such order"), "+TERM no such order"},
	} {
		if string(c.body) != c.want {
			t.Errorf("got %q, want %q", c.body, c.want)
		}
	}
	if a := ParseAnswer(nil, NakBody(MaxDelay), ""); a.Kind != Nak || a.Delay != MaxDelay || !a.HasDelay {
		t.Errorf("NakBody is read as %+v", a)
	}
}

func TestKindNames(t *testing.T) {
	for kind, want := range map[AnswerKind]string{
		0: "none", Done: "done", Working: "working", Nak: "nak", Term: "term", Failed: "failed", Progress: "progress",
		Turn: "turn", NoResponders: "no_responders", 99: "kind_99",
	} {
		if kind.String() != want {
			t.Errorf("kind %d is %q, want %q", kind, kind, want)
		}
	}
}

func FuzzParseAnswer(f *testing.F) {
	f.Add("", "", []byte(`-NAK {"delay":5}`), "")
	f.Add(HeaderErrorCode, "500", []byte("x"), "")
	f.Add(HeaderRetryDelay, "5", []byte("+TERM why"), "r")
	f.Add("Status", "503", []byte(nil), "")
	f.Add(HeaderProgress, "true", []byte("half"), "r")
	f.Fuzz(func(t *testing.T, name, value string, body []byte, reply string) {
		var h Header
		if name != "" {
			h = head(name, value)
		}
		a := ParseAnswer(h, body, reply)
		if a.Kind < Done || a.Kind > NoResponders {
			t.Fatalf("kind %d", a.Kind)
		}
		if a.Delay < 0 || a.Delay > MaxDelay || !a.HasDelay && a.Delay != 0 {
			t.Errorf("delay %v, %v", a.Delay, a.HasDelay)
		}
		for _, s := range []string{a.Reason, a.Code} {
			if len(s) > MaxMessage || !utf8.ValidString(s) {
				t.Errorf("a text is too long or no UTF-8: %q", s)
			}
		}
		if a.Body != nil && string(a.Body) != string(body) {
			t.Errorf("the body was changed to %q", a.Body)
		}
		if !strings.HasPrefix(string(body), "+") && a.Kind == Done && string(a.Body) != string(body) {
			t.Errorf("a body was lost: %q", body)
		}
	})
}

func FuzzAnswerBodies(f *testing.F) {
	f.Add(int64(5), "why")
	f.Fuzz(func(t *testing.T, ns int64, reason string) {
		want := min(max(time.Duration(ns), 0), MaxDelay)
		if a := ParseAnswer(nil, NakBody(time.Duration(ns)), ""); a.Kind != Nak || a.Delay != want {
			t.Errorf("a delay of %d is read as %+v", ns, a)
		}
		if a := ParseAnswer(nil, TermBody(reason), ""); a.Kind != Term || a.Reason != strings.TrimSpace(text(reason)) {
			t.Errorf("reason %q is read as %+v", reason, a)
		}
	})
}

func TestParseAnswerDoesNotAllocate(t *testing.T) {
	traced := head("traceparent", "x", "tracestate", "y")
	for _, body := range [][]byte{[]byte("result"), []byte("+ACK"), []byte("+WPI"), []byte("-NAK"), nil} {
		noAllocs(t, func() { ParseAnswer(nil, body, "") })
		noAllocs(t, func() { ParseAnswer(traced, body, "r") })
	}
}

func BenchmarkParseAnswer(b *testing.B) {
	for _, c := range []struct {
		name string
		h    Header
		body string
	}{
		{"body", nil, `{"status":"ok"}`},
		{"ack", nil, "+ACK"},
		{"traced", head("traceparent", "x", "tracestate", "y"), `{"status":"ok"}`},
		{"nak", nil, `-NAK {"delay":5000000}`},
		{"failed", head(HeaderErrorCode, "500", HeaderError, "no such order"), ""},
	} {
		body := []byte(c.body)
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				ParseAnswer(c.h, body, "")
			}
		})
	}
}

func ExampleParseAnswer() {
	for _, body := range []string{"any result", "+ACK", `-NAK {"delay":5000000000}`, "+TERM no such order"} {
		a := ParseAnswer(nil, []byte(body), "")
		fmt.Printf("%s %v %q %q\n", a.Kind, a.Delay, a.Reason, a.Body)
	}
	// Output:
	// done 0s "" "any result"
	// done 0s "" ""
	// nak 5s "" ""
	// term 0s "no such order" ""
}
