package harness

import (
	"testing"
	"time"
)

// Until waits for a condition that only another process brings about and that nothing reports. It looks every 5 ms.
func Until(t testing.TB, limit time.Duration, what string, so func() bool) {
	t.Helper()
	if !Within(limit, so) {
		t.Fatalf("still not so after %v: %s", limit, what)
	}
}

// Within is Until without a test: false if the time has passed.
func Within(limit time.Duration, so func() bool) bool {
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	end := time.NewTimer(limit)
	defer end.Stop()
	for {
		if so() {
			return true
		}
		select {
		case <-look.C:
		case <-end.C:
			return so()
		}
	}
}

// Next takes what comes next out of a channel.
func Next[T any](t testing.TB, c <-chan T, limit time.Duration, what string) T {
	t.Helper()
	end := time.NewTimer(limit)
	defer end.Stop()
	select {
	case v, ok := <-c:
		if !ok {
			t.Fatalf("no more is to come: %s", what)
		}
		return v
	case <-end.C:
		t.Fatalf("nothing within %v: %s", limit, what)
	}
	panic("not reached")
}

// None fails the test if something comes out of a channel within some time.
func None[T any](t testing.TB, c <-chan T, during time.Duration, what string) {
	t.Helper()
	end := time.NewTimer(during)
	defer end.Stop()
	select {
	case v := <-c:
		t.Fatalf("%s: %+v", what, v)
	case <-end.C:
	}
}
