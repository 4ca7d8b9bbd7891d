package wire

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// checkError checks what holds for every error that goes out.
func checkError(t *testing.T, e *Error) {
	t.Helper()
	if e.Code == "" || e.Message == "" {
		t.Errorf("an error without code or message: %+v", e)
	}
	status, ok := ParseStatus(e.Body())
	if !ok || status.Status != "error" || status.Code != string(e.Code) || status.Message == "" {
		t.Errorf("%q is read as %+v, %v", e.Body(), status, ok)
	}
	h := e.Header()
	for name, values := range h {
		if len(values) != 1 || values[0] == "" || !utf8.ValidString(values[0]) || strings.IndexFunc(values[0], unicode.IsControl) >= 0 {
			t.Errorf("header %s is %q", name, values)
		}
	}
	if a := ParseAnswer(h, e.Body(), ""); a.Kind != Failed || a.Code != strconv.Itoa(e.Code.Number()) {
		t.Errorf("the error is read as the answer %+v", a)
	}
}

func TestErrorBody(t *testing.T) {
	e := Errorf(CodeTooLarge, "the body has %d bytes: send at most <%d>", 3, 2)
	want := `{"status":"error","message":"the body has 3 bytes: send at most <2>","code":"too_large"}`
	if got := string(e.Body()); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if e.Error() != "too_large: the body has 3 bytes: send at most <2>" {
		t.Errorf("Error() = %q", e)
	}
	checkError(t, e)
}

func TestErrorHeaderIsOneLine(t *testing.T) {
	for message, want := range map[string]string{
		"plain":             "plain",
		"a\r\nInjected: b":  "a  Injected: b",
		"tab\tand\u2028sep": "tab and sep",
		"\n":                "dead",
		"":                  "dead",
		"\xff":              "\ufffd",
	} {
		h := (&Error{Code: CodeDead, Message: message}).Header()
		if got := h[HeaderError]; len(got) != 1 || got[0] != want {
			t.Errorf("%q became %q, want %q", message, got, want)
		}
		if got := h[HeaderErrorCode]; len(got) != 1 || got[0] != "502" {
			t.Errorf("code header is %q", got)
		}
	}
	if got := (&Error{}).Header()[HeaderError]; got[0] == "" {
		t.Error("an empty error gives an empty header, which means no error")
	}
}

func TestErrorIsBounded(t *testing.T) {
	e := &Error{Code: CodeBusy, Message: strings.Repeat("é\x00", 1<<20)}
	if n := len(e.Body()); n > maxStatusBody {
		t.Errorf("the body has %d bytes", n)
	}
	if n := len(e.Header()[HeaderError][0]); n > MaxMessage {
		t.Errorf("the header has %d bytes", n)
	}
	checkError(t, e)
}

func TestCodesHaveNumbers(t *testing.T) {
	for code, n := range codeNumbers {
		if n < 400 || n > 599 || code.Number() != n {
			t.Errorf("%s has number %d", code, code.Number())
		}
	}
	if len(codeNumbers) != 17 {
		t.Errorf("%d codes have a number, the package comment lists 17", len(codeNumbers))
	}
	if Code("later").Number() != 500 {
		t.Error("an unknown code is not 500")
	}
}

func TestStatusBodies(t *testing.T) {
	for _, c := range []struct {
		body []byte
		text string
		want Status
	}{
		{Accepted(36, false), `{"status":"accepted","id":"10"}`, Status{Status: "accepted", ID: "10"}},
		{Accepted(36, true), `{"status":"accepted","id":"10","duplicate":true}`, Status{Status: "accepted", ID: "10", Duplicate: true}},
		{OK(), `{"status":"ok"}`, Status{Status: "ok"}},
		{
			Errorf(CodeBusy, "wait").Body(), `{"status":"error","message":"wait","code":"busy"}`,
			Status{Status: "error", Message: "wait", Code: "busy"},
		},
	} {
		if string(c.body) != c.text {
			t.Errorf("got %s, want %s", c.body, c.text)
		}
		if got, ok := ParseStatus(c.body); !ok || got != c.want {
			t.Errorf("ParseStatus(%s) = %+v, %v", c.body, got, ok)
		}
	}
}

func TestParseStatusRefuses(t *testing.T) {
	for _, body := range []string{
		"", "x", "[]", "null", "{}", `{"status":"done"}`, `{"status":5}`, `{"status":"ok","id":5}`, `{"status":"ok"`,
		`{"status":"ok","x":"` + repeat("x", maxStatusBody) + `"}`,
	} {
		if got, ok := ParseStatus([]byte(body)); ok || got != (Status{}) {
			t.Errorf("ParseStatus(%.40q) = %+v, %v", body, got, ok)
		}
	}
}

func TestParseRegister(t *testing.T) {
	long := repeat("é", MaxSubject)
	for _, c := range []struct {
		body string
		want Registration
	}{
		{`{"processor":"p.1"}`, Registration{Processor: "p.1", Capacity: 1}},
		{` {"processor" : "p.1" , "capacity" : 10000 } `, Registration{Processor: "p.1", Capacity: MaxCapacity}},
		{`{"capacity":1,"processor":"p\u002e1"}`, Registration{Processor: "p.1", Capacity: 1}},
		{`{"processor":"p.1","batch":1000}`, Registration{Processor: "p.1", Capacity: 1, Batch: MaxBatch}},
		{`{"processor":"p.1","capacity":8,"batch":0}`, Registration{Processor: "p.1", Capacity: 8}},
		{`{"processor":"p","address":"x","Capacity":"ignored","Processor":5}`, Registration{Processor: "p", Capacity: 1}},
		{`{"processor":5,"processor":"last"}`, Registration{Processor: "last", Capacity: 1}},
		{`{"processor":"` + strings.ReplaceAll(long, "é", `\u00e9`) + `"}`, Registration{Processor: long, Capacity: 1}},
	} {
		got, err := ParseRegister([]byte(c.body))
		if err != nil || got != c.want {
			t.Errorf("ParseRegister(%.60s) = %+v, %v, want %+v", c.body, got, err, c.want)
		}
		if p, err := ParseUnregister([]byte(c.body)); err != nil || p != c.want.Processor {
			t.Errorf("ParseUnregister(%.60s) = %q, %v", c.body, p, err)
		}
	}
}

var badProcessors = []struct {
	body string
	code Code
	part string
}{
	{``, CodeBadRequest, "not a JSON object"},
	{`p.1`, CodeBadRequest, "not a JSON object"},
	{`"p.1"`, CodeBadRequest, "not a JSON object"},
	{`null`, CodeBadRequest, "not a JSON object"},
	{`["p"]`, CodeBadRequest, "not a JSON object"},
	{`{"processor":"p"`, CodeBadRequest, "not a JSON object"},
	{`{"processor":"p"} x`, CodeBadRequest, "not a JSON object"},
	{`{}`, CodeBadRequest, `"processor" is missing`},
	{`{"Processor":"p"}`, CodeBadRequest, `"processor" is missing`},
	{`{"processor":null}`, CodeBadRequest, "not a string"},
	{`{"processor":5}`, CodeBadRequest, "not a string"},
	{`{"processor":["p"]}`, CodeBadRequest, "not a string"},
	{`{"processor":""}`, CodeInvalidSubject, `"processor": subject "" is empty`},
	{`{"processor":"p.*"}`, CodeInvalidSubject, "wildcard"},
	{`{"processor":">"}`, CodeInvalidSubject, "wildcard"},
	{`{"processor":"p q"}`, CodeInvalidSubject, "white space"},
	{`{"processor":"p\r\nPUB x"}`, CodeInvalidSubject, "white space"},
	{"{\"processor\":\"p\xff\"}", CodeInvalidSubject, "UTF-8"},
	{`{"processor":".p"}`, CodeInvalidSubject, "empty token"},
	{`{"processor":"$SYS.REQ"}`, CodeForbiddenSubject, "starts with $"},
	{`{"processor":"` + repeat("p", MaxSubject+1) + `"}`, CodeInvalidSubject, "use at most 1024"},
	{`{"processor":"p","x":"` + repeat("x", MaxRegisterBody) + `"}`, CodeBadRequest, "send at most 16384"},
	{`{"x":` + strings.Repeat("[", 15_000) + `}`, CodeBadRequest, "not a JSON object"},
}

func TestParseRegisterRefuses(t *testing.T) {
	for _, c := range badProcessors {
		_, err := ParseRegister([]byte(c.body))
		if err == nil || err.Code != c.code || !strings.Contains(err.Message, c.part) {
			t.Errorf("ParseRegister(%.60q): %v, want %s with %q", c.body, err, c.code, c.part)
		}
		_, err = ParseUnregister([]byte(c.body))
		if err == nil || err.Code != c.code || !strings.Contains(err.Message, c.part) {
			t.Errorf("ParseUnregister(%.60q): %v, want %s with %q", c.body, err, c.code, c.part)
		}
	}
	for _, capacity := range []string{`0`, `-1`, `10001`, `1.0`, `1e3`, `"3"`, `null`, `true`, `[1]`, `99999999999999999999`} {
		_, err := ParseRegister([]byte(`{"processor":"p","capacity":` + capacity + `}`))
		if err == nil || err.Code != CodeBadRequest || !strings.Contains(err.Message, "from 1 to 10000") {
			t.Errorf("capacity %s: %v", capacity, err)
		}
	}
}

func TestParseRegisterRefusesABatch(t *testing.T) {
	for _, batch := range []string{`-1`, `1001`, `1.0`, `"3"`, `null`} {
		_, err := ParseRegister([]byte(`{"processor":"p","batch":` + batch + `}`))
		if err == nil || err.Code != CodeBadRequest || !strings.Contains(err.Message, `"batch" is `) || !strings.Contains(err.Message, "from 0 to 1000") {
			t.Errorf("batch %s: %v", batch, err)
		}
	}
}

func FuzzParseRegister(f *testing.F) {
	for _, c := range badProcessors {
		f.Add([]byte(c.body))
	}
	f.Add([]byte(`{"processor":"p.1","capacity":10}`))
	f.Add([]byte(`{"processor":"p.1","capacity":10,"batch":5}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := ParseRegister(body)
		if err != nil {
			checkError(t, err)
			return
		}
		if r.Capacity < 1 || r.Capacity > MaxCapacity || r.Batch < 0 || r.Batch > MaxBatch || CheckSubject(r.Processor) != nil || !json.Valid(body) {
			t.Errorf("%q was taken as %+v", body, r)
		}
		if back, err := ParseRegister(RegisterBody(r)); err != nil || back != r {
			t.Errorf("%+v came back as %+v, %v", r, back, err)
		}
		if p, err := ParseUnregister(UnregisterBody(r.Processor)); err != nil || p != r.Processor {
			t.Errorf("%q came back as %q, %v", r.Processor, p, err)
		}
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add(Accepted(1, true))
	f.Add(Accepted(1<<63, false))
	f.Add([]byte(`{"status":"accepted","id":""}`))
	f.Add([]byte(`{"status":"accepted","id":"a","id":"b"}`))
	f.Add(OK())
	f.Add(Errorf(CodeDead, "no").Body())
	f.Fuzz(func(t *testing.T, body []byte) {
		s, ok := ParseStatus(body)
		if ok && (!json.Valid(body) || s.Status == "") || !ok && s != (Status{}) {
			t.Errorf("ParseStatus(%q) = %+v, %v", body, s, ok)
		}
		if want, known := decodeStatus(body); s != want || ok != known {
			t.Errorf("ParseStatus(%q) = %+v, %v; by its JSON it is %+v, %v", body, s, ok, want, known)
		}
	})
}

func FuzzError(f *testing.F) {
	f.Add("dead", "a\r\nb")
	f.Fuzz(func(t *testing.T, code, message string) {
		code = strings.ToValidUTF8(code, "?")
		if e := (&Error{Code: Code(code), Message: message}); code != "" && len(code) < 100 && message != "" {
			h := e.Header()[HeaderError][0]
			if h == "" || strings.ContainsAny(h, "\r\n") || !utf8.ValidString(h) {
				t.Errorf("the header is %q", h)
			}
			if s, ok := ParseStatus(e.Body()); !ok || s.Code != code {
				t.Errorf("%q is read as %+v, %v", e.Body(), s, ok)
			}
		}
	})
}

func ExampleError_Body() {
	fmt.Printf("%s\n", Errorf(CodeQueueFull, "the queue %s holds %d items: send later", "orders", 1000).Body())
	// Output:
	// {"status":"error","message":"the queue orders holds 1000 items: send later","code":"queue_full"}
}

func ExampleParseRegister() {
	r, err := ParseRegister([]byte(`{"processor":"orders.processor.1","capacity":4}`))
	fmt.Println(r.Processor, r.Capacity, err)
	_, err = ParseRegister([]byte(`{"processor":7}`))
	fmt.Println(err)
	// Output:
	// orders.processor.1 4 <nil>
	// bad_request: "processor" is not a string: name the subject that the processor listens at
}

// BenchmarkParseStatus reads an accept notice, and the same as any JSON.
func BenchmarkParseStatus(b *testing.B) {
	notice := Accepted(1<<41+12345, false)
	for _, way := range []struct {
		name  string
		parse func([]byte) (Status, bool)
	}{{"accepted", ParseStatus}, {"by_decoding", decodeStatus}} {
		b.Run(way.name, func(b *testing.B) {
			for b.Loop() {
				if _, ok := way.parse(notice); !ok {
					b.Fatal("the notice is not one")
				}
			}
		})
	}
}
