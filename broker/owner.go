package broker

import (
	"container/heap"
	"runtime"
	"sync/atomic"
	"time"

	"stint/broker/queue"
	"stint/internal/agenda"
)

// atOnce bounds the items that the events of one round are about, but for the last event, so that commits and timers get their
// turn.
const atOnce = 512

// owner is the goroutine of some queues of one database: they share its wake-ups, its timer and its view of how busy things
// are. Each event goes to one actor; what follows from all events of a round is done at the end of it.
type owner struct {
	actors []*actor
	flow   queue.Flow

	parcels chan *parcel  // from the intake
	empties chan *parcel  // to the intake, to be filled again
	open    *parcel       // is being received
	mail    chan letter   // from others
	commits chan commit   // from the engine: an actor has one under way, so there is room for all
	health  chan error    // from the broker: changes in the store's health
	watch   chan struct{} // from the broker: look at the processors' subscriptions
	holds   atomic.Bool   // for the broker: processors hold work or are absent, so watching them matters
	asks    chan func()   // from the broker: run this between two rounds
	quit    chan struct{} // closed to end the loop
	done    chan struct{} // closed when the loop has ended
	touched []*actor      // have something to finish at the end of the round
	holding int           // actors whose processors hold work or are absent
	alarms  alarms        // actors that want to be woken, the next first
	timer   *time.Timer   // for the first of alarms
	wake    time.Time     // what the timer is set to
	heard   hearing
	now     time.Time // see clock
	uses    int       // of now
}

// commit is the result of the batch that an actor had under way.
type commit struct {
	of  *actor
	err error
}

// ownersOf is how many owners share so many queues of a database: one for each processor of the machine, for that is how many
// can run.
func ownersOf(queues int) int { return max(1, min(queues, runtime.GOMAXPROCS(0)/2)) }

// newOwner makes an owner for at most so many queues.
func newOwner(queues int) *owner {
	return &owner{
		parcels: make(chan *parcel, parcels), empties: make(chan *parcel, parcels),
		mail: make(chan letter, smallMail), commits: make(chan commit, queues), health: make(chan error),
		watch: make(chan struct{}, 1), asks: make(chan func()),
		quit: make(chan struct{}), done: make(chan struct{}),
	}
}

// run is the loop. It ends when quit is closed. All actors are there before it begins.
func (o *owner) run() {
	defer close(o.done)
	o.timer = time.NewTimer(time.Hour)
	defer o.timer.Stop()
	for _, a := range o.actors {
		a.step(queue.Tick{})
	}
	for {
		o.takeCommits()
		o.finish()
		o.setTimer()
		o.waited()
		from, rest := o.parcels, (<-chan struct{})(nil)
		if o.open != nil {
			from, rest = nil, always
		}
		select {
		case o.open = <-from:
			runtime.Gosched() // the intake is often about to send more, and a round for one costs as much as for many
			o.receive()
		case <-rest:
			o.receive()
		case l := <-o.mail:
			o.receiveMail(l)
		case c := <-o.commits:
			c.of.committed(c.err)
		case err := <-o.health:
			o.healthChanged(err)
		case <-o.watch:
			o.lookAtProcessors()
		case <-o.timer.C:
			o.wake = time.Time{}
			o.tick()
		case f := <-o.asks:
			f()
		case <-o.quit:
			return
		}
	}
}

// always is ready.
var always = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// receive gives out what is left of the open parcel and what else waits, until a batch comes back: the disk has nothing to do
// before the next one.
func (o *owner) receive() {
	for n := 0; ; {
		for p := o.open; p.next < len(p.letters); {
			l := &p.letters[p.next]
			p.next++
			if n += l.to.receive(l); n >= atOnce || len(o.commits) > 0 {
				return
			}
		}
		o.open.empty()
		select {
		case o.empties <- o.open:
		default:
		}
		select {
		case o.open = <-o.parcels:
		default:
			o.open = nil
			return
		}
	}
}

// receiveMail gives out l and what else waits, within the same bounds.
func (o *owner) receiveMail(l letter) {
	for n := 0; ; {
		if n += l.to.receive(&l); n >= atOnce || len(o.commits) > 0 {
			return
		}
		select {
		case l = <-o.mail:
		default:
			return
		}
	}
}

// waited says that time has passed since the round began: what was true before may have changed.
func (o *owner) waited() { o.uses, o.heard = 0, hearing{} }

// takeCommits gives out the results that have come back.
func (o *owner) takeCommits() {
	for {
		select {
		case c := <-o.commits:
			c.of.committed(c.err)
		default:
			return
		}
	}
}

// healthChanged steps a change in the store's health, after the results of batches that came before it.
func (o *owner) healthChanged(err error) {
	o.takeCommits()
	for _, a := range o.actors {
		a.step(queue.Stored{Err: err})
	}
}

func (o *owner) lookAtProcessors() {
	for _, a := range o.actors {
		if a.holds {
			a.lookAtProcessors()
		}
	}
}

// touch notes that an actor has to finish what a step began.
func (o *owner) touch(a *actor) {
	if !a.touched {
		a.touched = true
		o.touched = append(o.touched, a)
	}
}

// finish ends a round.
func (o *owner) finish() {
	for _, a := range o.touched {
		a.finish()
		a.touched = false // and not before: to finish takes steps
		if h := a.q.Holding(); h != a.holds {
			a.holds = h
			o.count(h)
		}
		o.alarms.set(a, a.q.Next())
	}
	clear(o.touched)
	o.touched = o.touched[:0]
}

func (o *owner) count(holds bool) {
	if holds {
		o.holding++
	} else {
		o.holding--
	}
	o.holds.Store(o.holding > 0)
}

// tick wakes those whose time has come.
func (o *owner) tick() {
	now := o.clock()
	for a := o.alarms.first(); a != nil && !a.wake.After(now); a = o.alarms.first() {
		o.alarms.set(a, time.Time{}) // finish sets it anew
		a.step(queue.Tick{})
	}
}

func (o *owner) setTimer() {
	var next time.Time
	if a := o.alarms.first(); a != nil {
		next = a.wake
	}
	if next.Equal(o.wake) {
		return
	}
	o.wake = next
	if next.IsZero() {
		o.timer.Stop()
		return
	}
	o.timer.Reset(max(0, time.Until(next)))
}

// clockUses is for how many events in a row the time is read once. To read it for each was 3 % of the processor time of a
// round trip; they take microseconds, and what depends on the time takes milliseconds.
const clockUses = 8

// clock is the time. It is read anew after every wait.
func (o *owner) clock() time.Time {
	if o.uses == 0 {
		o.now = time.Now()
	}
	o.uses = (o.uses + 1) % clockUses
	return o.now
}

// hearing is what the server last said of a subject, until the owner waits again: senders use one for many items and queues, and to
// ask took longer than to publish.
type hearing struct {
	subject string
	yes     bool
}

// listens says whether the embedded server has a subscription for a subject that is not empty.
func (o *owner) listens(b *bus, subject string) bool {
	if o.heard.subject != subject {
		o.heard = hearing{subject, b.listens(subject)}
	}
	return o.heard.yes
}

// ask runs f, about a, between two rounds and waits for it. Once the owner has ended f is not run.
func (o *owner) ask(f func()) {
	ran := make(chan struct{})
	select {
	case o.asks <- func() { f(); close(ran) }:
		<-ran
	case <-o.done:
	}
}

// alarms is a heap of actors by when they want to be woken.
type alarms struct{ h agenda.Heap[*actor] }

func (l *alarms) first() *actor {
	if len(l.h) == 0 {
		return nil
	}
	return l.h[0]
}

// set changes when an actor is woken; the zero time: not at all.
func (l *alarms) set(a *actor, t time.Time) {
	before := a.wake
	a.wake = t
	switch {
	case t.Equal(before):
	case t.IsZero():
		heap.Remove(&l.h, a.alarm)
	case before.IsZero():
		heap.Push(&l.h, a)
	default:
		heap.Fix(&l.h, a.alarm)
	}
}

// When implements agenda.Entry.
func (a *actor) When() time.Time { return a.wake }

// Index implements agenda.Entry.
func (a *actor) Index() *int { return &a.alarm }
