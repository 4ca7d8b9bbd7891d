package broker

import (
	"log/slog"
	"strconv"
	"testing"
	"time"
	"unsafe"

	"github.com/nats-io/nats.go"
	"pgregory.net/rapid"

	"stint/broker/queue"
	"stint/store"
	"stint/wire"
)

func testActor() *actor {
	q := queue.New(queue.Options{Config: queue.Config{Address: "q"}.WithDefaults(true), Persistent: true}, store.Snapshot{Epoch: 1}, time.Now())
	return newActor(newOwner(1), queue.Config{Address: "q"}, q, nil, slog.New(slog.DiscardHandler), nil)
}

// testInlet is an actor's way in. Nobody else sends to its owner.
func testInlet() *inlet {
	a := testActor()
	k := newIntake(a.o)
	k.add(&bus{log: a.log}, a)
	return k.routes[0].in
}

// step has the owner look at all that was sent.
func (in *inlet) step() {
	in.intake.send()
	for len(in.a.o.parcels) > 0 {
		in.a.o.open = <-in.a.o.parcels
		for in.a.o.open != nil {
			in.a.o.receive()
		}
	}
	in.a.stepped.say(in.a.mail)
}

// The mailbox is bounded in bytes, and yet no event is too large for an empty one: it would block the intake for ever.
func TestMailboxIsBoundedInBytes(t *testing.T) {
	in := testInlet()
	if !in.offer(&queue.SentBatch{Bytes: mailboxBytes + 1}) {
		t.Error("a large batch has no room in an empty mailbox")
	}
	if in.offer(&queue.AnsweredBatch{Bytes: 1}) || in.offer(&queue.SentBatch{Bytes: 1}) {
		t.Error("there is room in a full mailbox")
	}
	in.step()
	if !in.offer(&queue.AnsweredBatch{Bytes: mailboxBytes}) || in.offer(&queue.SentBatch{Bytes: 1}) {
		t.Error("the bound does not hold exactly")
	}
}

func TestMailboxIsBoundedInLetters(t *testing.T) {
	in := testInlet()
	for range 2 {
		for n := range maxLetters {
			if !in.offer(queue.Tick{}) {
				t.Fatalf("letter %d has no room", n)
			}
		}
		if in.offer(queue.Tick{}) {
			t.Error("there is room in a full mailbox")
		}
		in.step()
	}
}

// While no more parcels can be sent nothing is put together for one either: the intake must not wait.
func TestParcelsAreBounded(t *testing.T) {
	in := testInlet()
	for n := range parcels {
		if !in.offer(queue.Tick{}) {
			t.Fatalf("parcel %d has no room", n)
		}
		in.intake.send()
	}
	if in.offer(queue.Tick{}) {
		t.Error("there is room for another parcel")
	}
	in.step()
	if !in.offer(queue.Tick{}) {
		t.Error("there is no room when all were received")
	}
}

// An event does not wait for the end of a stream of messages that make none.
func TestParcelLeavesAmongMessagesWithoutEvents(t *testing.T) {
	in := testInlet()
	k := in.intake
	sends, answers := &nats.Subscription{}, &nats.Subscription{}
	for _, r := range k.routes {
		switch r.subject {
		case "q":
			k.subs[sends] = r
		case wire.LeasePattern("q"):
			k.subs[answers] = r
		}
	}
	k.flow <- &nats.Msg{Subject: "q", Sub: sends}
	for range 3 * parcelRoom {
		k.flow <- &nats.Msg{Subject: "q.lease.no.lease", Sub: answers}
	}
	k.flow <- &nats.Msg{Subject: "q", Sub: sends}
	go k.run()
	if p := <-k.o.parcels; len(p.letters) != 1 {
		t.Errorf("the first parcel has %d letters: it waited for the last message", len(p.letters))
	}
	close(k.o.quit)
	<-k.done
}

// Mail that does not come from the intake is received in one round, as far as that goes.
func TestMailIsReceivedTogether(t *testing.T) {
	a := testActor()
	for range 3 {
		a.o.mail <- letter{a, queue.Tick{}, notCounted}
	}
	a.o.receiveMail(letter{a, queue.Tick{}, notCounted})
	if len(a.o.mail) != 0 || a.mail.letters != 0 {
		t.Errorf("%d letters are left, %d are counted as the intake's", len(a.o.mail), a.mail.letters)
	}
	a.o.mail <- letter{a, queue.Tick{}, notCounted}
	a.o.commits <- commit{}
	a.o.receiveMail(letter{a, queue.Tick{}, notCounted})
	if len(a.o.mail) != 1 {
		t.Error("the result of a batch waits for mail")
	}
}

// What the server said is asked again once time has passed.
func TestWhoListensIsAskedAgainAfterAWait(t *testing.T) {
	asked := 0
	b := &bus{listens: func(string) bool { asked++; return asked == 1 }}
	o := newOwner(1)
	first := o.listens(b, "s")
	if again := o.listens(b, "s"); !first || !again || asked != 1 {
		t.Errorf("the server was asked %d times in a round", asked)
	}
	o.waited()
	if o.listens(b, "s") {
		t.Error("what was true before a wait is believed after it")
	}
}

// Events keep their order: through several parcels, and when some have to wait for the mailbox.
func TestEventsKeepTheirOrder(t *testing.T) {
	in := testInlet()
	const all = 3*maxLetters + 5
	var ev queue.Sent // one for all, as the intake does it
	for n := range all {
		ev = queue.Sent{Body: []byte{1}, Send: wire.Send{AcceptedReply: strconv.Itoa(n)}}
		if !in.post(&ev) {
			t.Fatalf("event %d was given up", n)
		}
		if n%(maxLetters+100) == 0 {
			in.step() // so that there is room for the next, though others wait
		}
	}
	for in.backlog.Len() > 0 || in.intake.open != nil {
		in.step()
		in.catchUp()
	}
	if in.bytes != 0 {
		t.Errorf("%d bytes are counted as waiting", in.bytes)
	}
	if p := <-in.a.o.empties; len(p.letters) > 0 || p.sents[:1][0].Body != nil {
		t.Error("an empty parcel holds something")
	}
	b := in.a.q.Take(time.Now().Add(time.Second))
	if len(b.After) != all {
		t.Fatalf("%d of %d are accepted", len(b.After), all)
	}
	for n := range b.After {
		if want := strconv.Itoa(n); b.After[n].To != want {
			t.Fatalf("%s is accepted where %s should be", b.After[n].To, want)
		}
	}
}

// What comes while the rules are full is stepped once they have written something, in the order in which it came, and holds
// its place in the mailbox until then. It does not refer to the parcel that it came in.
func TestWhatComesWhileTheRulesAreFull(t *testing.T) {
	in := testInlet()
	a := in.a
	full := 0
	for ; !a.q.Full(); full++ {
		a.step(&queue.Sent{})
	}
	for n := range 3 {
		if !in.post(&queue.Sent{Send: wire.Send{AcceptedReply: string(rune('a' + n))}}) {
			t.Fatal("there is no room")
		}
	}
	in.step()
	if got := int(a.q.Stats().Accepted); got != full || a.mail.letters != 0 {
		t.Fatalf("%d of %d were stepped, %d letters are counted", got, full, a.mail.letters)
	}
	if a.catchUp() {
		t.Error("something was stepped while the rules were full")
	}
	a.q.Take(time.Now())
	a.step(queue.Committed{})
	if !a.catchUp() || a.catchUp() || a.mail.letters != 3 {
		t.Errorf("%d letters are counted", a.mail.letters)
	}
	b := a.q.Take(time.Now().Add(time.Second)) // when no company has come
	for n := range b.After {
		if want := string(rune('a' + n)); b.After[n].To != want {
			t.Errorf("%s is accepted where %s should be", b.After[n].To, want)
		}
	}
	if len(b.After) != 3 {
		t.Errorf("%d are accepted", len(b.After))
	}
}

// The alarms wake whoever is next.
func TestAlarms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h alarms
		all := make([]*actor, 5)
		for i := range all {
			all[i] = &actor{}
		}
		for range rapid.IntRange(1, 50).Draw(t, "changes") {
			a := all[rapid.IntRange(0, len(all)-1).Draw(t, "actor")]
			var when time.Time
			if s := rapid.IntRange(0, 9).Draw(t, "when"); s > 0 {
				when = time.Unix(int64(s), 0)
			}
			h.set(a, when)
			var next time.Time
			for _, a := range all {
				if !a.wake.IsZero() && (next.IsZero() || a.wake.Before(next)) {
					next = a.wake
				}
			}
			if first := h.first(); (first == nil) != next.IsZero() || first != nil && !first.wake.Equal(next) {
				t.Fatalf("%v is next, not %v", first, next)
			}
		}
	})
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
