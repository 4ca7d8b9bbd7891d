package inbox

import (
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestNothingIsLost: while many put, the inbox is closed; what was taken in comes out, and the rest is told so.
func TestNothingIsLost(t *testing.T) {
	in := New[int](4)
	var wg sync.WaitGroup
	var mu sync.Mutex
	accepted := 0
	for range 8 {
		wg.Go(func() {
			for in.Put(1) {
				mu.Lock()
				accepted++
				mu.Unlock()
			}
		})
	}
	taken := 0
	for range in.C() {
		if taken++; taken == 1000 {
			wg.Go(func() { in.Close() })
		}
	}
	wg.Wait()
	if taken != accepted {
		t.Errorf("%d taken in, %d came out", accepted, taken)
	}
	if in.Put(1) || in.Close() {
		t.Error("a closed inbox takes more")
	}
}

// TestCloseWaits: who is within Put when the inbox is closed still gets in.
func TestCloseWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := New[int](1)
		in.Put(1)
		took, closed := false, false
		go func() { took = in.Put(2) }()
		synctest.Wait()
		go func() {
			in.Close()
			closed = true
		}()
		for range 2 {
			<-in.C()
			synctest.Wait()
		}
		if _, more := <-in.C(); more || !took || !closed {
			t.Errorf("more %v, took %v, closed %v", more, took, closed)
		}
	})
}

func TestRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := New[int](2)
		put := 0
		go func() {
			for i := range 3 {
				in.Put(i)
				put++
			}
		}()
		synctest.Wait()
		if put != 2 {
			t.Errorf("%d put into a room of 2", put)
		}
		for i := range 3 {
			if v := <-in.C(); v != i {
				t.Errorf("%d, want %d", v, i)
			}
		}
	})
}
