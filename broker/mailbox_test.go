package broker

import (
	"log/slog"
	"testing"
	"unsafe"

	"stint/broker/queue"
	"stint/wire"
)

// The mailbox is bounded in bytes, and yet no event is too large for an empty one: it would block the intake for ever.
func TestMailboxIsBoundedInBytes(t *testing.T) {
	a := newActor("q", nil, nil, slog.New(slog.DiscardHandler), nil)
	if !a.offer(&queue.SentBatch{Bytes: mailboxBytes + 1}) {
		t.Error("a large batch has no room in an empty mailbox")
	}
	if a.offer(&queue.AnsweredBatch{Bytes: 1}) || a.offer(&queue.SentBatch{Bytes: 1}) {
		t.Error("there is room in a full mailbox")
	}
	a.mailed.Add(-bodySize(<-a.mail))
	if !a.offer(&queue.AnsweredBatch{Bytes: mailboxBytes}) || a.offer(&queue.SentBatch{Bytes: 1}) {
		t.Error("the bound does not hold exactly")
	}
}

func TestWhatAnItemTakesInTheMailbox(t *testing.T) {
	for _, size := range []uintptr{unsafe.Sizeof(queue.BatchItem{}), unsafe.Sizeof(queue.Answered{})} {
		if size > itemMemory {
			t.Errorf("an item takes %d bytes, counted as %d", size, itemMemory)
		}
	}
}

// A message of replies has as many as NATS takes and a batch may have; another one follows.
func TestGatheredRepliesAreSplit(t *testing.T) {
	var g gatherer
	fill := func(subject string, size int) *gathering {
		one := g.open(subject, size, 1000)
		one.frames = append(one.frames, make([]byte, size)...)
		one.n++
		return one
	}
	first := fill("a", 600)
	if fill("a", 400) != first || fill("a", 1) == first || fill("b", 1) == first || len(g.waiting) != 3 {
		t.Error("the bytes of a message are not bounded as they should be")
	}
	second := g.open("a", 1, 1000)
	second.n = wire.MaxBatch
	if g.open("a", 1, 1000) == second {
		t.Error("a message has more frames than a batch may have")
	}
	all := g.take()
	if len(all) != 4 || !g.empty() {
		t.Errorf("%d messages are to leave", len(all))
	}
	g.reuse(all)
	if again := g.open("a", 1, 1000); again.n != 0 || len(again.frames) != 0 {
		t.Error("a message that is used again is not empty")
	}
}
