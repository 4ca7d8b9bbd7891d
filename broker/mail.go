package broker

import (
	"sync/atomic"

	"stint/broker/queue"
)

const (
	// maxLetters and mailboxBytes bound what the intake has sent to one actor that was not stepped, parcels what waits for an
	// owner to look at it.
	maxLetters   = 1024
	mailboxBytes = 32 << 20
	parcels      = 64
	// smallMail is how many letters may wait that do not come from the intake. Whoever has more to say waits.
	smallMail = 1024
	// parcelRoom is how many letters go together at most: more of them, and the owner waits where it could work.
	parcelRoom = 64
)

// letter is an event on its way to an actor.
type letter struct {
	to    *actor
	ev    queue.Event
	bytes int64 // what it counts in the mailbox; notCounted: it does not come from the intake
}

const notCounted = -1

// parcel is letters from the intake to its owner that go together: for each to go alone took a tenth of the time of both. The
// usual events lie in the parcel, which is used again once all are stepped.
type parcel struct {
	letters []letter
	next    int // the owner's: the first that was not received
	sents   []queue.Sent
	answers []queue.Answered
}

func newParcel() *parcel {
	return &parcel{
		letters: make([]letter, 0, parcelRoom), sents: make([]queue.Sent, 0, parcelRoom), answers: make([]queue.Answered, 0, parcelRoom),
	}
}

func (p *parcel) full() bool { return len(p.letters) == parcelRoom }

// add puts an event in. The parcel must not be full. It has a copy of what comes most.
func (p *parcel) add(to *actor, ev queue.Event, bytes int64) {
	switch e := ev.(type) {
	case *queue.Sent:
		p.sents = append(p.sents, *e)
		ev = &p.sents[len(p.sents)-1]
	case *queue.Answered:
		p.answers = append(p.answers, *e)
		ev = &p.answers[len(p.answers)-1]
	}
	p.letters = append(p.letters, letter{to, ev, bytes})
}

// empty makes the parcel ready for another use.
func (p *parcel) empty() {
	clear(p.letters)
	clear(p.sents)
	clear(p.answers)
	p.letters, p.sents, p.answers, p.next = p.letters[:0], p.sents[:0], p.answers[:0], 0
}

// kept is an event that outlives its parcel, or the memory in which the intake made it.
func kept(ev queue.Event) queue.Event {
	switch e := ev.(type) {
	case *queue.Sent:
		c := *e
		return &c
	case *queue.Answered:
		c := *e
		return &c
	}
	return ev
}

// bodySize is what an event counts against mailboxBytes.
func bodySize(ev queue.Event) int64 {
	switch e := ev.(type) {
	case *queue.Sent:
		return int64(len(e.Body))
	case *queue.SentBatch:
		return int64(e.Bytes)
	case *queue.AnsweredBatch:
		return int64(e.Bytes)
	case *queue.Answered:
		return int64(len(e.Body))
	case *queue.Talked:
		return int64(len(e.Body))
	}
	return 0
}

// traffic is letters and the bytes of the bodies in them, counted from the beginning.
type traffic struct{ letters, bytes int64 }

func (t *traffic) add(bytes int64) {
	t.letters++
	t.bytes += bytes
}

// stepped is the traffic that an actor has stepped, as the intake may read it.
type stepped struct{ letters, bytes atomic.Int64 }

func (s *stepped) say(t traffic) {
	s.letters.Store(t.letters)
	s.bytes.Store(t.bytes)
}

// mailbox is the intake's view of what one actor has still to step. To ask the actor would have both processors reach for the same
// memory for each letter, so that is done only when it matters.
type mailbox struct {
	sent, stepped traffic
	of            *stepped
}

// hasRoom says whether an event with such a body may be sent. One that is larger than all has room when nothing else is there.
func (m *mailbox) hasRoom(bytes int64) bool {
	if m.fits(bytes) {
		return true
	}
	m.stepped = traffic{m.of.letters.Load(), m.of.bytes.Load()}
	return m.fits(bytes)
}

func (m *mailbox) fits(bytes int64) bool {
	there := m.sent.bytes - m.stepped.bytes
	return m.sent.letters-m.stepped.letters < maxLetters && (there == 0 || there+bytes <= mailboxBytes)
}

// post gives a small event to the actor and waits for room, unless the owner has ended. It is for all but the intake.
func (a *actor) post(ev queue.Event) {
	select {
	case a.o.mail <- letter{a, ev, notCounted}:
	case <-a.o.done:
	}
}

// tell is post that does not wait for an owner that takes no mail.
func (a *actor) tell(ev queue.Event) {
	select {
	case a.o.mail <- letter{a, ev, notCounted}:
	default:
		go a.post(ev)
	}
}
