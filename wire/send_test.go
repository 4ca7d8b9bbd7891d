package wire

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
)

func head(pairs ...string) Header {
	h := Header{}
	for i := 0; i < len(pairs); i += 2 {
		h[pairs[i]] = append(h[pairs[i]], pairs[i+1])
	}
	return h
}

func TestParseSend(t *testing.T) {
	const body = `{"accepted_reply":"from.body"}`
	for _, c := range []struct {
		name string
		h    Header
		body string
		want Send
	}{
		{"nothing", nil, "", Send{}},
		{"no JSON", nil, "\x00\xff", Send{}},
		{"body", nil, body, Send{AcceptedReply: "from.body"}},
		{"header over body", head(HeaderAcceptedReply, "from.header"), body, Send{AcceptedReply: "from.header"}},
		{"other headers", head("traceparent", "00-1", "Stinted", "x", "Nat", "y"), "", Send{}},
		{"other Nats- headers", head("Nats-Stream", "S", "Nats-Sequence", "1"), "", Send{}},
		{"all", head(
			HeaderAcceptedReply, "a", HeaderMsgID, "m", HeaderTTL, "5", HeaderMaxAttempts, "3", HeaderTimeout, "1500", HeaderProgress, "true",
		), "", Send{
			AcceptedReply: "a", MsgID: "m", TTL: 5 * time.Second, MaxAttempts: 3,
			Timeout: 1500 * time.Millisecond, Progress: true,
		}},
		{"any case", head("stint-timeout", "1", "NATS-MSG-ID", "m"), "", Send{Timeout: time.Millisecond, MsgID: "m"}},
		{"no progress", head(HeaderProgress, "false"), "", Send{}},
		{"longest timeout", head(HeaderTimeout, "2592000000"), "", Send{Timeout: MaxTimeout}},
		{"most attempts", head(HeaderMaxAttempts, "1000000"), "", Send{MaxAttempts: MaxAttempts}},
		{"long id", head(HeaderMsgID, repeat("m", MaxMsgID)), "", Send{MsgID: repeat("m", MaxMsgID)}},
		{"ttl 1h", head(HeaderTTL, "1h"), "", Send{TTL: time.Hour}},
		{"ttl 1ms", head(HeaderTTL, "1ms"), "", Send{TTL: time.Millisecond}},
		{"ttl never", head(HeaderTTL, "never"), "", Send{NoExpiry: true}},
		{"ttl NEVER", head(HeaderTTL, "NEVER"), "", Send{NoExpiry: true}},
		{"longest ttl", head(HeaderTTL, "315360000"), "", Send{TTL: MaxTTL}},
	} {
		got, err := ParseSend(c.h, []byte(c.body))
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
}

func TestParseSendRefuses(t *testing.T) {
	for _, c := range []struct {
		h    Header
		code Code
		part string
	}{
		{head("Stint-Timout", "5"), CodeBadHeader, `"Stint-Timout" is not known`},
		{head("stint-", "5"), CodeBadHeader, `"stint-" is not known`},
		{head(HeaderRedelivered, "true"), CodeBadHeader, "not known"},
		{head(HeaderRetryDelay, "5"), CodeBadHeader, "not known"},
		{head(HeaderPriority, "5"), CodeUnsupported, HeaderPriority},
		{head(HeaderDelay, "5"), CodeUnsupported, HeaderDelay},
		{head(HeaderNotBefore, "x"), CodeUnsupported, HeaderNotBefore},
		{head(HeaderKey, "k"), CodeUnsupported, HeaderKey},
		{head("stint-retain", "true"), CodeUnsupported, HeaderRetain},
		{head(HeaderTimeout, "0"), CodeBadHeader, "from 1 to 2592000000"},
		{head(HeaderTimeout, "2592000001"), CodeBadHeader, HeaderTimeout},
		{head(HeaderTimeout, "-1"), CodeBadHeader, HeaderTimeout},
		{head(HeaderTimeout, "+1"), CodeBadHeader, HeaderTimeout},
		{head(HeaderTimeout, " 1"), CodeBadHeader, HeaderTimeout},
		{head(HeaderTimeout, "1s"), CodeBadHeader, HeaderTimeout},
		{head(HeaderTimeout, "1e3"), CodeBadHeader, HeaderTimeout},
		{head(HeaderTimeout, ""), CodeBadHeader, HeaderTimeout},
		{head(HeaderTimeout, "18446744073709551617"), CodeBadHeader, HeaderTimeout},
		{Header{HeaderTimeout: nil}, CodeBadHeader, HeaderTimeout},
		{head(HeaderTimeout, "5", HeaderTimeout, "5"), CodeBadHeader, "more than once"},
		{head(HeaderTimeout, "5", "stint-timeout", "5"), CodeBadHeader, "more than once"},
		{head(HeaderMaxAttempts, "0"), CodeBadHeader, "from 1 to 1000000"},
		{head(HeaderMaxAttempts, "1000001"), CodeBadHeader, HeaderMaxAttempts},
		{head(HeaderMaxAttempts, "4294967297"), CodeBadHeader, HeaderMaxAttempts},
		{head(HeaderProgress, "True"), CodeBadHeader, "true or false"},
		{head(HeaderProgress, "1"), CodeBadHeader, "true or false"},
		{head(HeaderMsgID, ""), CodeBadHeader, "is empty"},
		{head(HeaderMsgID, repeat("m", MaxMsgID+1)), CodeBadHeader, "at most 256"},
		{head(HeaderMsgID, "a", HeaderMsgID, "b"), CodeBadHeader, "more than once"},
		{head(HeaderTTL, "0"), CodeBadHeader, HeaderTTL},
		{head(HeaderTTL, "-5"), CodeBadHeader, HeaderTTL},
		{head(HeaderTTL, "-5s"), CodeBadHeader, HeaderTTL},
		{head(HeaderTTL, "999us"), CodeBadHeader, HeaderTTL},
		{head(HeaderTTL, "315360001"), CodeBadHeader, HeaderTTL},
		{head(HeaderTTL, "999999999999999999"), CodeBadHeader, HeaderTTL},
		{head(HeaderTTL, "18446744074"), CodeBadHeader, HeaderTTL}, // 290 ms, if the product were let wrap
		{head(HeaderTTL, "soon"), CodeBadHeader, HeaderTTL},
		{head(HeaderAcceptedReply, ""), CodeInvalidSubject, HeaderAcceptedReply + ": subject \"\" is empty"},
		{head(HeaderAcceptedReply, "a.*"), CodeInvalidSubject, "wildcard"},
		{head(HeaderAcceptedReply, "$JS.API.x"), CodeForbiddenSubject, "starts with $"},
		{head("Stint-Z", "1", "Stint-B", "1", HeaderKey, "1"), CodeBadHeader, `"Stint-B"`},
	} {
		send, err := ParseSend(c.h, nil)
		if err == nil || err.Code != c.code || !strings.Contains(err.Message, c.part) {
			t.Errorf("%v: %v, want %s with %q", c.h, err, c.code, c.part)
		}
		if send != (Send{}) {
			t.Errorf("%v: %+v came with the error", c.h, send)
		}
	}
}

func TestParseSendRefusesSubjectsInTheBody(t *testing.T) {
	for body, code := range map[string]Code{
		`{"accepted_reply":""}`:           CodeInvalidSubject,
		`{"accepted-reply":"a b"}`:        CodeInvalidSubject,
		"{\"accepted_reply\":\"a\xff\"}":  CodeInvalidSubject,
		`{"accepted_reply":"$SYS.x"}`:     CodeForbiddenSubject,
		`{"accepted_reply":"a\u0000b"}`:   CodeInvalidSubject,
		`{"accepted_reply":"a\r\nPUB x"}`: CodeInvalidSubject,
	} {
		send, err := ParseSend(nil, []byte(body))
		if err == nil || err.Code != code || !strings.HasPrefix(err.Message, "accepted_reply in the body: ") || send != (Send{}) {
			t.Errorf("%s: %+v, %v, want %s", body, send, err, code)
		}
	}
}

// The error must find its way to the sender whenever there is one.
func TestParseSendErrorCarriesAcceptedReply(t *testing.T) {
	for _, c := range []struct {
		name string
		h    Header
		body string
		want string
	}{
		{"header", head(HeaderAcceptedReply, "a", "Stint-X", "1", HeaderTimeout, "5"), "", "a"},
		{"body", head(HeaderKey, "1"), `{"accepted_reply":"b"}`, "b"},
		{"bad header, good body", head(HeaderAcceptedReply, "a b"), `{"accepted_reply":"b"}`, "b"},
		{"repeated header", head(HeaderAcceptedReply, "a", HeaderAcceptedReply, "c"), "", "a"},
		{"bad header, bad body", head(HeaderAcceptedReply, "a b"), `{"accepted_reply":"b.*"}`, ""},
	} {
		send, err := ParseSend(c.h, []byte(c.body))
		if want := (Send{AcceptedReply: c.want}); err == nil || send != want {
			t.Errorf("%s: %+v, %v, want %+v and an error", c.name, send, err, want)
		}
	}
}

func TestPassedOn(t *testing.T) {
	h := Header{
		"traceparent": {"00-1"}, "X": {"a", "b"}, "Stint-Timeout": {"1"}, "stint-x": {"1"},
		"Nats-Msg-Id": {"1"}, "NATS-TTL": {"1"}, "Status": {"503"}, "Stint": {"kept"},
	}
	got := PassedOn(h)
	want := Header{"traceparent": {"00-1"}, "X": {"a", "b"}, "Stint": {"kept"}}
	if !maps.EqualFunc(got, want, func(a, b []string) bool { return strings.Join(a, "|") == strings.Join(b, "|") }) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := PassedOn(head(HeaderMsgID, "1")); got != nil {
		t.Errorf("got %v, want nil", got)
	}
	if PassedOn(nil) != nil {
		t.Error("no headers gave some")
	}
}

func FuzzParseSend(f *testing.F) {
	f.Add(HeaderTimeout, "5", HeaderTTL, "1h", []byte(`{"accepted_reply":"a"}`))
	f.Add(HeaderMaxAttempts, "5", HeaderMsgID, "x", []byte(`{"accepted-reply":"a.*"}`))
	f.Add("stint-progress", "true", "Stint-Progress", "false", []byte(nil))
	f.Add(HeaderAcceptedReply, "$JS", HeaderPriority, "1", []byte(nil))
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string, body []byte) {
		h := head(name1, value1, name2, value2)
		send, err := ParseSend(h, body)
		if send.AcceptedReply != "" && CheckSubject(send.AcceptedReply) != nil {
			t.Errorf("a bad accept subject was taken: %q", send.AcceptedReply)
		}
		if err != nil {
			checkError(t, err)
			return
		}
		if send.Timeout < 0 || send.Timeout > MaxTimeout || send.TTL < 0 || send.TTL > MaxTTL ||
			send.MaxAttempts > MaxAttempts || len(send.MsgID) > MaxMsgID || send.NoExpiry && send.TTL != 0 {
			t.Errorf("a limit is exceeded: %+v", send)
		}
		for name := range PassedOn(h) {
			if lower := strings.ToLower(name); strings.HasPrefix(lower, "stint-") || strings.HasPrefix(lower, "nats-") {
				t.Errorf("%q goes back on the reply", name)
			}
		}
	})
}

func TestParseSendAllocations(t *testing.T) {
	h := head("traceparent", "00-1", HeaderTimeout, "1500", HeaderMsgID, "m", HeaderAcceptedReply, "a.b", HeaderTTL, "5")
	body := ordinaryBody(500)
	noAllocs(t, func() {
		if _, err := ParseSend(h, body); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkParseSend(b *testing.B) {
	for _, c := range []struct {
		name string
		h    Header
		body []byte
	}{
		{"plain", nil, ordinaryBody(200)},
		{"body", nil, acceptedBody(200)},
		{"headers", head("traceparent", "00-1", HeaderTimeout, "1500", HeaderAcceptedReply, "a.b"), ordinaryBody(200)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := ParseSend(c.h, c.body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func ExampleParseSend() {
	send, err := ParseSend(Header{HeaderTimeout: {"1500"}}, []byte(`{"accepted_reply":"orders.accepted"}`))
	fmt.Println(send.AcceptedReply, send.Timeout, err)
	_, err = ParseSend(Header{HeaderTimeout: {"1.5s"}}, nil)
	fmt.Println(err)
	// Output:
	// orders.accepted 1.5s <nil>
	// bad_header: header Stint-Timeout is "1.5s": give a whole number of milliseconds from 1 to 2592000000 (30 days)
}
