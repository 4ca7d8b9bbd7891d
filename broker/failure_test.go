package broker_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/nats-io/nats.go"

	"stint/store"
	"stint/store/storetest"
	"stint/wire"
)

// sick is a house whose store does as it is told.
type sick struct {
	*house
	err    atomic.Pointer[error]
	hold   atomic.Bool
	failed atomic.Int64 // batches that were told s.err
	db     *storetest.FailingDB
	health store.Health
}

func newSick(t *testing.T) *sick {
	s := &sick{house: newHouse(t, durable(address))}
	s.opt.Open = func(name string, health store.Health) (store.DB, error) {
		db, err := s.open(name, health)
		if err != nil {
			return nil, err
		}
		s.health = health
		s.db = storetest.Failing(db, func(string, *store.Batch) storetest.Verdict {
			v := storetest.Verdict{Hold: s.hold.Load()}
			if p := s.err.Load(); p != nil {
				v.Err = *p
				s.failed.Add(1)
			}
			return v
		})
		return s.db, nil
	}
	s.start()
	return s
}

func (s *sick) fail(err error) {
	s.err.Store(&err)
}

func (s *sick) heal() {
	s.err.Store(nil)
	s.health(nil)
}

var errFull = fmt.Errorf("writing: %w: %w", store.ErrFull, syscall.ENOSPC)

func TestFullDiskIsSaidAndPasses(t *testing.T) {
	s := newSick(t)
	defer s.stop()
	nc := s.connect()
	defer nc.Close()
	send(t, nc, "", "before")
	s.fail(errFull)
	for range 3 {
		m, err := nc.Request(address, []byte("during"), wait)
		ok(t, err)
		if st := status(t, m); st.Status != "error" || st.Code != string(wire.CodeDiskFull) {
			t.Errorf("a send on a full disk is answered %+v", st)
		}
	}
	s.heal()
	eventually(t, func() bool {
		m, err := nc.RequestMsg(&nats.Msg{Subject: address, Header: nats.Header{wire.HeaderAcceptedReply: {"acc"}}}, 1)
		return m == nil && err != nil && s.broker.Stats()[address].Accepted > 4
	})
	register(t, nc, "p1", 1)
	work := listen(t, nc, "p1")
	if w := next(t, work); string(w.Data) != "before" {
		t.Errorf("the first work is %q", w.Data)
	}
}

// An item may be with a processor before its write fails; then the outcome decides.
func TestWriteFailsWhileAProcessorHasTheItem(t *testing.T) {
	for answer, want := range map[string]string{"done": "accepted", "-NAK": "error", "+TERM": "error"} {
		t.Run(answer, func(t *testing.T) {
			s := newSick(t)
			defer s.stop()
			nc := s.connect()
			defer nc.Close()
			register(t, nc, "p1", 1)
			work := listen(t, nc, "p1")
			accepts, replies := listen(t, nc, "accepts"), listen(t, nc, "replies")
			s.fail(errFull)
			publish(t, nc, &nats.Msg{Reply: "replies", Header: nats.Header{wire.HeaderAcceptedReply: {"accepts"}}})
			w := next(t, work)
			eventually(t, func() bool { // the broker knows that the write has failed
				m, err := nc.Request(address, nil, wait)
				return err == nil && isCode(m, wire.CodeDiskFull) && s.failed.Load() > 0
			})
			ok(t, w.Respond([]byte(answer)))
			if st := status(t, next(t, accepts)); st.Status != want {
				t.Errorf("the accept subject hears %+v", st)
			}
			r := next(t, replies)
			if want == "accepted" && string(r.Data) != "done" || want == "error" && status(t, r).Code != string(wire.CodeDiskFull) {
				t.Errorf("the reply subject hears %q", r.Data)
			}
			s.heal()
			eventually(t, func() bool { return s.broker.Stats()[address].Ready == 0 })
			if n, _, _ := work.Pending(); n != 0 {
				t.Error("the item was given out again")
			}
		})
	}
}

func TestFailedSyncEndsTheBroker(t *testing.T) {
	s := newSick(t)
	defer s.stop()
	nc := s.connect()
	defer nc.Close()
	send(t, nc, "", "before")
	s.fail(fmt.Errorf("committing: %w: %w", store.ErrUnknown, syscall.EIO))
	m, err := nc.Request(address, []byte("during"), wait)
	ok(t, err)
	if st := status(t, m); st.Code != string(wire.CodeUnconfirmed) {
		t.Errorf("the send is answered %+v", st)
	}
	if err := <-s.broker.Failed(); !errors.Is(err, store.ErrUnknown) {
		t.Errorf("the broker fails with %v", err)
	}
}

func TestAcceptedWaitsForTheCommit(t *testing.T) {
	s := newSick(t)
	defer s.stop()
	nc := s.connect()
	defer nc.Close()
	accepts := listen(t, nc, "accepts")
	s.hold.Store(true)
	publish(t, nc, &nats.Msg{Header: nats.Header{wire.HeaderAcceptedReply: {"accepts"}}})
	eventually(t, func() bool { return s.db.Held() == 1 })
	ok(t, nc.Flush())
	if n, _, _ := accepts.Pending(); n != 0 {
		t.Error("accepted was said before the commit")
	}
	s.hold.Store(false)
	s.db.Release()
	if st := status(t, next(t, accepts)); st.Status != "accepted" {
		t.Errorf("accept notice %+v", st)
	}
}

// The reply of a stored item must not leave before its record is gone, or a restart would do the work again.
func TestReplyWaitsForTheRemoval(t *testing.T) {
	s := newSick(t)
	defer s.stop()
	nc := s.connect()
	defer nc.Close()
	send(t, nc, "replies", "x")
	register(t, nc, "p1", 1)
	work, replies := listen(t, nc, "p1"), listen(t, nc, "replies")
	w := next(t, work)
	s.hold.Store(true)
	ok(t, w.Respond([]byte("done")))
	eventually(t, func() bool { return s.db.Held() == 1 })
	ok(t, nc.Flush())
	if n, _, _ := replies.Pending(); n != 0 {
		t.Error("the reply left before the removal was committed")
	}
	s.hold.Store(false)
	s.db.Release()
	if r := next(t, replies); string(r.Data) != "done" {
		t.Errorf("the reply is %q", r.Data)
	}
}

func TestQueueThatCannotTakeMoreSaysBusy(t *testing.T) {
	s := newSick(t)
	defer s.stop()
	nc := s.connect()
	defer nc.Close()
	s.hold.Store(true)
	refused := listen(t, nc, "refused")
	body := make([]byte, 900_000)
	busy := make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	go func() {
		defer close(busy)
		if m, err := refused.NextMsgWithContext(ctx); err != nil || !isCode(m, wire.CodeBusy) {
			t.Errorf("no item was refused as busy: %v", err)
		}
	}()
	for n := 0; n < 200; n++ {
		ok(t, nc.PublishMsg(&nats.Msg{Subject: address, Reply: "refused", Data: body}))
	}
	<-busy
	s.hold.Store(false)
	s.db.Release()
	eventually(t, func() bool { s.db.Release(); return s.broker.Stats()[address].Ready > 0 })
}

func isCode(m *nats.Msg, code wire.Code) bool {
	st, found := wire.ParseStatus(m.Data)
	return found && st.Code == string(code)
}
