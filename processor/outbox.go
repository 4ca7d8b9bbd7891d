package processor

import (
	"sync"

	"github.com/nats-io/nats.go"
)

// outbox keeps the outcomes that handlers reach while the broker is out of reach. nats.go would keep them too, but it
// sends what it kept the moment the connection is back, and a broker that was restarted together with its server may not
// listen yet. So they wait until the broker has been heard.
type outbox struct {
	mu     sync.Mutex //nolint:forbidigo // guards all of it between N handlers and Run
	away   bool       // the connection was lost and the broker has not been heard since
	losses uint64     // how often it was lost
	kept   []outgoing
	room   int
}

type outgoing struct {
	w *Work
	m *nats.Msg
}

// leave notes that the connection is lost.
func (o *outbox) leave() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lost()
}

func (o *outbox) lost() {
	o.away = true
	o.losses++
}

// keep takes an answer that should not leave now. It is false when the answer may leave, or when there is no room: then
// more items have ended than can have been in hand.
func (o *outbox) keep(w *Work, m *nats.Msg, connected bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if connected && !o.away || len(o.kept) >= o.room {
		return false
	}
	if !connected {
		o.lost()
	}
	o.kept = append(o.kept, outgoing{w, m})
	return true
}

// times is how often the connection was lost. Whoever asks the broker something notes it before, for [outbox.heard].
func (o *outbox) times() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.losses
}

// heard says that an answer to what was asked after so many losses is the first since the last of them. An answer that
// came just before a loss and is looked at after it says nothing about the broker's being there.
func (o *outbox) heard(times uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.away && o.losses == times
}

// back ends the absence and gives what was kept, in order.
func (o *outbox) back() []outgoing {
	o.mu.Lock()
	defer o.mu.Unlock()
	kept := o.kept
	o.away, o.kept = false, nil
	return kept
}
