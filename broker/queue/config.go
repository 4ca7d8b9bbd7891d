package queue

import "time"

// Config is what one queue is told. A zero field takes the default of [Config.WithDefaults]; the program's
// configuration file checks ranges before it comes here.
type Config struct {
	// Address is the subject senders publish to. Required; a literal subject (wire.CheckAddress).
	Address string

	// ProcessTimeout is how long a processor may keep an item without a sign of life. Default 5 minutes, as in the
	// vert.x module. A sender may set its own with Stint-Timeout.
	ProcessTimeout time.Duration
	// MaxAttempts is how many counted attempts (failed or timed out) an item has before it is a dead letter. Default 5.
	MaxAttempts int
	// MaxDeaths is how many processors may vanish while holding an item before it is a dead letter. Default 5.
	MaxDeaths int
	// Backoff is the wait before a failed item is given out again.
	Backoff Backoff

	// MaxItems and MaxBytes bound what the queue holds: waiting, leased, delayed and dead items together. Beyond them a
	// send is answered queue_full. Defaults 100,000,000 items, 64 GiB; 1,000,000 and 1 GiB without a persistor.
	MaxItems int
	MaxBytes int64
	// MaxItemBytes bounds one item: body, headers and subjects. Default 1,000,000, below NATS' own 1 MiB.
	MaxItemBytes int
	// WindowItems and WindowBytes bound the part of the queue that is in memory: the head of what waits, and what is
	// leased. When all of it is leased nothing more is given out. Defaults 16,384 items, 64 MiB.
	WindowItems int
	WindowBytes int
	// MaxProcessors bounds the registrations. Default 10,000.
	MaxProcessors int
	// RegistrationTTL is how long a registration is kept while nobody is subscribed at its subject. Default 24 hours.
	RegistrationTTL time.Duration

	// ReplyTTL is how long a reply is kept for a sender that is away. Default 10 minutes.
	ReplyTTL time.Duration
	// MaxReplies bounds the kept replies; beyond it the oldest is dropped, counted and logged. Default 100,000.
	MaxReplies int

	// DedupWindow is how long a Nats-Msg-Id is remembered. Default 2 minutes, as in JetStream.
	DedupWindow time.Duration
	// MaxDedup bounds the remembered ids; beyond it a send with a new one is answered queue_full. Default 1,000,000.
	MaxDedup int

	// ReplySubjects and ProcessorSubjects narrow the subjects that clients may name (NATS patterns). Empty: any that
	// wire.CheckTarget allows.
	ReplySubjects     []string
	ProcessorSubjects []string
}

// Backoff is the wait before a failed item's next attempt. The zero value takes the default: exponential from
// 1 second to 5 minutes with a jitter of a fifth.
type Backoff struct {
	Fixed  bool          // Base each time; otherwise Base, 2·Base, 4·Base, ... up to Max
	Base   time.Duration // 0 with Max 0: the default
	Max    time.Duration
	Jitter float64 // the wait is varied by up to this part of it, either way: 0 to 1
}

func defaultTo[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// WithDefaults fills in what was left out. persistent says that the queue has a database.
func (c Config) WithDefaults(persistent bool) Config {
	defaultTo(&c.ProcessTimeout, 5*time.Minute)
	defaultTo(&c.MaxAttempts, 5)
	defaultTo(&c.MaxDeaths, 5)
	defaultTo(&c.Backoff, Backoff{Base: time.Second, Max: 5 * time.Minute, Jitter: 0.2})
	if persistent {
		defaultTo(&c.MaxItems, 100_000_000)
		defaultTo(&c.MaxBytes, 64<<30)
	}
	defaultTo(&c.MaxItems, 1_000_000)
	defaultTo(&c.MaxBytes, 1<<30)
	defaultTo(&c.MaxItemBytes, 1_000_000)
	defaultTo(&c.WindowItems, 16_384)
	defaultTo(&c.WindowBytes, 64<<20)
	defaultTo(&c.MaxProcessors, 10_000)
	defaultTo(&c.RegistrationTTL, 24*time.Hour)
	defaultTo(&c.ReplyTTL, 10*time.Minute)
	defaultTo(&c.MaxReplies, 100_000)
	defaultTo(&c.DedupWindow, 2*time.Minute)
	defaultTo(&c.MaxDedup, 1_000_000)
	return c
}
