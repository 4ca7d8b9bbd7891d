package wire

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

func TestIDText(t *testing.T) {
	for _, c := range []struct {
		id   uint64
		text string
	}{
		{0, "0"},
		{35, "z"},
		{36, "10"},
		{1<<40 | 1, "e13wu1oh"},
		{math.MaxUint64, "3w5e11264sgsf"},
	} {
		if got := FormatID(c.id); got != c.text {
			t.Errorf("FormatID(%d) = %q, want %q", c.id, got, c.text)
		}
		if got, ok := ParseID(c.text); !ok || got != c.id {
			t.Errorf("ParseID(%q) = %d, %v, want %d", c.text, got, ok, c.id)
		}
	}
}

func TestParseIDRefusesOtherSpellings(t *testing.T) {
	for _, s := range []string{
		"", "00", "01", "Z", "-1", "+1", " 1", "1 ", "1_0", "é", "1.1",
		"3w5e11264sgsg", "3w5e11264sgt0", "zzzzzzzzzzzzz", "10000000000000",
	} {
		if id, ok := ParseID(s); ok {
			t.Errorf("ParseID(%q) = %d, want it refused", s, id)
		}
	}
}

func TestSubjects(t *testing.T) {
	const address = "test.orders"
	for _, c := range []struct{ got, want string }{
		{RegisterSubject(address), "test.orders.register"},
		{UnregisterSubject(address), "test.orders.unregister"},
		{LeaseSubject(address, 36, 7), "test.orders.lease.10.7"},
		{LeasePattern(address), "test.orders.lease.*.*"},
		{TalkSubject(address, 36, 0), "test.orders.talk.10.0"},
		{TalkPattern(address), "test.orders.talk.*.*"},
		{EventSubject(address, "dead"), "test.orders.event.dead"},
		{string(AppendLease([]byte("x:"), address, 1, math.MaxUint32)), "x:test.orders.lease.1.4294967295"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestParseLease(t *testing.T) {
	for _, c := range []struct {
		subject string
		item    uint64
		attempt uint32
		ok      bool
	}{
		{"a.b.lease.10.7", 36, 7, true},
		{"a.b.lease.0.1", 0, 1, true},
		{"a.b.lease.3w5e11264sgsf.4294967295", math.MaxUint64, math.MaxUint32, true},
		{"a.b.lease.10.0", 0, 0, false},
		{"a.b.lease.10.4294967296", 0, 0, false},
		{"a.b.lease.10.4294967297", 0, 0, false},
		{"a.b.lease.10.99999999999999999999", 0, 0, false},
		{"a.b.lease.10.07", 0, 0, false},
		{"a.b.lease.010.7", 0, 0, false},
		{"a.b.lease.1A.7", 0, 0, false},
		{"a.b.lease.10.7.1", 0, 0, false},
		{"a.b.lease.10.", 0, 0, false},
		{"a.b.lease.10", 0, 0, false},
		{"a.b.lease..7", 0, 0, false},
		{"a.b.lease", 0, 0, false},
		{"a.b.talk.10.7", 0, 0, false},
		{"a.c.lease.10.7", 0, 0, false},
		{"a.b", 0, 0, false},
		{"", 0, 0, false},
		{"xa.b.lease.10.7", 0, 0, false},
		{"a.bb.lease.10.7", 0, 0, false},
	} {
		item, attempt, ok := ParseLease("a.b", c.subject)
		if item != c.item || attempt != c.attempt || ok != c.ok {
			t.Errorf("ParseLease(%q) = %d, %d, %v, want %d, %d, %v", c.subject, item, attempt, ok, c.item, c.attempt, c.ok)
		}
	}
}

func TestParseTalk(t *testing.T) {
	if item, n, ok := ParseTalk("a", "a.talk.10.0"); item != 36 || n != 0 || !ok {
		t.Errorf("turn 0 was read as %d, %d, %v", item, n, ok)
	}
	if _, _, ok := ParseTalk("a", "a.lease.10.1"); ok {
		t.Error("a lease subject was read as a talk subject")
	}
}

func TestPatternsMatchTheirSubjects(t *testing.T) {
	if !MatchPattern(LeasePattern("a.b"), LeaseSubject("a.b", math.MaxUint64, 1)) {
		t.Error("LeasePattern does not match a lease subject")
	}
	if !MatchPattern(TalkPattern("a.b"), TalkSubject("a.b", 1, 1)) {
		t.Error("TalkPattern does not match a talk subject")
	}
}

func TestParseLeaseDoesNotAllocate(t *testing.T) {
	subject := LeaseSubject("test.orders", 1<<40|17, 2)
	noAllocs(t, func() {
		if _, _, ok := ParseLease("test.orders", subject); !ok {
			t.Fatal("not read")
		}
	})
}

func noAllocs(t *testing.T, f func()) {
	t.Helper()
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func FuzzParseLease(f *testing.F) {
	f.Add("a", "a.lease.10.7")
	f.Add("a.b", "a.b.lease.3w5e11264sgsf.4294967295")
	f.Add("a", "a.talk.0.0")
	f.Add("", ".lease.1.1")
	f.Fuzz(func(t *testing.T, address, subject string) {
		if item, attempt, ok := ParseLease(address, subject); ok {
			if back := LeaseSubject(address, item, attempt); back != subject || attempt == 0 {
				t.Errorf("lease %q was read as %d, %d, which is %q", subject, item, attempt, back)
			}
		}
		if item, n, ok := ParseTalk(address, subject); ok {
			if back := TalkSubject(address, item, n); back != subject {
				t.Errorf("talk %q was read as %d, %d, which is %q", subject, item, n, back)
			}
		}
	})
}

func FuzzLeaseRoundTrip(f *testing.F) {
	f.Add("a", uint64(36), uint32(1))
	f.Add("a.lease.1.1", uint64(math.MaxUint64), uint32(math.MaxUint32))
	f.Fuzz(func(t *testing.T, address string, item uint64, attempt uint32) {
		attempt = max(attempt, 1)
		gotItem, gotAttempt, ok := ParseLease(address, LeaseSubject(address, item, attempt))
		if gotItem != item || gotAttempt != attempt || !ok {
			t.Errorf("%d, %d came back as %d, %d, %v", item, attempt, gotItem, gotAttempt, ok)
		}
		if got, ok := ParseID(FormatID(item)); got != item || !ok {
			t.Errorf("id %d came back as %d, %v", item, got, ok)
		}
	})
}

func BenchmarkParseLease(b *testing.B) {
	subject := LeaseSubject("test.orders", 1<<40|123456, 1)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, ok := ParseLease("test.orders", subject); !ok {
			b.Fatal("not read")
		}
	}
}

func BenchmarkAppendLease(b *testing.B) {
	dst := make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		dst = AppendLease(dst[:0], "test.orders", 1<<40|123456, 1)
	}
}

func ExampleLeaseSubject() {
	subject := LeaseSubject("orders", 1<<40|1, 2)
	item, attempt, ok := ParseLease("orders", subject)
	fmt.Println(subject)
	fmt.Println(FormatID(item), attempt, ok)
	// Output:
	// orders.lease.e13wu1oh.2
	// e13wu1oh 2 true
}

func repeat(s string, total int) string { return strings.Repeat(s, total/len(s)+1)[:total] }
