package processor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"stint/processor"
	"stint/wire"
)

// A processor that answers each item with its body in capitals, until the process is told to stop.
func Example() {
	url, shutdown := serveQueue("shout")
	defer shutdown()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nc.Close()

	go func() { // a sender; this one stops the processor as well
		defer stop()
		reply, err := nc.Request("shout", []byte("hello"), 5*time.Second)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s\n", reply.Data)
	}()

	shout := func(_ context.Context, w *processor.Work) ([]byte, error) {
		return []byte(strings.ToUpper(string(w.Body))), nil
	}
	if err := processor.Run(ctx, nc, processor.Options{Address: "shout", Capacity: 4}, shout); err != nil {
		fmt.Println(err)
	}
	// Output: HELLO
}

// The outcomes that a handler can choose besides a reply.
func ExampleHandler() {
	var print processor.Handler = func(_ context.Context, w *processor.Work) ([]byte, error) {
		var order struct{ Page, Printer string }
		if err := json.Unmarshal(w.Body, &order); err != nil {
			return nil, processor.Reject(err) // no attempt can help: a dead letter
		}
		switch order.Printer {
		case "": // another processor may know one
			return nil, processor.Release(time.Second)
		case "jammed": // somebody has to walk there
			return nil, processor.Retry(errors.New("paper jam"), 5*time.Minute)
		case "broken": // a failure as any other: the queue's backoff
			return nil, errors.New("no ink")
		}
		return []byte("printed " + order.Page), nil
	}

	// A handler needs no broker to be tried.
	for _, body := range []string{`{"page":"1","printer":"hall"}`, `{"page":"2","printer":"jammed"}`, `?`} {
		reply, err := print(context.Background(), &processor.Work{Body: []byte(body)})
		fmt.Printf("%q, %v\n", reply, err)
	}
	// Output:
	// "printed 1", <nil>
	// "", paper jam
	// "", invalid character '?' looking for beginning of value
}

// A handler that needs to know more asks the sender.
func ExampleWork_Ask() {
	url, shutdown := serveQueue("shirts")
	defer shutdown()
	nc, err := nats.Connect(url)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer nc.Close()

	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		question, err := nc.Request("shirts", []byte("a shirt, please"), 5*time.Second)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("asked: %s\n", question.Data)
		reply, err := nc.Request(question.Reply, []byte("XL"), 5*time.Second)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("reply: %s\n", reply.Data)
	}()

	sell := func(ctx context.Context, w *processor.Work) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		size, err := w.Ask(ctx, []byte("which size?"))
		if err != nil {
			return nil, err
		}
		return append([]byte("a shirt of size "), size.Data...), nil
	}
	if err := processor.Run(ctx, nc, processor.Options{Address: "shirts"}, sell); err != nil {
		fmt.Println(err)
	}
	// Output:
	// asked: which size?
	// reply: a shirt of size XL
}

// serveQueue runs a NATS server and the plainest queue there can be: it keeps nothing, hands each item to the processor
// that registered last, and holds an item that comes before one has.
func serveQueue(address string) (url string, shutdown func()) {
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true})
	if err != nil {
		panic(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		panic("the server is not ready")
	}
	nc, err := nats.Connect(srv.ClientURL())
	if err != nil {
		panic(err)
	}
	q := &plainQueue{nc: nc, address: address, ready: make(chan struct{}), senders: map[uint64]string{}}
	q.on(wire.RegisterSubject(address), q.register)
	q.on(wire.UnregisterSubject(address), func(m *nats.Msg) { q.publish(m.Reply, "", wire.OK()) })
	q.on(wire.LeasePattern(address), q.answer)
	q.on(wire.TalkPattern(address), q.talk)
	q.on(address, q.item)
	if err := nc.Flush(); err != nil {
		panic(err)
	}
	return srv.ClientURL(), func() { nc.Close(); srv.Shutdown(); srv.WaitForShutdown() }
}

type plainQueue struct {
	nc      *nats.Conn
	address string
	ready   chan struct{}
	once    sync.Once

	mu        sync.Mutex //nolint:forbidigo // guards what follows between the subscriptions
	processor string
	asked     string            // where the answer to the question goes
	senders   map[uint64]string // where the reply to an item goes
}

func (q *plainQueue) on(subject string, f nats.MsgHandler) {
	if _, err := q.nc.Subscribe(subject, f); err != nil {
		panic(err)
	}
}

func (q *plainQueue) publish(subject, reply string, body []byte) {
	if err := q.nc.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Data: body}); err != nil {
		panic(err)
	}
}

func (q *plainQueue) register(m *nats.Msg) {
	r, _ := wire.ParseRegister(m.Data)
	q.mu.Lock()
	q.processor = r.Processor
	q.mu.Unlock()
	q.publish(m.Reply, "", wire.OK())
	q.once.Do(func() { close(q.ready) })
}

func (q *plainQueue) item(m *nats.Msg) {
	<-q.ready
	q.mu.Lock()
	id := uint64(len(q.senders) + 1)
	q.senders[id] = m.Reply
	to := q.processor
	q.mu.Unlock()
	q.publish(to, wire.LeaseSubject(q.address, id, 1), m.Data)
}

func (q *plainQueue) answer(m *nats.Msg) {
	id, _, _ := wire.ParseLease(q.address, m.Subject)
	a := wire.ParseAnswer(wire.Header(m.Header), m.Data, m.Reply)
	q.mu.Lock()
	defer q.mu.Unlock()
	switch a.Kind {
	case wire.Turn:
		q.asked = m.Reply
		q.publish(q.senders[id], wire.TalkSubject(q.address, id, 1), a.Body)
	case wire.Done:
		q.publish(q.senders[id], "", a.Body)
	}
}

func (q *plainQueue) talk(m *nats.Msg) {
	id, _, _ := wire.ParseTalk(q.address, m.Subject)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.senders[id] = m.Reply
	q.publish(q.asked, "", m.Data)
}
