package pool

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"

	"stint/processor"
	"stint/wire"
)

// workLine is a work line as a child reads it.
type workLine struct {
	Type     string              `json:"type"`
	ID       string              `json:"id"`
	Attempt  int                 `json:"attempt"`
	Queue    string              `json:"queue"`
	Deadline int64               `json:"deadline"`
	Headers  map[string][]string `json:"headers"`
	Body     *string             `json:"body"`
	Body64   []byte              `json:"body64"`
}

func readWork(t testing.TB, line []byte) workLine {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	var w workLine
	if err := d.Decode(&w); err != nil {
		t.Fatalf("%v\n%s", err, line)
	}
	if n := bytes.IndexByte(line, '\n'); n != len(line)-1 {
		t.Fatalf("a newline at %d of %d", n, len(line))
	}
	return w
}

func FuzzWorkLine(f *testing.F) {
	f.Add("8k", "orders", "K", "v", []byte("text"), int64(1795000000000))
	f.Add("1", "a", "", "", []byte("\"\\\n\r\t\x00\x1f\x7f\u2028</script>"), int64(0))
	f.Add("1", "a", "X-\"", "\xff", []byte("\xff\xfe"), int64(5))
	f.Fuzz(func(t *testing.T, id, queue, name, value string, body []byte, ms int64) {
		w := &processor.Work{Item: id, Address: queue, Attempt: 3, Body: body}
		if name != "" {
			w.Header = nats.Header{name: {value, "second"}}
		}
		line, at := appendWork(nil, w, ms > 0)
		setDeadline(line, at, ms)
		got := readWork(t, line)
		clean := func(s string) string { return string([]rune(s)) }
		want := workLine{Type: "work", ID: clean(id), Attempt: 3, Queue: clean(queue)}
		if ms > 0 {
			want.Deadline = min(max(ms, 1e12), 1e13-1)
		}
		if name != "" {
			want.Headers = map[string][]string{clean(name): {clean(value), "second"}}
		}
		if utf8.Valid(body) {
			text := string(body)
			want.Body = &text
		} else {
			want.Body64 = body
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestStartLine(t *testing.T) {
	got := string(appendStart(nil, "or\"ders", 12, true))
	if want := `{"type":"start","queue":"or\"ders","child":12,"first":true}` + "\n"; got != want {
		t.Errorf("got %s", got)
	}
}

// reference reads an answer with encoding/json.
func reference(line []byte) (answer, bool) {
	if !utf8.Valid(line) || !json.Valid(line) {
		return answer{}, false
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(line, &fields) != nil || fields == nil {
		return answer{}, false
	}
	var a answer
	ok := true
	text := func(key string) (s string) {
		if raw, given := fields[key]; given {
			ok = ok && raw[0] == '"' && json.Unmarshal(raw, &s) == nil
		}
		return s
	}
	kinds := map[string]answerKind{
		"ready": answerReady, "progress": answerProgress, "extend": answerExtend, "done": answerDone,
		"failed": answerFailed, "stats": answerStats, "log": answerLog,
	}
	a.kind = kinds[text("type")]
	a.id, a.message, a.code, a.level = text("id"), text("message"), text("code"), text("level")
	body, body64 := text("body"), text("body64")
	_, plainBody := fields["body"]
	_, coded := fields["body64"]
	decoded, err := base64.StdEncoding.DecodeString(body64)
	ok = ok && a.kind != 0 && err == nil && (!plainBody || !coded)
	a.body = decoded
	if plainBody {
		a.body = []byte(body)
	}
	if raw, given := fields["headers"]; given {
		ok = ok && json.Unmarshal(raw, &a.headers) == nil
	}
	if raw, given := fields["retry"]; given {
		var retry bool
		ok = ok && raw[0] != 'n' && json.Unmarshal(raw, &retry) == nil
		a.final = !retry
	}
	if raw, given := fields["delay"]; given {
		var ms float64
		ok = ok && raw[0] != 'n' && json.Unmarshal(raw, &ms) == nil && ms >= 0
		a.delayed, a.delay = true, time.Duration(math.Ceil(min(ms, float64(wire.MaxDelay.Milliseconds()))))*time.Millisecond
	}
	if a.kind == answerStats {
		a.stats = line
		ok = ok && len(line) <= maxStats
	}
	return a, ok
}

// oneOfEach says whether no key is given twice; encoding/json takes the last and so do we, except for wrong ones before it.
func oneOfEach(line []byte) bool {
	d := json.NewDecoder(bytes.NewReader(line))
	seen := map[string]bool{}
	if _, err := d.Token(); err != nil {
		return true
	}
	for d.More() {
		tok, err := d.Token()
		if err != nil {
			return true
		}
		key := fmt.Sprint(tok)
		if seen[key] {
			return false
		}
		seen[key] = true
		var skip json.RawMessage
		if d.Decode(&skip) != nil {
			return true
		}
	}
	return true
}

func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		`{"type":"ready"}`, ` { "type" : "done" , "id" : "8k" , "body" : "a\u00e4\ud83d\ude00\ud83d\"\\\/\b\f\n\r\t" } `,
		`{"type":"done","body64":"/v8="}`, `{"type":"done","body":"a","body64":""}`, `{"type":"done","headers":{"K":["v","w"]}}`,
		`{"type":"failed","message":"no","code":"E1","retry":false,"delay":1.5e3}`, `{"type":"failed","delay":-1}`, `{"type":"failed","delay":1e999}`,
		`{"type":"stats","memory":123,"deep":[{"a":[1,-0.5e-7,true,false,null,""]}]}`, `{"type":"log","level":"info","message":"x"}`,
		`{"type":"done"`, `{"type":"done",}`, `{"type":"done"}x`, `[]`, `null`, `{}`, ``, `{"type":null}`, `{"type":"done","body":null}`,
		`{"type":"done","n":01}`, `{"type":"done","n":1.}`, `{"type":"done","n":.5}`, `{"type":"done","n":1e}`, `{"type":"done","n":+1}`, `{"type":"done","n":tru}`,
		"{\"type\":\"done\",\"body\":\"\xff\"}", "{\"type\":\"done\",\"body\":\"a\tb\"}", `{"type":"done","body":"\ud83d\u0041\udc00"}`, `{"type":"done","\u0062ody":"x"}`,
		`{"type":"done","retry":"x"}`, `{"type":"done","headers":null}`, `{"type":"done","headers":[]}`, `{"type":"done","body":"\u12"}`, `{"type":"done","body":"\x"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		got, err := decodeAnswer(bytes.Clone(line))
		if !oneOfEach(line) || bytes.Count(line, []byte("[")) > maxDepth || bytes.Count(line, []byte("{")) > maxDepth {
			return
		}
		want, ok := reference(line)
		if ok != (err == nil) {
			t.Fatalf("error is %v, but encoding/json says %v\n%q", err, ok, line)
		}
		if err != nil {
			return
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(answer{}), cmpopts.EquateEmpty()); diff != "" {
			t.Error(diff)
		}
	})
}

// The answer keeps nothing of the line, whose memory is used again.
func TestAnswerSharesNothing(t *testing.T) {
	line := []byte(`{"type":"stats","id":"8k","body":"text","headers":{"K":["v"]},"message":"m","code":"c","level":"l"}`)
	a, err := decodeAnswer(line)
	if err != nil {
		t.Fatal(err)
	}
	before := fmt.Sprintf("%+v", a)
	for i := range line {
		line[i] = 'x'
	}
	if after := fmt.Sprintf("%+v", a); after != before {
		t.Errorf("%s became %s", before, after)
	}
}

func TestAnswerErrorsSayWhatIsWrong(t *testing.T) {
	for line, want := range map[string]string{
		`hello`:                                 "is no JSON object",
		`{"type":"finished"}`:                   `has the unknown type "finished"`,
		`{"id":"8k"}`:                           `has no "type"`,
		`{"type":"done","body":{"a":1}}`:        `has a "body" that is no string`,
		`{"type":"done","body64":"?"}`:          "has a body64 that is no base64",
		`{"type":"failed","delay":"1s"}`:        "has a delay that is no number of milliseconds",
		"{\"type\":\"done\",\"body\":\"\xe4\"}": "is not UTF-8",
		`{"type":"stats","x":"` + strings.Repeat("y", maxStats) + `"}`:                    "at most 4096",
		`{"type":"done","x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`: "is no JSON object",
	} {
		if _, err := decodeAnswer([]byte(line)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want %q", line, err, want)
		}
	}
}

func BenchmarkWorkLine(b *testing.B) {
	w := &processor.Work{Item: "e13wu1oh", Attempt: 1, Address: "orders", Body: []byte(strings.Repeat("text and ", 14))}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = appendWork(buf[:0], w, true)
	}
}

func BenchmarkAnswer(b *testing.B) {
	line := []byte(`{"type":"done","id":"e13wu1oh","body":"` + strings.Repeat("text and ", 14) + `"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeAnswer(line); err != nil {
			b.Fatal(err)
		}
	}
}
