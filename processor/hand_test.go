package processor

import (
	"context"
	"log/slog"
	"runtime"
	"testing"
	"time"
)

// The slot is free before the answer leaves, or the broker's next item could be refused. From outside the moment between
// the two is too short to be met; here the answer is held up.
func TestSlotIsFreeBeforeTheAnswer(t *testing.T) {
	p := &processor{
		o: Options{ProcessTimeout: time.Minute}, log: slog.New(slog.DiscardHandler), hand: newHand(1),
		handler: func(context.Context, *Work) ([]byte, error) { return nil, nil },
	}
	w := &Work{Item: "1", p: p, received: time.Now(), timeout: time.Minute}
	w.hold(t.Context())
	if v, _ := p.hand.take(w); v != taken {
		t.Fatal("there is no slot at the start")
	}
	w.mu.Lock() // whoever settles the item waits
	go p.handle(w)
	v := full
	for limit := time.Now().Add(5 * time.Second); v == full && time.Now().Before(limit); runtime.Gosched() {
		v, _ = p.hand.take(&Work{Item: "2"})
	}
	w.close() // without a connection: the outcome is dropped
	w.mu.Unlock()
	if v != taken {
		t.Error("the slot is taken although the handler has returned")
	}
}
