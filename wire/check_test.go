package wire

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// wantError checks that an error is there and says what the sentence should.
func wantError(t *testing.T, what string, err error, part string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error, want one with %q", what, part)
		return
	}
	if !strings.Contains(err.Error(), part) {
		t.Errorf("%s: %q does not say %q", what, err, part)
	}
}

var badSubjects = []struct{ subject, part string }{
	{"", "is empty"},
	{".", "empty token"},
	{".a", "empty token"},
	{"a.", "empty token"},
	{"a..b", "empty token"},
	{"a.*", "wildcard"},
	{">", "wildcard"},
	{"a.b>", "wildcard"},
	{"a b", "white space"},
	{"a\tb", "white space"},
	{"a\r\nb", "white space"},
	{"a\x00b", "control character"},
	{"a\x7fb", "control character"},
	{"a\u00a0b", "white space"},
	{"a\u2028b", "white space"},
	{"a\u0085b", "white space"},
	{"a\xffb", "not valid UTF-8"},
	{"$JS.API.INFO", "starts with $"},
	{"$", "starts with $"},
	{repeat("a.b", 1025), "use at most 1024"},
}

func TestCheckSubject(t *testing.T) {
	for _, s := range []string{
		"a", "a.b", "_INBOX.x7.y", "a$b.$c", "größe.日本", "a-b_c:d/e", repeat("a", MaxSubject), "lease", "a.lease.1.1",
	} {
		if err := CheckSubject(s); err != nil {
			t.Errorf("CheckSubject(%q): %v", s, err)
		}
	}
	for _, c := range badSubjects {
		wantError(t, fmt.Sprintf("CheckSubject(%q)", c.subject), CheckSubject(c.subject), c.part)
	}
}

func TestCheckAddress(t *testing.T) {
	for _, s := range []string{"work", "test.orderQueue", "lease.orders", "a.register.b", "leases", repeat("a", MaxAddress)} {
		if err := CheckAddress(s); err != nil {
			t.Errorf("CheckAddress(%q): %v", s, err)
		}
	}
	for _, c := range []struct{ address, part string }{
		{"", "is empty"},
		{"a b", "white space"},
		{"orders.>", "wildcard"},
		{"a..b", "empty token"},
		{"$SYS.x", "starts with $"},
		{"_INBOX.x", "starts with _"},
		{"register", "reserved word register"},
		{"a.unregister", "reserved word unregister"},
		{"a.lease", "reserved word lease"},
		{"a.talk", "reserved word talk"},
		{"a.event", "reserved word event"},
		{repeat("a", MaxAddress+1), "use at most 256"},
	} {
		wantError(t, fmt.Sprintf("CheckAddress(%q)", c.address), CheckAddress(c.address), c.part)
	}
}

func TestCheckAddresses(t *testing.T) {
	for _, set := range [][]string{
		nil, {"a"}, {"a", "a.b", "a.b.c"}, {"a", "b.lease.x"}, {"a.lease.x"}, {"a", "ab.lease.x"}, {"a.b", "a.lease.b"},
	} {
		if err := CheckAddresses(set); err != nil {
			t.Errorf("CheckAddresses(%q): %v", set, err)
		}
	}
	for _, c := range []struct {
		set  []string
		part string
	}{
		{[]string{"a", "b", "a"}, "two queues"},
		{[]string{"a", "b c"}, "white space"},
		{[]string{"a", "a.lease.x"}, `inside the reserved subjects of the queue at "a"`},
		{[]string{"a.talk.x.y", "a"}, `inside the reserved subjects of the queue at "a"`},
		{[]string{"a.b.event.x", "a", "a.b"}, `inside the reserved subjects of the queue at "a.b"`},
		{[]string{"a", "a.register.x"}, "reserved"},
		{[]string{"a", "a.unregister.x"}, "reserved"},
	} {
		wantError(t, fmt.Sprintf("CheckAddresses(%q)", c.set), CheckAddresses(c.set), c.part)
	}
}

func TestSentencesStayShort(t *testing.T) {
	err := CheckSubject(strings.Repeat("\xff", 1<<20))
	if n := len(err.Error()); n > 500 {
		t.Errorf("the error about a megabyte has %d bytes", n)
	}
}

func TestCheckPattern(t *testing.T) {
	for _, s := range []string{"a", "*", ">", "a.*", "a.>", "*.b.*", "_INBOX.>", "größe.*"} {
		if err := CheckPattern(s); err != nil {
			t.Errorf("CheckPattern(%q): %v", s, err)
		}
	}
	for _, c := range []struct{ pattern, part string }{
		{"", "is empty"},
		{"a.", "empty token"},
		{"*..>", "empty token"},
		{">.a", "before its end"},
		{"a.>.b", "before its end"},
		{"a*", "inside a token"},
		{"a.b>", "inside a token"},
		{"**", "inside a token"},
		{"a b.*", "white space"},
		{"$JS.>", "starts with $"},
		{"\xff.*", "UTF-8"},
	} {
		wantError(t, fmt.Sprintf("CheckPattern(%q)", c.pattern), CheckPattern(c.pattern), c.part)
	}
}

func TestMatchPattern(t *testing.T) {
	for _, c := range []struct {
		pattern, subject string
		want             bool
	}{
		{"a", "a", true},
		{"a", "b", false},
		{"a", "a.b", false},
		{"a.b", "a", false},
		{"*", "a", true},
		{"*", "a.b", false},
		{"a.*", "a", false},
		{"a.*", "a.b", true},
		{"a.*.c", "a.b.c", true},
		{"a.*.c", "a.b.d", false},
		{">", "a", true},
		{">", "a.b.c", true},
		{">", "", false},
		{"a.>", "a", false},
		{"a.>", "a.b", true},
		{"a.>", "a.b.c", true},
		{"*.>", "a.b", true},
		{"*.>", "a", false},
		{">.a", "b", false},
		{"_INBOX.>", "_INBOX.x.1", true},
	} {
		if got := MatchPattern(c.pattern, c.subject); got != c.want {
			t.Errorf("MatchPattern(%q, %q) = %v", c.pattern, c.subject, got)
		}
	}
}

func TestOwn(t *testing.T) {
	own := NewOwn([]string{"orders", "orders.eu", "a.b"}, "stint", "x.y")
	for _, s := range []string{
		"orders", "orders.register", "orders.unregister", "orders.lease.1.1", "orders.talk.1.1", "orders.event.dead",
		"orders.lease", "orders.eu", "orders.eu.lease.1.1", "a.b", "a.b.register", "stint", "stint.queue.list",
		"x.y", "x.y.z",
	} {
		if !own.Has(s) {
			t.Errorf("%q is not seen as the broker's own", s)
		}
	}
	for _, s := range []string{
		"", "order", "orderss", "orders.done", "orders.us", "orders.done.lease.1.1", "a", "a.register", "a.b.c", "stints",
		"x", "x.z", "y.stint", "_INBOX.x", "lease.1.1",
	} {
		if own.Has(s) {
			t.Errorf("%q is seen as the broker's own", s)
		}
	}
	var none *Own
	if none.Has("orders") {
		t.Error("a nil Own has a subject")
	}
}

func TestCheckTarget(t *testing.T) {
	own := NewOwn([]string{"orders"}, "stint")
	allowed := []string{"_INBOX.>", "replies.*"}
	for _, c := range []struct {
		subject string
		allowed []string
		code    Code
		part    string
	}{
		{"replies.a", nil, "", ""},
		{"anything.at.all", nil, "", ""},
		{"replies.a", allowed, "", ""},
		{"_INBOX.x.1", allowed, "", ""},
		{"replies.a.b", allowed, CodeForbiddenSubject, "not one that this queue allows"},
		{"orders", nil, CodeForbiddenSubject, "belongs to the broker"},
		{"orders.lease.1.1", []string{">"}, CodeForbiddenSubject, "belongs to the broker"},
		{"stint.x", nil, CodeForbiddenSubject, "belongs to the broker"},
		{"$JS.API.INFO", nil, CodeForbiddenSubject, "starts with $"},
		{"$JS.*", nil, CodeInvalidSubject, "wildcard"},
		{"", nil, CodeInvalidSubject, "is empty"},
		{"a b", []string{">"}, CodeInvalidSubject, "white space"},
	} {
		err := CheckTarget(c.subject, own, c.allowed)
		if c.code == "" {
			if err != nil {
				t.Errorf("CheckTarget(%q): %v", c.subject, err)
			}
			continue
		}
		if err == nil || err.Code != c.code || !strings.Contains(err.Message, c.part) {
			t.Errorf("CheckTarget(%q) = %v, want %s with %q", c.subject, err, c.code, c.part)
		}
	}
}

func TestCheckTargetDoesNotAllocate(t *testing.T) {
	own := NewOwn([]string{"orders", "orders.lease.x"}, "stint")
	allowed := []string{"a.>", "_INBOX.*.*"}
	noAllocs(t, func() {
		if err := CheckTarget("_INBOX.abcdef.lease", own, allowed); err != nil {
			t.Fatal(err)
		}
	})
}

// literal is CheckSubject once more, written the slow and obvious way.
func literal(s string) bool {
	if !utf8.ValidString(s) || len(s) > MaxSubject || strings.HasPrefix(s, "$") || strings.ContainsAny(s, "*>") {
		return false
	}
	for _, token := range strings.Split(s, ".") {
		if token == "" || len(strings.Fields(token)) != 1 || strings.Fields(token)[0] != token {
			return false
		}
	}
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) < 0
}

func FuzzCheckSubject(f *testing.F) {
	for _, c := range badSubjects {
		f.Add(c.subject)
	}
	f.Add("_INBOX.a.b")
	f.Add("orders.lease.1.1")
	own := NewOwn([]string{"orders", "a.b"}, "stint")
	f.Fuzz(func(t *testing.T, s string) {
		err := CheckSubject(s)
		if (err == nil) != literal(s) {
			t.Errorf("CheckSubject(%q): %v", s, err)
		}
		if err == nil && (!MatchPattern(s, s) || !MatchPattern(">", s) || CheckPattern(s) != nil) {
			t.Errorf("subject %q does not match itself as a pattern", s)
		}
		if CheckAddress(s) == nil && (err != nil || !NewOwn([]string{s}).Has(LeaseSubject(s, 1, 1))) {
			t.Errorf("address %q is no subject, or does not own its leases", s)
		}
		if owned := slowHas(s, []string{"orders", "a.b"}, "stint"); own.Has(s) != owned {
			t.Errorf("Has(%q) = %v, want %v", s, own.Has(s), owned)
		}
	})
}

// slowHas is Own.Has as a scan over all prefixes.
func slowHas(s string, addresses []string, extra string) bool {
	prefixes := []string{extra}
	for _, a := range addresses {
		if s == a {
			return true
		}
		prefixes = append(prefixes, a+".register", a+".unregister", a+".lease", a+".talk", a+".event")
	}
	for _, p := range prefixes {
		if s == p || strings.HasPrefix(s, p+".") {
			return true
		}
	}
	return false
}

func BenchmarkCheckTarget(b *testing.B) {
	addresses := make([]string, 1000)
	for i := range addresses {
		addresses[i] = fmt.Sprintf("orders.%d", i)
	}
	own := NewOwn(addresses, "stint")
	b.ReportAllocs()
	for b.Loop() {
		if err := CheckTarget("_INBOX.Jx8dK2mQ9vR4tY7w.12345", own, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func ExampleCheckTarget() {
	own := NewOwn([]string{"orders"})
	fmt.Println(CheckTarget("orders", own, nil))
	fmt.Println(CheckTarget("reply.>", own, nil))
	// Output:
	// forbidden_subject: subject "orders" belongs to the broker: name a subject of your own, such as an inbox
	// invalid_subject: subject "reply.>" contains a wildcard: name one subject, without * and >
}
