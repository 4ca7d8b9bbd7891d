package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
)

var acceptedBodies = []struct {
	body, want string
	found      bool
}{
	{`{"accepted_reply":"a.b"}`, "a.b", true},
	{`{"accepted-reply":"a.b"}`, "a.b", true},
	{" \t\r\n{ \"accepted_reply\" : \"a.b\" } \n", "a.b", true},
	{`{"accepted-reply":"hyphen","accepted_reply":"underscore"}`, "underscore", true},
	{`{"accepted_reply":"underscore","accepted-reply":"hyphen"}`, "underscore", true},
	{`{"accepted_reply":null,"accepted-reply":"hyphen"}`, "hyphen", true},
	{`{"accepted_reply":"first","accepted_reply":"last"}`, "last", true},
	{`{"accepted_reply":"first","accepted_reply":5}`, "", false},
	{`{"accepted_reply":""}`, "", true},
	{`{"a":[1,-2.5e+3,{"b":{}},[]],"accepted_reply":"x","c":{"d":"}"},"e":true,"f":false,"g":null}`, "x", true},
	{`{"accepted_reply":"a\u002eb\/c\"\\"}`, `a.b/c"\`, true},
	{`{"accepted_reply":"grö` + "\u00df" + `e"}`, "größe", true},
	{"{\"accepted_reply\":\"a\xff\"}", "a\xff", true},
	{"{\"accepted_reply\":\"a\xff\\n\"}", `a` + "\xff" + `\n`, true},
	{`{"accepted\u005freply":"escaped key"}`, "", false},
	{`{"Accepted_Reply":"x"}`, "", false},
	{`{"accepted_reply ":"x"}`, "", false},
	{`{"accepted.reply":"x"}`, "", false},
	{`{"x":{"accepted_reply":"nested"}}`, "", false},
	{`{"x":"accepted_reply"}`, "", false},
	{`{"x":"\"accepted_reply\":\"y\""}`, "", false},
	{`{"accepted":"x","accepted_reply":"y"}`, "y", true},
	{`{"accepted_reply":1}`, "", false},
	{`{"accepted_reply":{"a":"b"}}`, "", false},
	{`{"accepted_reply":["a"]}`, "", false},
	{`[{"accepted_reply":"x"}]`, "", false},
	{`"accepted_reply"`, "", false},
	{`accepted_reply`, "", false},
	{``, "", false},
	{`  `, "", false},
	{`{`, "", false},
	{`{}`, "", false},
	{`null`, "", false},
}

// Each of these would name a subject if the body were not looked at to its end.
var brokenBodies = []string{
	`{"accepted_reply":"x"`, `{"accepted_reply":"x"}}`, `{"accepted_reply":"x"} y`, `{"accepted_reply":"x",}`,
	`{"accepted_reply":"x" "y":1}`, `{"accepted_reply":"x","y"}`, `{"accepted_reply":"x","y":}`, `{"accepted_reply":"x",1:2}`,
	`{"accepted_reply":"x","y":01}`, `{"accepted_reply":"x","y":-}`, `{"accepted_reply":"x","y":1.}`,
	`{"accepted_reply":"x","y":.5}`, `{"accepted_reply":"x","y":1e}`, `{"accepted_reply":"x","y":1e+}`,
	`{"accepted_reply":"x","y":+1}`, `{"accepted_reply":"x","y":tru}`, `{"accepted_reply":"x","y":nul}`,
	`{"accepted_reply":"x","y":"\x"}`, `{"accepted_reply":"x","y":"\u12g4"}`, `{"accepted_reply":"x","y":"\u12`,
	`{"accepted_reply":"x","y":"\u123`,
	`{"accepted_reply":"x","y":"\`, "{\"accepted_reply\":\"x\",\"y\":\"\n\"}", `{"accepted_reply":"x","y":[1,]}`,
	`{"accepted_reply":"x","y":[1 2]}`, `{"accepted_reply":"x","y":[}`, `{"accepted_reply":"x","y":[1}`,
	`{"accepted_reply":"x","y":{]}`, `{"accepted_reply":"x","y":{"a":1]}`, `{"accepted_reply":"x","y":{"a":1,}}`,
	`{"accepted_reply":"x","y":{"a"}}`, `{"accepted_reply":"x","y":{1:1}}`, `{"accepted_reply":"x","y":[`,
	`{"accepted_reply":"x","y":{`, `{"accepted_reply":"x","y":{"a":`, `{"accepted_reply":"x","y":[1`,
	`{'accepted_reply':"x"}`, `{"accepted_reply":"x","y":NaN}`, "\ufeff" + `{"accepted_reply":"x"}`,
	`{"accepted_reply":"x"}{"accepted_reply":"y"}`, `{,"accepted_reply":"x"}`,
}

func TestAcceptedReply(t *testing.T) {
	for _, c := range acceptedBodies {
		if got, found := AcceptedReply([]byte(c.body)); got != c.want || found != c.found {
			t.Errorf("AcceptedReply(%q) = %q, %v, want %q, %v", c.body, got, found, c.want, c.found)
		}
	}
}

func TestAcceptedReplyWantsValidJSON(t *testing.T) {
	for _, body := range brokenBodies {
		if json.Valid([]byte(body)) {
			t.Fatalf("%q is valid: it does not belong here", body)
		}
		if got, found := AcceptedReply([]byte(body)); found {
			t.Errorf("AcceptedReply(%q) = %q", body, got)
		}
	}
}

func TestAcceptedReplyDepth(t *testing.T) {
	for _, brackets := range []string{"[]", `{"a":`} {
		for _, c := range []struct {
			depth int
			found bool
		}{{1, true}, {63, true}, {64, true}, {65, true}, {maxDepth - 1, true}, {maxDepth, false}, {1 << 20, false}} {
			body := nested(brackets, c.depth)
			if _, found := AcceptedReply(body); found != c.found {
				t.Errorf("%d deep in %q: found %v, want %v", c.depth, brackets, found, c.found)
			}
			if c.depth < 1<<20 && json.Valid(body) != c.found {
				t.Errorf("%d deep in %q: encoding/json does not agree", c.depth, brackets)
			}
		}
	}
}

// nested gives a body with the key and, before it, a value of that depth.
func nested(brackets string, depth int) []byte {
	open, inner, end := "[", "", "]"
	if brackets != "[]" {
		open, inner, end = brackets, "0", "}"
	}
	return []byte(`{"x":` + strings.Repeat(open, depth) + inner + strings.Repeat(end, depth) + `,"accepted_reply":"yes"}`)
}

func TestAcceptedReplyAllocations(t *testing.T) {
	for _, c := range []struct {
		name string
		body []byte
		want float64
	}{
		{"without the name", ordinaryBody(1000), 0},
		{"no object", []byte(`["accepted_reply"]`), 0},
		{"nested only", []byte(`{"x":{"accepted_reply":"y"}}`), 0},
		{"deep", nested("[]", 5000), 1},
		{"found", acceptedBody(1000), 1},
	} {
		if got := testing.AllocsPerRun(100, func() { AcceptedReply(c.body) }); got != c.want {
			t.Errorf("%s: %v allocations, want %v", c.name, got, c.want)
		}
	}
}

// oracle is AcceptedReply by encoding/json, token by token.
func oracle(body []byte) (string, bool) {
	if !json.Valid(body) {
		return "", false
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if first, err := dec.Token(); err != nil || first != json.Delim('{') {
		return "", false
	}
	values := map[string]*string{}
	for dec.More() {
		from := dec.InputOffset()
		if _, err := dec.Token(); err != nil {
			panic(err)
		}
		key := string(bytes.TrimLeft(body[from:dec.InputOffset()], ", \t\r\n"))
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			panic(err)
		}
		values[key] = nil
		var s string
		if raw[0] == '"' && json.Unmarshal(raw, &s) == nil {
			values[key] = &s
		}
	}
	for _, key := range []string{keyAccepted, keyAcceptedHyphen} {
		if v := values[key]; v != nil {
			return *v, true
		}
	}
	return "", false
}

func FuzzAcceptedReply(f *testing.F) {
	for _, c := range acceptedBodies {
		f.Add([]byte(c.body))
	}
	for _, body := range brokenBodies {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, found := AcceptedReply(body)
		want, wanted := oracle(body)
		if found != wanted {
			t.Fatalf("AcceptedReply(%q): found %v, want %v", body, found, wanted)
		}
		// Bytes that are not UTF-8 stay as they are, on purpose; encoding/json replaces them.
		if strings.ToValidUTF8(got, "") == got && got != want {
			t.Errorf("AcceptedReply(%q) = %q, want %q", body, got, want)
		}
		if strings.ToValidUTF8(got, "") != got && CheckSubject(got) == nil {
			t.Errorf("AcceptedReply(%q) = %q, which the subject check takes", body, got)
		}
	})
}

// FuzzAcceptedReplyAround puts any bytes before and after the key, so that the scanner proper is reached each time.
func FuzzAcceptedReplyAround(f *testing.F) {
	f.Add([]byte(`"a":[1,{"b":null}],`), []byte(`,"c":-1.5e3`))
	f.Add([]byte(`"accepted-reply":"z",`), []byte(``))
	f.Add([]byte(`"accepted_reply":{},`), []byte(`,"accepted_reply":"\u00e9"`))
	f.Fuzz(func(t *testing.T, before, after []byte) {
		body := fmt.Appendf(nil, `{%s"accepted_reply":"x"%s}`, before, after)
		got, found := AcceptedReply(body)
		want, wanted := oracle(body)
		if found != wanted || strings.ToValidUTF8(got, "") == got && got != want {
			t.Fatalf("AcceptedReply(%q) = %q, %v, want %q, %v", body, got, found, want, wanted)
		}
	})
}

func ordinaryBody(size int) []byte {
	return fmt.Appendf(nil, `{"order":{"id":12345,"lines":[1,2,3]},"text":"%s"}`, repeat("accepted by us ", size-53))
}

func acceptedBody(size int) []byte {
	return fmt.Appendf(nil, `{"accepted_reply":"_INBOX.Jx8dK2mQ9vR4.1","order":{"id":12345,"lines":[1,2,3]},"text":"%s"}`,
		repeat("some ordinary text ", size-93))
}

func BenchmarkAcceptedReply(b *testing.B) {
	for _, size := range []int{200, 1000, 100_000} {
		for _, c := range []struct {
			name string
			body []byte
		}{
			{"absent", ordinaryBody(size)},
			{"present", acceptedBody(size)},
			{"binary", bytes.Repeat([]byte{0xff}, size)},
		} {
			b.Run(fmt.Sprintf("%s/%d", c.name, size), func(b *testing.B) {
				b.SetBytes(int64(len(c.body)))
				b.ReportAllocs()
				for b.Loop() {
					AcceptedReply(c.body)
				}
			})
		}
	}
}

// BenchmarkAcceptedReplyByDecoding is what AcceptedReply is measured against: finding the field with encoding/json.
func BenchmarkAcceptedReplyByDecoding(b *testing.B) {
	body := acceptedBody(1000)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		var v struct {
			Reply string `json:"accepted_reply"`
		}
		if err := json.Unmarshal(body, &v); err != nil && err != io.EOF {
			b.Fatal(err)
		}
	}
}

func ExampleAcceptedReply() {
	fmt.Println(AcceptedReply([]byte(`{"accepted_reply":"orders.accepted","amount":3}`)))
	fmt.Println(AcceptedReply([]byte(`not JSON, and that is fine`)))
	// Output:
	// orders.accepted true
	//  false
}
