package processor

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

// Defaults and limits of [Options].
const (
	DefaultProcessTimeout = 5 * time.Minute
	DefaultMaxHandle      = 24 * time.Hour
	DefaultBatch          = 64
	DefaultDrainTimeout   = 20 * time.Second
	// MinProcessTimeout is the shortest process timeout; below it the signs of life would be a load of their own.
	MinProcessTimeout = 30 * time.Millisecond
)

// Options is what a processor is told. Only Address is required.
type Options struct {
	// Address is the queue's address.
	Address string
	// Subject is where the broker sends work: a literal subject that is this processor's alone, for two processors
	// on one subject would each get the other's work as well. Default: "stint.processor." and an id that is new in
	// each run. A name of its own that stays the same over restarts spares the broker a stale registration after a
	// crash. The user of the connection must be allowed to subscribe to it.
	Subject string
	// Capacity is how many items are handled at once, 1 to wire.MaxCapacity (10,000). Default 1.
	Capacity int
	// Batch is how many items may come in one message, and how many answers leave in one when they are ready at one time; at
	// most wire.MaxBatch (1,000). A handler sees nothing of it. Nothing waits for a message to fill. Default: the smaller of
	// Capacity and 64. 1 and negative: each in a message of its own.
	Batch int
	// ProcessTimeout is the queue's process timeout, as far as it is known here: without a sign of life for that long
	// the lease is taken for lost. Default 5 minutes, which is the queue's default too. See the package comment.
	ProcessTimeout time.Duration
	// ManualExtend leaves the signs of life to the handler, by [Work.Extend] and [Work.Progress]. For handlers that
	// may hang: the item of one that says nothing for the process timeout goes to another processor.
	ManualExtend bool
	// MaxHandle is how long a handler may have an item. Then its context ends with [ErrTooLong] and no sign of life
	// is sent any more, so that a handler that hangs does not keep an item for ever. Default 24 hours; negative: no
	// limit.
	MaxHandle time.Duration
	// DrainTimeout is how long the handlers may go on once the context of [Run] has ended. Default 20 seconds;
	// negative: not at all. The rest of the end takes up to 6 seconds more when the broker or a handler is silent.
	DrainTimeout time.Duration
	// OnRegister, if set, is called each time the broker has confirmed the registration: the processor is ready. It
	// must not block.
	OnRegister func()
	// Logger: nil discards.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Subject == "" {
		o.Subject = "stint.processor." + nats.NewInbox()[len(nats.InboxPrefix):]
	}
	if o.Capacity == 0 {
		o.Capacity = 1
	}
	if o.Batch == 0 {
		o.Batch = min(o.Capacity, DefaultBatch)
	}
	if o.Batch < 2 {
		o.Batch = 0
	}
	if o.ProcessTimeout == 0 {
		o.ProcessTimeout = DefaultProcessTimeout
	}
	if o.MaxHandle == 0 {
		o.MaxHandle = DefaultMaxHandle
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = DefaultDrainTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o Options) validate() error {
	if o.Address == "" {
		return errors.New("processor: Options.Address is empty: it names the queue to take work from")
	}
	if err := wire.CheckAddress(o.Address); err != nil {
		return fmt.Errorf("processor: Options.Address: %w", err)
	}
	if err := wire.CheckSubject(o.Subject); err != nil {
		return fmt.Errorf("processor: Options.Subject: %w", err)
	}
	if o.Capacity < 1 || o.Capacity > wire.MaxCapacity {
		return fmt.Errorf("processor: Options.Capacity is %d: it must be 1 to %d", o.Capacity, wire.MaxCapacity)
	}
	if o.Batch > wire.MaxBatch {
		return fmt.Errorf("processor: Options.Batch is %d: it must be at most %d", o.Batch, wire.MaxBatch)
	}
	if o.ProcessTimeout < MinProcessTimeout {
		return fmt.Errorf("processor: Options.ProcessTimeout is %v: it must be at least %v", o.ProcessTimeout, MinProcessTimeout)
	}
	return nil
}
