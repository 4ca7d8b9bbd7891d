package broker_test

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"stint/store"
	"stint/wire"
)

// part is a frame as a test sees it.
type part struct {
	key, body string
	header    wire.Header
}

// parts reads a batch.
func parts(t testing.TB, m *nats.Msg) (all []part) {
	t.Helper()
	frames := wire.ReadFrames(m.Header.Get(wire.HeaderBatch), m.Data)
	for frames.Next() {
		h, err := frames.Header()
		if err != nil {
			t.Fatalf("frame %s: %v", frames.Key, err)
		}
		all = append(all, part{string(frames.Key), string(frames.Body), h})
	}
	if err := frames.Err(); err != nil {
		t.Fatalf("%q is no batch: %v", m.Data, err)
	}
	return all
}

// batch makes a message of frames, each with its own number as the key.
func batch(h nats.Header, bodies ...string) *nats.Msg {
	var data []byte
	for i, body := range bodies {
		data = wire.AppendFrame(data, strconv.Itoa(i), nil, []byte(body))
	}
	m := &nats.Msg{Subject: address, Header: nats.Header{wire.HeaderBatch: {strconv.Itoa(len(bodies))}}, Data: data}
	for name, values := range h {
		m.Header[name] = values
	}
	return m
}

func notice(t testing.TB, m *nats.Msg) wire.BatchAccepted {
	t.Helper()
	b, found := wire.ParseBatchAccepted(m.Data)
	if !found {
		t.Fatalf("%q is no notice of a batch", m.Data)
	}
	return b
}

func registerBatch(t testing.TB, nc *nats.Conn, processor string, capacity, n int) {
	t.Helper()
	body := wire.RegisterBody(wire.Registration{Processor: processor, Capacity: capacity, Batch: n})
	m, err := nc.Request(wire.RegisterSubject(address), body, wait)
	ok(t, err)
	if st := status(t, m); st.Status != "ok" {
		t.Fatalf("register: %s", m.Data)
	}
}

// answerAll answers the work of a message in one, with the body in capitals.
func answerAll(t testing.TB, nc *nats.Conn, work *nats.Msg) {
	t.Helper()
	all := parts(t, work)
	var data []byte
	for _, p := range all {
		data = wire.AppendFrame(data, p.key, nil, bytes.ToUpper([]byte(p.body)))
	}
	ok(t, nc.PublishMsg(&nats.Msg{Subject: work.Reply, Header: nats.Header(wire.BatchHeader(len(all))), Data: data}))
}

var gatherThem = nats.Header{wire.HeaderAcceptedReply: {"accepts"}, wire.HeaderBatchReplies: {"gathered"}}

func TestBatchFromEndToEnd(t *testing.T) {
	each(t, func(t *testing.T, h *house, nc *nats.Conn) {
		work, accepts, replies := listen(t, nc, "p1"), listen(t, nc, "accepts"), listen(t, nc, "replies")
		registerBatch(t, nc, "p1", 10, 10)
		m := batch(gatherThem, "a", "b", "c")
		m.Reply, m.Header["Trace"] = "replies", []string{"t"}
		publish(t, nc, m)

		w := next(t, work)
		all := parts(t, w)
		item, attempt, found := wire.ParseLease(address, w.Reply)
		if !found || attempt != 1 || len(all) != 3 || all[0].key != wire.FormatID(item)+".1" || all[2].body != "c" {
			t.Fatalf("the work at lease %s is %v", w.Reply, all)
		}
		for _, p := range all {
			if len(p.header) != 1 || p.header["Trace"][0] != "t" {
				t.Errorf("the header of %s is %v", p.key, p.header)
			}
		}
		answerAll(t, nc, w)
		r := parts(t, next(t, replies))
		for i, want := range []string{"A", "B", "C"} {
			if r[i].key != strconv.Itoa(i) || r[i].body != want || r[i].header["Trace"][0] != "t" {
				t.Errorf("reply %d is %v", i, r[i])
			}
		}
		if n := notice(t, next(t, accepts)); n.First != item || n.Count != 3 || len(n.Refused)+len(n.Duplicates) > 0 {
			t.Errorf("the notice is %+v", n)
		}
	})
}

func TestRepliesOfABatchOneByOne(t *testing.T) {
	each(t, func(t *testing.T, h *house, nc *nats.Conn) {
		work, replies := listen(t, nc, "p1"), listen(t, nc, "replies")
		register(t, nc, "p1", 10)
		m := batch(nil, "a", "b")
		m.Reply = "replies"
		publish(t, nc, m)
		for _, want := range []string{"a", "b"} {
			w := next(t, work)
			if string(w.Data) != want || w.Header.Get(wire.HeaderBatch) != "" {
				t.Errorf("work %q with %v", w.Data, w.Header)
			}
			ok(t, w.Respond(bytes.ToUpper(w.Data)))
		}
		for i, want := range []string{"A", "B"} {
			r := next(t, replies)
			if string(r.Data) != want || r.Header.Get(wire.HeaderBatchKey) != strconv.Itoa(i) || len(r.Header) != 1 {
				t.Errorf("reply %q with %v", r.Data, r.Header)
			}
		}
	})
}

// Headers of the message hold for all its items, and those of a frame go before them.
func TestHeadersOfABatch(t *testing.T) {
	h := newHouse(t, durable(address)).start()
	defer h.stop()
	nc := h.connect()
	defer nc.Close()
	work, accepts, replies := listen(t, nc, "p1"), listen(t, nc, "accepts"), listen(t, nc, "replies")
	register(t, nc, "p1", 10)
	m := batch(nats.Header{wire.HeaderAcceptedReply: {"accepts"}, wire.HeaderMaxAttempts: {"1"}, "X": {"all"}})
	m.Data = wire.AppendFrame(nil, "plain", nil, nil)
	m.Data = wire.AppendFrame(m.Data, "own", wire.Header{"stint-max-attempts": {"2"}, "x": {"mine"}}, nil)
	m.Data = wire.AppendFrame(m.Data, "wrong", wire.Header{"Stint-Max-Attempts": {"0"}}, nil)
	m.Data = wire.AppendFrame(m.Data, "strange", wire.Header{"Stint-Accepted-Reply": {"a"}}, nil)
	m.Data = append(m.Data, "unread 5 0\nX: y\n\n"...)
	m.Reply, m.Header[wire.HeaderBatch] = "replies", []string{"5"}
	publish(t, nc, m)

	n := notice(t, next(t, accepts))
	if n.Count != 5 || len(n.Refused) != 1 || n.Refused[0].Code != wire.CodeBadHeader ||
		!slices.Equal(n.Refused[0].Keys, []string{"wrong", "strange", "unread"}) {
		t.Errorf("the notice is %+v", n)
	}
	for _, key := range []string{"wrong", "strange", "unread"} {
		r := next(t, replies)
		if st := status(t, r); r.Header.Get(wire.HeaderBatchKey) != key || st.Code != "bad_header" || r.Header.Get(wire.HeaderErrorCode) != "400" {
			t.Errorf("the error of %s is %q with %v", key, r.Data, r.Header)
		}
	}
	plain, own := next(t, work), next(t, work)
	if plain.Header.Get("X") != "all" || plain.Header.Get(wire.HeaderMaxAttempts) != "1" || len(plain.Header) != 2 {
		t.Errorf("the first item's header is %v", plain.Header)
	}
	if own.Header.Get("X") != "" || own.Header.Get("x") != "mine" || len(own.Header) != 2 {
		t.Errorf("the second item's header is %v", own.Header)
	}
	fail := &nats.Msg{Header: nats.Header{wire.HeaderError: {"broke"}}}
	ok(t, plain.RespondMsg(fail))
	if r := next(t, replies); r.Header.Get(wire.HeaderBatchKey) != "plain" || status(t, r).Code != "dead" || r.Header.Get("X") != "all" {
		t.Errorf("the final error is %q with %v", r.Data, r.Header)
	}
}

func TestBatchesThatAreRefused(t *testing.T) {
	h := newHouse(t, durable(address)).start()
	defer h.stop()
	nc := h.connect()
	defer nc.Close()
	accepts, replies := listen(t, nc, "accepts"), listen(t, nc, "replies")
	for name, c := range map[string]struct {
		change func(m *nats.Msg)
		code   wire.Code
	}{
		"a count that is too small": {func(m *nats.Msg) { m.Header[wire.HeaderBatch] = []string{"1"} }, wire.CodeBadRequest},
		"a count that is too large": {func(m *nats.Msg) { m.Header[wire.HeaderBatch] = []string{"3"} }, wire.CodeBadRequest},
		"no count":                  {func(m *nats.Msg) { m.Header[wire.HeaderBatch] = []string{"many"} }, wire.CodeBadRequest},
		"more than allowed":         {func(m *nats.Msg) { m.Header[wire.HeaderBatch] = []string{"1001"} }, wire.CodeBadRequest},
		"cut off":                   {func(m *nats.Msg) { m.Data = m.Data[:len(m.Data)-1] }, wire.CodeBadRequest},
		"an id for all":             {func(m *nats.Msg) { m.Header[wire.HeaderMsgID] = []string{"m"} }, wire.CodeBadHeader},
		"an unknown header":         {func(m *nats.Msg) { m.Header["Stint-Btach"] = []string{"m"} }, wire.CodeBadHeader},
		"unknown way of replies":    {func(m *nats.Msg) { m.Header[wire.HeaderBatchReplies] = []string{"m"} }, wire.CodeBadHeader},
	} {
		m := batch(nats.Header{wire.HeaderAcceptedReply: {"accepts"}}, "a", "b")
		m.Reply = "replies"
		c.change(m)
		publish(t, nc, m)
		for _, sub := range []*nats.Subscription{accepts, replies} {
			if r := next(t, sub); status(t, r).Code != string(c.code) || r.Header.Get(wire.HeaderBatchKey) != "" {
				t.Errorf("%s: %s at %s, want %s", name, r.Data, sub.Subject, c.code)
			}
		}
	}
	if s := h.broker.Stats()[address]; s.Accepted != 0 {
		t.Errorf("%d items were taken", s.Accepted)
	}
}

// One item is too large; at the reply subject that gathers, its error is a frame.
func TestATooLargeItemOfABatch(t *testing.T) {
	q := durable(address)
	q.MaxItemBytes = 100
	h := newHouse(t, q).start()
	defer h.stop()
	nc := h.connect()
	defer nc.Close()
	accepts, replies := listen(t, nc, "accepts"), listen(t, nc, "replies")
	m := batch(gatherThem, "a", strings.Repeat("x", 101), "c")
	m.Reply = "replies"
	publish(t, nc, m)
	if n := notice(t, next(t, accepts)); len(n.Refused) != 1 || n.Refused[0].Code != wire.CodeTooLarge || n.Refused[0].Keys[0] != "1" {
		t.Errorf("the notice is %+v", n)
	}
	all := parts(t, next(t, replies))
	if len(all) != 1 || all[0].key != "1" || all[0].header[wire.HeaderErrorCode][0] != "413" {
		t.Errorf("the replies are %v", all)
	}
	if s := h.broker.Stats()[address]; s.Accepted != 2 {
		t.Errorf("%d items were taken", s.Accepted)
	}
}

// Each answer of a message has an outcome of its own. One that cannot be read fails its own item alone.
func TestAnswersOfABatch(t *testing.T) {
	q := durable(address)
	q.MaxAttempts = 1
	h := newHouse(t, q).start()
	defer h.stop()
	nc := h.connect()
	defer nc.Close()
	work, replies := listen(t, nc, "p1"), listen(t, nc, "replies")
	registerBatch(t, nc, "p1", 10, 10)
	m := batch(nil, "a", "b", "c", "d")
	m.Reply = "replies"
	publish(t, nc, m)
	w := next(t, work)
	all := parts(t, w)
	data := wire.AppendFrame(nil, all[0].key, wire.Header{"X": {"y"}}, []byte("A"))
	data = wire.AppendFrame(data, all[1].key, nil, []byte("+TERM no"))
	data = wire.AppendFrame(data, "nonsense", nil, nil)
	data = append(data, all[2].key+" 3 0\nX:y\n"...)
	publish(t, nc, &nats.Msg{Subject: w.Reply, Header: nats.Header(wire.BatchHeader(4)), Data: data})
	r := next(t, replies)
	if string(r.Data) != "A" || r.Header.Get("X") != "y" || r.Header.Get(wire.HeaderBatchKey) != "0" {
		t.Errorf("the first reply is %q with %v", r.Data, r.Header)
	}
	for _, c := range []struct{ key, part string }{{"1", ": no"}, {"2", "header block"}} {
		r := next(t, replies)
		if st := status(t, r); r.Header.Get(wire.HeaderBatchKey) != c.key || st.Code != "dead" || !strings.Contains(st.Message, c.part) {
			t.Errorf("reply %s is %q with %v", c.key, r.Data, r.Header)
		}
	}
	publish(t, nc, &nats.Msg{Subject: wire.LeaseSubject(address, itemOf(t, all[3].key), 1), Data: []byte("alone")})
	if r := next(t, replies); string(r.Data) != "alone" || r.Header.Get(wire.HeaderBatchKey) != "3" {
		t.Errorf("the last reply is %q with %v", r.Data, r.Header)
	}
}

func itemOf(t testing.TB, key string) uint64 {
	t.Helper()
	item, _, found := wire.ParseWorkKey([]byte(key))
	if !found {
		t.Fatalf("%q is no key of work", key)
	}
	return item
}

// Where the frames of an answer break off, those before count, and the item of the subject learns why.
func TestAnAnswerThatBreaksOff(t *testing.T) {
	q := durable(address)
	q.MaxAttempts = 1
	h := newHouse(t, q).start()
	defer h.stop()
	nc := h.connect()
	defer nc.Close()
	work, replies := listen(t, nc, "p1"), listen(t, nc, "replies")
	registerBatch(t, nc, "p1", 10, 10)
	m := batch(nil, "a", "b")
	m.Reply = "replies"
	publish(t, nc, m)
	w := next(t, work)
	data := append(wire.AppendFrame(nil, parts(t, w)[1].key, nil, []byte("B")), "nonsense"...)
	publish(t, nc, &nats.Msg{Subject: w.Reply, Header: nats.Header(wire.BatchHeader(2)), Data: data})
	if r := next(t, replies); string(r.Data) != "B" {
		t.Errorf("the first reply is %q", r.Data)
	}
	if st := status(t, next(t, replies)); st.Code != "dead" || !strings.Contains(st.Message, "frame 2 of 2") {
		t.Errorf("the second reply is %+v", st)
	}

	publish(t, nc, m)
	w = next(t, work)
	data = append(wire.AppendFrame(nil, parts(t, w)[0].key, nil, []byte("+WPI")), "nonsense"...)
	publish(t, nc, &nats.Msg{Subject: w.Reply, Header: nats.Header(wire.BatchHeader(2)), Data: data})
	ok(t, w.Respond([]byte("A"))) // its frame could be read: it was not failed
	if r := next(t, replies); string(r.Data) != "A" {
		t.Errorf("the reply of an item that was being worked on is %q", r.Data)
	}
}

// A message of work that nobody hears is given back at once, all of it, as a single item is.
func TestABatchThatNobodyHears(t *testing.T) {
	each(t, func(t *testing.T, h *house, nc *nats.Conn) { nobodyHears(t, h, nc) })
}

// Without a watch on subscriptions only the server's word for the first item of the message tells.
func TestOutsideServerABatchThatNobodyHears(t *testing.T) {
	h := outside(t)
	defer h.stop()
	nc := h.connect()
	defer nc.Close()
	nobodyHears(t, h, nc)
}

func nobodyHears(t *testing.T, h *house, nc *nats.Conn) {
	t.Helper()
	registerBatch(t, nc, "gone", 100, 100)
	publish(t, nc, batch(nil, "a", "b", "c", "d"))
	eventually(t, func() bool { s := h.broker.Stats()[address]; return s.Accepted == 4 && s.Leased == 0 && s.Absent == 1 })
	work := listen(t, nc, "p2")
	registerBatch(t, nc, "p2", 100, 100)
	w := next(t, work)
	if all := parts(t, w); len(all) != 4 {
		t.Errorf("p2 got %v", all)
	}
	answerAll(t, nc, w)
}

func TestOutsideServerGatheredReplies(t *testing.T) {
	h := outside(t)
	defer h.stop()
	nc := h.connect()
	defer nc.Close()
	work := listen(t, nc, "p1")
	registerBatch(t, nc, "p1", 10, 10)
	m := batch(gatherThem, "a", "b")
	m.Reply = "replies"
	publish(t, nc, m)
	answerAll(t, nc, next(t, work))
	eventually(t, func() bool { return h.broker.Stats()[address].Replies == 2 })
	replies := listen(t, nc, "replies")
	got := map[string]string{}
	for len(got) < 2 {
		for _, p := range parts(t, next(t, replies)) {
			got[p.key] = p.body
		}
	}
	if got["0"] != "A" || got["1"] != "B" {
		t.Errorf("the replies are %v", got)
	}
}

// A reply on record comes with its key from the broker that comes next.
func TestKeysSurviveARestart(t *testing.T) {
	h := newHouse(t, durable(address)).start()
	defer h.stop()
	nc := h.connect()
	defer nc.Close()
	work := listen(t, nc, "p1")
	register(t, nc, "p1", 10)
	accepts := listen(t, nc, "accepts")
	gathered, single := batch(gatherThem, "a"), batch(nats.Header{wire.HeaderAcceptedReply: {"accepts"}}, "b")
	gathered.Reply, single.Reply = "together", "alone"
	publish(t, nc, gathered)
	publish(t, nc, single)
	for range 2 {
		notice(t, next(t, accepts))
		w := next(t, work)
		ok(t, w.Respond(bytes.ToUpper(w.Data)))
	}
	eventually(t, func() bool { return h.broker.Stats()[address].Replies == 2 })
	h.restartBroker()
	if r := parts(t, next(t, listen(t, nc, "together"))); len(r) != 1 || r[0].key != "0" || r[0].body != "A" || r[0].header[wire.HeaderRedelivered] == nil {
		t.Errorf("the gathered reply is %v", r)
	}
	if r := next(t, listen(t, nc, "alone")); string(r.Data) != "B" || r.Header.Get(wire.HeaderBatchKey) != "0" || r.Header.Get(wire.HeaderRedelivered) == "" {
		t.Errorf("the single reply is %q with %v", r.Data, r.Header)
	}
}

// What does not fit in one message of NATS' goes in several.
func TestBatchesAreSplitAtMaxPayload(t *testing.T) {
	h := newHouse(t, durable(address)).start()
	defer h.stop()
	nc := h.connect()
	defer nc.Close()
	work, replies := listen(t, nc, "p1"), listen(t, nc, "replies")
	for range 3 {
		publish(t, nc, func() *nats.Msg {
			m := batch(gatherThem, strings.Repeat("x", 300_000), strings.Repeat("y", 300_000))
			m.Reply = "replies"
			return m
		}())
	}
	registerBatch(t, nc, "p1", 10, 10)
	n := 0
	for n < 6 {
		w := next(t, work)
		n += len(parts(t, w))
		answerAll(t, nc, w)
	}
	for n > 0 {
		n -= len(parts(t, next(t, replies)))
	}
	if n != 0 {
		t.Errorf("%d replies too many came", -n)
	}
}

// A reply that NATS takes from the processor, but not with the headers that go with it to the sender.
func TestAReplyThatIsTooLargeForItsSender(t *testing.T) {
	each(t, func(t *testing.T, h *house, nc *nats.Conn) {
		work, together, alone := listen(t, nc, "p1"), listen(t, nc, "together"), listen(t, nc, "alone")
		register(t, nc, "p1", 10)
		a, b := batch(gatherThem, "a"), batch(nil, "b")
		a.Reply, b.Reply = "together", "alone"
		publish(t, nc, a)
		publish(t, nc, b)
		for range 2 {
			w := next(t, work)
			ok(t, w.Respond(make([]byte, nc.MaxPayload())))
		}
		if r := parts(t, next(t, together)); len(r) != 1 || r[0].key != "0" || r[0].header[wire.HeaderErrorCode][0] != "413" {
			t.Errorf("the gathered reply is %v", r)
		}
		if r := next(t, alone); r.Header.Get(wire.HeaderBatchKey) != "0" || status(t, r).Code != "too_large" {
			t.Errorf("the single reply is %.80q with %v", r.Data, r.Header)
		}
	})
}

func TestProgressAndTurnsOfABatch(t *testing.T) {
	h := newHouse(t, durable(address)).start()
	defer h.stop()
	nc := h.connect()
	defer nc.Close()
	work, talk, replies := listen(t, nc, "p1"), listen(t, nc, "p1.talk"), listen(t, nc, "replies")
	registerBatch(t, nc, "p1", 10, 10)
	m := batch(gatherThem, "a")
	m.Reply, m.Header[wire.HeaderProgress] = "replies", []string{"true"}
	publish(t, nc, m)
	w := next(t, work)
	key := parts(t, w)[0].key
	half := wire.AppendFrame(nil, key, wire.Header{wire.HeaderProgress: {"true"}}, []byte("half"))
	publish(t, nc, &nats.Msg{Subject: w.Reply, Header: nats.Header(wire.BatchHeader(1)), Data: half})
	if r := parts(t, next(t, replies)); r[0].body != "half" || r[0].key != "0" || r[0].header[wire.HeaderProgress][0] != "true" {
		t.Errorf("progress is %v", r)
	}
	publish(t, nc, &nats.Msg{Subject: w.Reply, Reply: "p1.talk", Data: []byte("really?")})
	turn := next(t, replies)
	if string(turn.Data) != "really?" || turn.Reply == "" || turn.Header.Get(wire.HeaderBatchKey) != "0" {
		t.Errorf("the turn is %q with %v", turn.Data, turn.Header)
	}
	ok(t, turn.Respond([]byte("yes")))
	if back := next(t, talk); string(back.Data) != "yes" || back.Reply != w.Reply {
		t.Errorf("the sender's turn is %q at %s", back.Data, back.Reply)
	}
}

// Deduplication of each item of a batch, over the record of ids in the store.
func TestABatchIsSentAgain(t *testing.T) {
	h := newHouse(t, durable(address)).start()
	defer h.stop()
	nc := h.connect()
	defer nc.Close()
	accepts := listen(t, nc, "accepts")
	m := batch(gatherThem)
	m.Header[wire.HeaderBatch] = []string{"2"}
	m.Data = wire.AppendFrame(nil, "a", wire.Header{wire.HeaderMsgID: {"m1"}}, nil)
	m.Data = wire.AppendFrame(m.Data, "b", wire.Header{wire.HeaderMsgID: {"m2"}}, nil)
	m.Reply = "replies"
	publish(t, nc, m)
	first := notice(t, next(t, accepts))
	publish(t, nc, m)
	again := notice(t, next(t, accepts))
	want := []wire.DuplicateItem{{Key: "a", ID: wire.FormatID(first.First)}, {Key: "b", ID: wire.FormatID(first.First + 1)}}
	if !slices.Equal(again.Duplicates, want) || len(again.Refused) > 0 {
		t.Errorf("the second notice is %+v", again)
	}
}

// The notice of a batch is for what is on disk.
func TestTheNoticeOfABatchWaitsForTheCommit(t *testing.T) {
	h := newHouse(t, durable(address))
	hold := make(chan struct{})
	open := h.opt.Open
	h.opt.Open = func(name string, health store.Health) (store.DB, error) {
		db, err := open(name, health)
		return &heldDB{db, hold}, err
	}
	h.start()
	defer h.stop()
	nc := h.connect()
	defer nc.Close()
	accepts := listen(t, nc, "accepts")
	publish(t, nc, batch(nats.Header{wire.HeaderAcceptedReply: {"accepts"}}, "a", "b"))
	if m, err := accepts.NextMsg(50 * time.Millisecond); err == nil {
		t.Errorf("before the commit came %q", m.Data)
	}
	close(hold)
	if n := notice(t, next(t, accepts)); n.Count != 2 {
		t.Errorf("the notice is %+v", n)
	}
}

// heldDB lets no batch through until hold is closed.
type heldDB struct {
	store.DB
	hold chan struct{}
}

func (d *heldDB) Queue(name string) (store.Queue, error) {
	q, err := d.DB.Queue(name)
	return &heldQueue{q, d.hold}, err
}

type heldQueue struct {
	store.Queue
	hold chan struct{}
}

func (q *heldQueue) Submit(b *store.Batch) {
	go func() {
		<-q.hold
		q.Queue.Submit(b)
	}()
}
