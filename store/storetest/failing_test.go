package storetest

import (
	"errors"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"stint/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var next Verdict
		var seen []string
		db := Failing(store.NewMemory(nil), func(queue string, b *store.Batch) Verdict {
			seen = append(seen, queue)
			return next
		})
		q := Queue(t, db, "q")
		if _, err := db.Queue("q"); err == nil {
			t.Error("a queue can be had twice")
		}
		Commit(t, q, Put(Waiting(1, 0, "")))

		next = Verdict{Err: store.ErrFull}
		if err := Submit(q, Put(Waiting(2, 0, ""))); !errors.Is(err, store.ErrFull) {
			t.Errorf("failed: %v", err)
		}
		wantIDs(t, Drain(t, q, everything), 1)

		next = Verdict{Err: store.ErrUnknown, Apply: true}
		if err := Submit(q, Put(Waiting(3, 0, ""))); !errors.Is(err, store.ErrUnknown) {
			t.Errorf("applied and failed: %v", err)
		}
		wantIDs(t, Drain(t, q, everything), 1, 3)

		var told []error
		for _, next = range []Verdict{{Hold: true}, {Hold: true, Err: store.ErrFull}} {
			q.Submit(&store.Batch{Ops: []store.Op{Put(Waiting(9, 0, ""))}, Done: func(err error) { told = append(told, err) }})
			synctest.Wait()
		}
		if len(told) != 0 || db.Held() != 2 {
			t.Errorf("told %v, held %d", told, db.Held())
		}
		wantIDs(t, Drain(t, q, everything), 1, 3, 9)
		if n := db.Release(); n != 2 || len(told) != 2 || told[0] != nil || !errors.Is(told[1], store.ErrFull) {
			t.Errorf("released %d: %v", n, told)
		}
		next = Verdict{Hold: true}
		q.Submit(&store.Batch{Done: func(err error) { told = append(told, err) }})
		if err := db.Close(); err != nil || len(told) != 3 {
			t.Errorf("close: %v, told %v", err, told)
		}
		if len(seen) != 6 || seen[0] != "q" {
			t.Errorf("seen %q", seen)
		}
	})
}

func TestFailingPasses(t *testing.T) {
	Run(t, func(*testing.T, string) store.DB { return Failing(store.NewMemory(nil), nil) }, Caps{Checks: 10})
}
