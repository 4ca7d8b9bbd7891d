package processor

import (
	"sync"

	"github.com/nats-io/nats.go"
)

// outbox keeps the outcomes that handlers reach while the broker is out of reach. nats.go would keep them too, but it
// sends what it kept the moment the connection is back, and a broker that was restarted together with its server may not
// listen yet. So they wait until the broker has been heard.
type outbox struct {
	mu   sync.Mutex //nolint:forbidigo // guards all of it between N handlers and Run
	away bool       // the connection was lost and the broker has not been heard since
	kept []outgoing
	room int
}

type outgoing struct {
	w *Work
	m *nats.Msg
}

// leave notes that the connection is lost.
func (o *outbox) leave() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.away = true
}

// keep takes an answer that should not leave now. It is false when the answer may leave, or when there is no room: then
// more items have ended than can have been in hand.
func (o *outbox) keep(w *Work, m *nats.Msg, connected bool) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if connected && !o.away || len(o.kept) >= o.room {
		return false
	}
	o.away = true
	o.kept = append(o.kept, outgoing{w, m})
	return true
}

// back notes that the broker has been heard, and gives what was kept, in order.
func (o *outbox) back() []outgoing {
	o.mu.Lock()
	defer o.mu.Unlock()
	kept := o.kept
	o.away, o.kept = false, nil
	return kept
}

// wasAway says that the broker has not been heard since the connection was lost.
func (o *outbox) wasAway() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.away
}
