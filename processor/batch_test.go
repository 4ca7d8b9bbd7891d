package processor_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/nats-io/nats.go"

	"stint/processor"
	"stint/wire"
)

// giveBatch sends the items in one message, each with its name as the body.
func (b *broker) giveBatch(items ...uint64) {
	b.t.Helper()
	b.giveFrames(items, func(item uint64) (wire.Header, []byte) { return nil, fmt.Append(nil, item) })
}

func (b *broker) giveFrames(items []uint64, of func(item uint64) (wire.Header, []byte)) {
	b.t.Helper()
	var data []byte
	for _, item := range items {
		h, body := of(item)
		data = wire.AppendFrame(data, wire.AppendWorkKey(nil, item, 1), h, body)
	}
	b.giveRaw(items[0], len(items), data)
}

func (b *broker) giveRaw(first uint64, n int, data []byte) {
	b.t.Helper()
	err := b.nc.PublishMsg(&nats.Msg{
		Subject: subject, Reply: wire.LeaseSubject(address, first, 1), Header: nats.Header(wire.BatchHeader(n)), Data: data,
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// answersIn reads the answers in a message, by item. One that came alone counts as well.
func answersIn(t testing.TB, m *nats.Msg) map[uint64]wire.Answer {
	t.Helper()
	all := map[uint64]wire.Answer{}
	first, _, ok := wire.ParseLease(address, m.Subject)
	if !ok {
		t.Fatalf("answers came at %s", m.Subject)
	}
	count := m.Header.Get(wire.HeaderBatch)
	if count == "" {
		all[first] = wire.ParseAnswer(wire.Header(m.Header), m.Data, m.Reply)
		return all
	}
	frames := wire.ReadFrames(count, m.Data)
	for frames.Next() {
		item, attempt, ok := wire.ParseWorkKey(frames.Key)
		h, err := frames.Header()
		if !ok || attempt != 1 || err != nil {
			t.Fatalf("frame %s: %v", frames.Key, err)
		}
		all[item] = wire.ParseAnswer(h, frames.Body, "")
	}
	if err := frames.Err(); err != nil {
		t.Fatal(err)
	}
	if _, there := all[first]; !there {
		t.Fatalf("the answers at %s are %v", m.Subject, all)
	}
	return all
}

// gathered is how many answers came in how many messages by now.
func (b *broker) gathered() (answers map[uint64]wire.Answer, messages int) {
	b.t.Helper()
	synctest.Wait()
	answers = map[uint64]wire.Answer{}
	for ; len(b.answers) > 0; messages++ {
		maps.Copy(answers, answersIn(b.t, <-b.answers))
	}
	return answers, messages
}

func TestBatchOfTheRegistration(t *testing.T) {
	for _, c := range []struct{ capacity, batch, want int }{
		{0, 0, 0}, {1, 0, 0}, {2, 0, 2}, {8, 0, 8}, {500, 0, 64}, {8, -1, 0}, {8, 1, 0}, {8, 3, 3}, {8, wire.MaxBatch, wire.MaxBatch},
	} {
		bubble(t, func(t *testing.T) {
			s := newStage(t, processor.Options{Capacity: c.capacity, Batch: c.batch}, echo)
			r := take(t, s.broker.registered, time.Second, "registration")
			if r.Batch != c.want {
				t.Errorf("capacity %d, batch %d: registered for %d", c.capacity, c.batch, r.Batch)
			}
			s.stop()
			synctest.Wait()
		})
	}
	o := processor.Options{Address: address, Batch: wire.MaxBatch + 1}
	if err := processor.Run(context.Background(), nil, o, echo); err == nil || !strings.Contains(err.Error(), "Options.Batch is 1001") {
		t.Errorf("got %v", err)
	}
}

// Answers that are ready at one time leave in one message, each with its own outcome.
func TestAnswersLeaveTogether(t *testing.T) {
	handler := func(_ context.Context, w *processor.Work) ([]byte, error) {
		switch string(w.Body) {
		case "2":
			return nil, errors.New("broken")
		case "3":
			return nil, processor.Release(time.Minute)
		case "4":
			return nil, w.SetReplyHeader("X", "y")
		}
		return append([]byte("done "), w.Body...), nil
	}
	play(t, processor.Options{Capacity: 100}, handler, func(t *testing.T, s *stage) {
		items := make([]uint64, 60)
		for i := range items {
			items[i] = uint64(i) + 1
		}
		s.broker.giveBatch(items...)
		got, messages := s.broker.gathered()
		if messages > len(items)/4 || len(got) != len(items) { // how many are ready at one time is the scheduler's affair
			t.Fatalf("%d answers came in %d messages", len(got), messages)
		}
		t.Logf("%d answers came in %d messages", len(got), messages)
		if got[1].Kind != wire.Done || string(got[5].Body) != "done 5" || got[2].Reason != "broken" ||
			got[3].Kind != wire.Nak || got[3].Delay != time.Minute || got[4].Kind != wire.Done {
			t.Errorf("the answers are %+v", got)
		}
	})
}

// A handler that takes long holds up nobody, and its answer leaves alone.
func TestASlowItemOfABatchHoldsUpNobody(t *testing.T) {
	handler := func(_ context.Context, w *processor.Work) ([]byte, error) {
		if string(w.Body) == "1" {
			pause(15 * time.Second) // with a sign of life
		}
		return w.Body, nil
	}
	play(t, processor.Options{Capacity: 100}, handler, func(t *testing.T, s *stage) {
		s.broker.giveBatch(1, 2, 3)
		if got, _ := s.broker.gathered(); len(got) != 2 {
			t.Fatalf("%d answers came", len(got))
		}
		s.broker.expectIn(11*time.Second, 1, 1, wire.Answer{Kind: wire.Working})
		s.broker.expectIn(6*time.Second, 1, 1, wire.Answer{Kind: wire.Done, Body: []byte("1")})
		s.broker.silence(time.Second)
	})
}

// Work that came alone is answered alone: the broker may know nothing of batches.
func TestWorkThatCameAloneIsAnsweredAlone(t *testing.T) {
	play(t, processor.Options{Capacity: 100}, until(time.Second), func(t *testing.T, s *stage) {
		s.broker.give(1, 1, "a", nil)
		s.broker.give(2, 1, "b", nil)
		pause(2 * time.Second)
		synctest.Wait()
		if n := len(s.broker.answers); n != 2 {
			t.Fatalf("%d messages came", n)
		}
	})
}

func TestItemsOfABatchBeyondCapacity(t *testing.T) {
	play(t, processor.Options{Capacity: 2}, until(time.Second), func(t *testing.T, s *stage) {
		s.broker.giveBatch(1, 2, 3, 4)
		got, messages := s.broker.gathered()
		if messages > 2 || len(got) != 2 || got[3].Kind != wire.Nak || got[4].Kind != wire.Nak || !got[4].HasDelay {
			t.Fatalf("in %d messages came %+v", messages, got)
		}
	})
}

// What can be read of a batch is done.
func TestABatchThatBreaksOff(t *testing.T) {
	play(t, processor.Options{Capacity: 9}, echo, func(t *testing.T, s *stage) {
		data := wire.AppendFrame(nil, "1.1", nil, []byte("one"))
		data = wire.AppendFrame(data, "no.key", nil, nil)
		data = wire.AppendFrame(data, "2.1", nil, []byte("two"))
		s.broker.giveRaw(1, 4, append(data, "nonsense"...))
		got, _ := s.broker.gathered()
		if len(got) != 2 || string(got[1].Body) != "one" || string(got[2].Body) != "two" {
			t.Errorf("the answers are %+v", got)
		}
	})
}

func TestWorkOfABatchTellsWhatCame(t *testing.T) {
	works := make(chan *processor.Work, 9)
	handler := func(_ context.Context, w *processor.Work) ([]byte, error) {
		works <- &processor.Work{Address: w.Address, Item: w.Item, Attempt: w.Attempt, Header: w.Header, Body: w.Body}
		return nil, nil
	}
	bubble(t, func(t *testing.T) {
		perform(t, processor.Options{Capacity: 9}, handler, func(t *testing.T, s *stage) {
			s.broker.giveFrames([]uint64{36, 37}, func(item uint64) (wire.Header, []byte) {
				if item == 36 {
					return wire.Header{"Trace": {"t"}}, []byte("a")
				}
				return nil, nil
			})
			synctest.Wait()
			for range 2 {
				switch w := <-works; {
				case w.Address != address || w.Attempt != 1:
					t.Errorf("got %+v", w)
				case w.Item == "10" && (w.Header.Get("Trace") != "t" || string(w.Body) != "a"):
					t.Errorf("got %+v", w)
				case w.Item == "11" && (len(w.Header) != 0 || len(w.Body) != 0):
					t.Errorf("got %+v", w)
				}
			}
		})
	})
}

// An item that takes long must not keep a large message in memory.
func TestItemsOfALargeBatchHaveMemoryOfTheirOwn(t *testing.T) {
	bodies := make(chan []byte, 9)
	handler := func(_ context.Context, w *processor.Work) ([]byte, error) {
		bodies <- w.Body
		return nil, nil
	}
	items := []uint64{1, 2}
	of := func(uint64) (wire.Header, []byte) { return nil, bytes.Repeat([]byte("x"), 40<<10) }
	s := newStage(t, processor.Options{Capacity: 9}, handler)
	take(t, s.broker.registered, time.Second, "registration")
	s.bus.opts.MaxPayload = 1 << 20
	s.bus.stop()
	s.bus.start()
	take(t, s.broker.registered, 10*time.Second, "registration")
	s.broker.giveFrames(items, of)
	one, other := take(t, bodies, time.Second, "item"), take(t, bodies, time.Second, "item")
	apart := uintptr(unsafe.Pointer(&one[0])) - uintptr(unsafe.Pointer(&other[0]))
	frame := uintptr(len(one) + len("\n2.1 0 40960\n"))
	if apart == frame || -apart == frame {
		t.Error("the bodies are parts of one message")
	}
}

// Answers that do not fit in one message of NATS' go in several, and one that fits in none becomes a failure.
func TestAnswersAreSplitAtMaxPayload(t *testing.T) {
	handler := func(_ context.Context, w *processor.Work) ([]byte, error) {
		if string(w.Body) == "5" {
			return make([]byte, 70<<10), nil
		}
		return make([]byte, 30<<10), nil
	}
	play(t, processor.Options{Capacity: 100}, handler, func(t *testing.T, s *stage) {
		s.broker.giveBatch(1, 2, 3, 4, 5)
		got, messages := s.broker.gathered()
		if messages < 3 || len(got) != 5 || len(got[4].Body) != 30<<10 || !strings.Contains(got[5].Reason, "larger than the NATS server's max_payload") {
			t.Errorf("%d answers came in %d messages: %s", len(got), messages, got[5].Reason)
		}
	})
}

func TestNoMoreAnswersThanTheBatch(t *testing.T) {
	play(t, processor.Options{Capacity: 100, Batch: 2}, echo, func(t *testing.T, s *stage) {
		s.broker.giveBatch(1, 2, 3, 4, 5)
		if got, messages := s.broker.gathered(); messages < 3 || len(got) != 5 {
			t.Errorf("%d answers came in %d messages", len(got), messages)
		}
	})
}

// Outcomes reached while the broker is out of reach are kept one by one, and leave when it has been heard.
func TestOutcomesOfABatchDuringADisconnect(t *testing.T) {
	play(t, processor.Options{Capacity: 9}, until(time.Second), func(t *testing.T, s *stage) {
		s.broker.giveBatch(1, 2, 3)
		synctest.Wait()
		s.bus.stop()
		pause(5 * time.Second)
		s.broker.say(nil)
		s.bus.start()
		s.broker.silence(3 * time.Second)
		s.broker.say(wire.OK())
		pause(10 * time.Second)
		got, _ := s.broker.gathered()
		if keys := slices.Sorted(maps.Keys(got)); !slices.Equal(keys, []uint64{1, 2, 3}) || got[3].Kind != wire.Done {
			t.Errorf("the answers are %+v", got)
		}
	})
}

func TestDrainOfABatch(t *testing.T) {
	play(t, processor.Options{Capacity: 9}, until(5*time.Second), func(t *testing.T, s *stage) {
		s.broker.giveBatch(1, 2, 3)
		pause(time.Second)
		s.stop()
		take(t, s.broker.unregistered, time.Second, "unregister")
		s.broker.giveBatch(4, 5)
		if err := s.result(10 * time.Second); err != nil {
			t.Fatal(err)
		}
		got, messages := s.broker.gathered()
		if messages > 5 || got[5].Kind != wire.Nak || got[4].HasDelay || got[3].Kind != wire.Done || len(got) != 5 {
			t.Errorf("in %d messages came %+v", messages, got)
		}
	})
}
