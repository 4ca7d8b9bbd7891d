package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"stint/broker/queue"
	"stint/internal/tap"
	"stint/store"
	"stint/wire"
)

const (
	// watchEvery is how often the subscriptions of the embedded server are looked at for a change, and watchAnyway how
	// often processors are checked without one (a count can stay the same while one leaves and another comes).
	watchEvery  = 5 * time.Millisecond
	watchAnyway = 100 * time.Millisecond
	// lastWrites bounds the wait for what is written and said when all work in hand is answered or given up.
	lastWrites = 5 * time.Second
	// payloadSlack is what NATS' max_payload must leave beside an item for headers that the broker adds.
	payloadSlack = 4096
)

// Options is what a broker runs on.
type Options struct {
	// Conn is the broker's own connection. It must be made with [ConnOptions]. The broker does not close it.
	Conn *nats.Conn
	// Interest says whether anybody is subscribed at a subject, as the embedded server knows it; it must be quick and
	// safe from any goroutine. nil: an outside server, which is asked in other ways.
	Interest func(subject string) bool
	// Changes, if not nil, changes its value whenever subscriptions come or go. It goes with Interest: processors that
	// vanish are then noticed in milliseconds, without it within 100 ms.
	Changes func() uint64
	// Open opens the database of a persistor ("" is the memory of the process). It is called once for each.
	Open func(persistor string, health store.Health) (store.DB, error)
	// Queues are the queues to serve. At least one.
	Queues []QueueOptions
	// DrainTimeout is how long Stop takes answers for work in flight. Default 10 seconds.
	DrainTimeout time.Duration
	// Logger: nil discards.
	Logger *slog.Logger
}

// QueueOptions is one queue.
type QueueOptions struct {
	queue.Config
	// Persistor names the database; empty: the queue lives in memory and ends with the process.
	Persistor string
	// Collection is the queue's part of the database. Empty: the address.
	Collection string
}

// Broker is a set of queues at work.
type Broker struct {
	opt     Options
	log     *slog.Logger
	bus     *bus
	dbs     []*database
	actors  []*actor
	owners  []*owner  // that run
	intakes []*intake // likewise
	tap     *tap.Tap  // of the connection; nil: it has none
	failed  chan error
	ctx     context.Context // ends with Stop
	cancel  context.CancelFunc
	ended   chan struct{} // closed when the watcher has ended

	connected chan nats.Status // has something when the connection is there again
}

// database is an open database and what its engine last said of itself.
type database struct {
	name   string
	db     store.DB
	last   atomic.Pointer[error] // nil pointer: healthy
	signal chan struct{}         // last changed
	queues int                   // that have an owner so far
	owners []*owner
}

// Start opens the databases, loads the queues and subscribes. When it returns without an error, everything published
// from now on is answered.
func Start(ctx context.Context, o Options) (*Broker, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = 10 * time.Second
	}
	b := &Broker{opt: o, log: o.Logger, failed: make(chan error, 1), ended: make(chan struct{})}
	b.ctx, b.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if err := b.start(); err != nil {
		b.cancel()
		return nil, errors.Join(err, b.close())
	}
	return b, nil
}

func (b *Broker) start() error {
	addresses := make([]string, len(b.opt.Queues))
	for i, qo := range b.opt.Queues {
		addresses[i] = qo.Address
	}
	if err := wire.CheckAddresses(addresses); err != nil {
		return err
	}
	b.bus = &bus{
		nc: b.opt.Conn, log: b.log, listens: b.opt.Interest, own: wire.NewOwn(addresses),
		asking: make(chan struct{}, askLimit), flushes: make(chan flushing, len(b.opt.Queues)+askLimit), ctx: b.ctx,
	}
	go b.bus.flusher()
	b.connected = b.opt.Conn.StatusChanged(nats.CONNECTED)
	byName := map[string]*database{}
	for _, qo := range b.opt.Queues {
		if err := b.loadQueue(byName, qo); err != nil {
			return fmt.Errorf("starting queue %s: %w", qo.Address, err)
		}
	}
	if err := b.run(); err != nil {
		return err
	}
	b.opt.Conn.SetClosedHandler(func(nc *nats.Conn) {
		if b.ctx.Err() == nil {
			b.fail(fmt.Errorf("the broker's NATS connection was closed for good: %w", errors.Join(nc.LastError(), nats.ErrConnectionClosed)))
		}
	})
	go b.watch(slices.Collect(maps.Values(byName)))
	if err := b.opt.Conn.FlushTimeout(10 * time.Second); err != nil {
		<-b.stopWatch()
		return fmt.Errorf("waiting for NATS to take the subscriptions: %w", err)
	}
	return nil
}

// run subscribes and sets the owners to work. What the tap takes is settled before anything is subscribed to, so that no
// message overtakes another by another way.
func (b *Broker) run() error {
	var intakes []*intake
	for _, d := range b.dbs {
		for _, o := range d.owners {
			k := newIntake(o)
			for _, a := range o.actors {
				k.add(b.bus, a)
			}
			intakes = append(intakes, k)
		}
	}
	if t, ok := b.opt.Conn.Opts.CustomDialer.(*tap.Tap); ok {
		b.tap = t
		t.Take(finder(intakes))
	}
	for _, k := range intakes {
		if err := k.subscribe(b.opt.Conn); err != nil {
			for _, k := range intakes {
				k.close()
			}
			return err
		}
	}
	for _, k := range intakes {
		b.owners, b.intakes = append(b.owners, k.o), append(b.intakes, k)
		go k.o.run()
		go k.run()
	}
	return nil
}

func (b *Broker) stopWatch() <-chan struct{} {
	b.cancel()
	return b.ended
}

// loadQueue makes the actor of a queue from what is stored.
func (b *Broker) loadQueue(byName map[string]*database, qo QueueOptions) error {
	cfg := qo.Config.WithDefaults(qo.Persistor != "")
	if limit := b.opt.Conn.MaxPayload(); int64(cfg.MaxItemBytes)+payloadSlack > limit {
		return fmt.Errorf("max_item_bytes is %d, but the NATS server's max_payload is %d: it must leave %d bytes for headers; lower the one or raise the other", cfg.MaxItemBytes, limit, payloadSlack)
	}
	d := byName[qo.Persistor]
	if d == nil {
		var err error
		if d, err = b.open(qo.Persistor); err != nil {
			return err
		}
		byName[qo.Persistor] = d
	}
	collection := qo.Collection
	if collection == "" {
		collection = qo.Address
	}
	st, err := d.db.Queue(collection)
	if err != nil {
		return fmt.Errorf("opening collection %s of database %s: %w", collection, d.name, err)
	}
	snap, err := st.Load()
	if err != nil {
		return fmt.Errorf("loading collection %s of database %s: %w", collection, d.name, err)
	}
	for _, dm := range snap.Damaged {
		b.log.Warn("a damaged record was set aside", "queue", qo.Address, "kind", dm.What, "err", dm.Err)
	}
	o := d.owners[d.queues%len(d.owners)]
	d.queues++
	opt := queue.Options{
		Config: cfg, Persistent: qo.Persistor != "", Watched: b.opt.Interest != nil, Random: uint64(time.Now().UnixNano()),
		MaxMessage: b.bus.maxMessage(), Link: b.bus.links(), Flow: &o.flow,
	}
	a := newActor(o, cfg, queue.New(opt, snap, time.Now()), st, b.log, b.fail)
	a.bus = b.bus
	b.actors = append(b.actors, a)
	b.log.Info("queue ready", "address", qo.Address, "persistor", qo.Persistor, "waiting", snap.Counts.Ready,
		"delayed", snap.Counts.Delayed, "dead", snap.Counts.Dead, "processors", len(snap.Registrations), "replies", snap.Counts.Replies)
	return nil
}

func (b *Broker) open(name string) (*database, error) {
	d := &database{name: name, signal: make(chan struct{}, 1)}
	db, err := b.opt.Open(name, func(err error) {
		if err == nil {
			d.last.Store(nil)
		} else {
			d.last.Store(&err)
		}
		select {
		case d.signal <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return nil, fmt.Errorf("opening database %q: %w", name, err)
	}
	d.db = db
	b.dbs = append(b.dbs, d)
	queues := 0
	for i := range b.opt.Queues {
		if b.opt.Queues[i].Persistor == name {
			queues++
		}
	}
	for range ownersOf(queues) {
		d.owners = append(d.owners, newOwner(queues))
	}
	return d, nil
}

func (d *database) health() error {
	if p := d.last.Load(); p != nil {
		return fmt.Errorf("database %q: %w", d.name, *p)
	}
	return nil
}

// watch passes on changes in the health of the databases and of the connection, and has the actors look at their processors.
func (b *Broker) watch(dbs []*database) {
	defer close(b.ended)
	done := make(chan struct{})
	go func() {
		b.watchConnection()
		done <- struct{}{}
	}()
	for _, d := range dbs {
		go func() {
			b.watchHealth(d)
			done <- struct{}{}
		}()
	}
	if b.opt.Interest != nil {
		b.watchProcessors()
	}
	for range len(dbs) + 1 {
		<-done
	}
}

// watchConnection tells the actors of each new connection.
func (b *Broker) watchConnection() {
	for {
		select {
		case <-b.connected:
			for _, a := range b.actors {
				a.o.ask(a.reconnected)
			}
		case <-b.ctx.Done():
			return
		}
	}
}

func (b *Broker) watchHealth(d *database) {
	for {
		select {
		case <-d.signal:
		case <-b.ctx.Done():
			return
		}
		err := d.health()
		if err != nil {
			b.log.Error("the store is in trouble", "err", err)
		} else {
			b.log.Info("the store is well again", "database", d.name)
		}
		for _, o := range d.owners {
			select {
			case o.health <- err:
			case <-o.done:
			}
		}
		if errors.Is(err, store.ErrUnknown) {
			b.fail(err)
		}
	}
}

func (b *Broker) watchProcessors() {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	var last uint64
	var checked time.Time
	for {
		select {
		case <-t.C:
		case <-b.ctx.Done():
			return
		}
		if !slices.ContainsFunc(b.owners, func(o *owner) bool { return o.holds.Load() }) {
			continue
		}
		now := time.Now()
		changes := last
		if b.opt.Changes != nil {
			changes = b.opt.Changes()
		}
		if changes == last && now.Sub(checked) < watchAnyway {
			continue
		}
		last, checked = changes, now
		for _, o := range b.owners {
			if !o.holds.Load() {
				continue
			}
			select {
			case o.watch <- struct{}{}:
			default:
			}
		}
	}
}

func (b *Broker) fail(err error) {
	select {
	case b.failed <- err:
	default:
	}
}

// Failed yields one error when the broker can no longer keep its promises (an I/O error of a database, the connection
// closed for good); the process is to call Stop and exit with a non-zero status.
func (b *Broker) Failed() <-chan error { return b.failed }

// Health is nil while items can be accepted; otherwise it says what is in the way.
func (b *Broker) Health() error {
	var errs []error
	for _, d := range b.dbs {
		errs = append(errs, d.health())
	}
	if !b.opt.Conn.IsConnected() {
		errs = append(errs, errors.New("the broker is not connected to NATS"))
	}
	if b.ctx.Err() != nil {
		errs = append(errs, errors.New("the broker is shutting down"))
	}
	return errors.Join(errs...)
}

// Stats returns the figures of each queue by address. It waits for each queue's round to end.
func (b *Broker) Stats() map[string]queue.Stats {
	all := map[string]queue.Stats{}
	for _, a := range b.actors {
		a.o.ask(func() { all[a.cfg.Address] = a.q.Stats() })
	}
	return all
}

// Stop stops giving out work, takes answers until all are in or DrainTimeout has passed or ctx ends, writes what is
// left, and closes the databases. New items are answered shutting_down meanwhile.
func (b *Broker) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, b.opt.DrainTimeout)
	defer cancel()
	for _, a := range b.actors {
		a.o.ask(func() { a.step(queue.Drain{}) })
	}
	b.wait(ctx, func(q *queue.Queue) bool { return q.Leased() == 0 })
	for _, a := range b.actors {
		a.o.ask(func() { a.step(queue.Leave{}) })
	}
	last, cancelLast := context.WithTimeout(context.WithoutCancel(ctx), lastWrites)
	defer cancelLast()
	b.wait(last, (*queue.Queue).Settled)
	for _, k := range b.intakes {
		k.unsubscribe()
	}
	<-b.stopWatch()
	return b.close()
}

// wait looks at the queues until all are so, or ctx ends.
func (b *Broker) wait(ctx context.Context, so func(*queue.Queue) bool) {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for {
		all := true
		for _, a := range b.actors {
			a.o.ask(func() { all = all && so(a.q) })
		}
		if all {
			return
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

// close ends the owners and closes the databases.
func (b *Broker) close() error {
	if b.tap != nil {
		b.tap.Take(nil)
	}
	if b.connected != nil {
		b.opt.Conn.RemoveStatusListener(b.connected)
	}
	for _, o := range b.owners {
		close(o.quit)
		<-o.done
	}
	for _, k := range b.intakes {
		<-k.done
	}
	var errs []error
	for _, d := range b.dbs {
		if err := d.db.Close(); err != nil {
			errs = append(errs, fmt.Errorf("closing database %q: %w", d.name, err))
		}
	}
	if b.opt.Conn != nil && b.opt.Conn.IsConnected() {
		if err := b.opt.Conn.FlushTimeout(time.Second); err != nil {
			errs = append(errs, fmt.Errorf("flushing the NATS connection: %w", err))
		}
	}
	return errors.Join(errs...)
}
