package bench

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"stint/wire"
)

// Kind is what carries the items.
type Kind string

// The kinds.
const (
	Stint         Kind = "stint"
	StintSlow     Kind = "stint-slow"
	Relay         Kind = "relay"
	JetStream     Kind = "jetstream"
	JetStreamSync Kind = "jetstream-sync"
)

// Peers are the kinds that Stint can be compared with.
func Peers() []Kind { return []Kind{JetStream, JetStreamSync, Relay} }

// Mode is which part of the way is measured.
type Mode string

// The modes.
const (
	Roundtrip Mode = "roundtrip" // until every reply has come
	Enqueue   Mode = "enqueue"   // no processors; until every accept notice has come
	Drain     Mode = "drain"     // fill first, then start the processors; from the first reply to the last
)

// Limits of the options.
const (
	MinSize       = stampSize
	MaxSize       = 900_000 // bytes; queues take no more than 1,000,000 by default
	MaxItems      = 100_000_000
	MaxWindow     = 100_000
	MaxProcessors = 256
	MaxCapacity   = 100_000
	MaxRounds     = 1000
	MaxQueues     = 10_000
	MaxBatch      = wire.MaxBatch
	MaxDuration   = time.Hour   // of one round's sending
	MaxSlowSync   = time.Minute // of one fsync

	maxWindowBytes = 1 << 30    // of a full window, and of what the processors hold of one queue
	maxRoom        = 16_000_000 // items, of all processors for all queues
	maxBatchBytes  = MaxSize    // of the items of one message
)

// Options are what to measure. Every field must be set but Items, Batch, Backlog, DecodeJSON, SlowSync, Dir and the
// profiles.
type Options struct {
	Peers      []Kind        `json:"peers"`
	Mode       Mode          `json:"mode"`
	Items      int64         `json:"items,omitempty"` // 0: as many as fit in Duration
	Duration   time.Duration `json:"-"`               // of the sending in one round, unless Items is set
	Size       int           `json:"size"`            // bytes
	Window     int           `json:"window"`
	Processors int           `json:"processors"`
	Capacity   int           `json:"capacity"`
	Rounds     int           `json:"rounds"`
	Queues     int           `json:"queues"`
	Batch      int           `json:"batch,omitempty"` // items in one message, with Stint; 0 or 1: messages of their own
	Backlog    int64         `json:"backlog,omitempty"`
	DecodeJSON bool          `json:"decode_json,omitempty"`
	SlowSync   time.Duration `json:"-"`             // added to each fsync in rounds of their own
	Dir        string        `json:"dir,omitempty"` // where the data goes; "": the system's place for temporary files
	CPUProfile string        `json:"-"`             // file for the server of Stint; a peer's has the kind appended
	MemProfile string        `json:"-"`
}

// Check says what is wrong with the options, by the names of their flags.
func (o *Options) Check() error {
	for _, limit := range []struct {
		flag          string
		n, least, max int64
	}{
		{"items", o.Items, 0, MaxItems},
		{"size", int64(o.Size), MinSize, MaxSize},
		{"window", int64(o.Window), 1, MaxWindow},
		{"processors", int64(o.Processors), 1, MaxProcessors},
		{"capacity", int64(o.Capacity), 1, MaxCapacity},
		{"rounds", int64(o.Rounds), 1, MaxRounds},
		{"queues", int64(o.Queues), 1, MaxQueues},
		{"batch", int64(o.Batch), 0, MaxBatch},
		{"backlog", o.Backlog, 0, MaxItems / 2},
	} {
		if limit.n < limit.least || limit.n > limit.max {
			return fmt.Errorf("--%s must be from %d to %d, not %d", limit.flag, limit.least, limit.max, limit.n)
		}
	}
	if o.Items == 0 && (o.Duration <= 0 || o.Duration > MaxDuration) {
		return fmt.Errorf("--seconds must be above 0 and at most %.0f", MaxDuration.Seconds())
	}
	if o.SlowSync < 0 || o.SlowSync > MaxSlowSync {
		return fmt.Errorf("--slow-sync must be from 0 to %s, not %s", MaxSlowSync, o.SlowSync)
	}
	return errors.Join(o.checkKinds(), o.checkTotals())
}

// checkKinds looks at what goes together.
func (o *Options) checkKinds() error {
	if !slices.Contains([]Mode{Roundtrip, Enqueue, Drain}, o.Mode) {
		return fmt.Errorf("--mode must be roundtrip, enqueue or drain, not %q", o.Mode)
	}
	for i, peer := range o.Peers {
		switch {
		case !slices.Contains(Peers(), peer):
			return fmt.Errorf("--peer must be one of %s, not %q", join(Peers()), peer)
		case slices.Contains(o.Peers[:i], peer):
			return fmt.Errorf("--peer %s is given twice: every kind runs once in a round", peer)
		case peer == Relay && (o.Mode == Drain || o.Backlog > 0):
			return errors.New("--peer relay remembers nothing, so it has no backlog: leave it out, or measure the round trip")
		}
	}
	if o.Backlog > 0 && o.Mode != Roundtrip {
		return fmt.Errorf("--backlog has no effect with --mode %s: it is for roundtrip", o.Mode)
	}
	return nil
}

// checkTotals bounds what the processes will need.
func (o *Options) checkTotals() error {
	room := int64(o.Capacity) * int64(o.Processors)
	switch {
	case int64(o.Window)*int64(o.Size) > maxWindowBytes:
		return fmt.Errorf("a window of %d items of %d bytes is more than 1 GiB: lower --window or --size", o.Window, o.Size)
	case o.Batch > maxBatchBytes/o.Size:
		return fmt.Errorf("a message of %d items of %d bytes is more than %d bytes: lower --batch or --size", o.Batch, o.Size, maxBatchBytes)
	case room > maxWindowBytes/int64(o.Size):
		return errors.New("what the processors may hold is more than 1 GiB: lower --capacity, --processors or --size")
	case room > maxRoom/int64(o.Queues):
		return fmt.Errorf("the processors would have room for more than %d items: lower --capacity, --processors or --queues",
			maxRoom)
	}
	return nil
}

// kinds are those of one round, Stint first.
func (o *Options) kinds() []Kind {
	kinds := []Kind{Stint}
	if o.SlowSync > 0 {
		kinds = append(kinds, StintSlow)
	}
	return append(kinds, o.Peers...)
}

// spec is what the processes of a round are told.
func (o *Options) spec(kind Kind) spec {
	s := spec{
		Kind: kind, Mode: o.Mode, Items: o.Items, Size: o.Size, Window: o.Window,
		Processors: o.Processors, Capacity: o.Capacity, Backlog: o.Backlog, DecodeJSON: o.DecodeJSON,
		CPUProfile: profileName(o.CPUProfile, kind), MemProfile: profileName(o.MemProfile, kind),
	}
	if o.Items == 0 {
		s.Duration = o.Duration
	}
	if o.Mode == Enqueue {
		s.Processors = 0
	}
	if kind == StintSlow {
		s.SlowSync = o.SlowSync
	}
	if o.Batch > 1 && (kind == Stint || kind == StintSlow) {
		s.Batch = o.Batch
	}
	for i := range o.Queues {
		s.Queues = append(s.Queues, fmt.Sprintf("work-%d", i+1))
	}
	return s
}

func profileName(file string, kind Kind) string {
	if file == "" || kind == Stint {
		return file
	}
	return file + "." + string(kind)
}

// Work says in a sentence what is measured.
func (o *Options) Work() string {
	sending := fmt.Sprintf("one sender process publishes %s to %s%s, with at most %s not yet accepted",
		o.amount(), plural(o.Queues, "queue", "queues"), o.batches(), thousands(int64(o.Window)))
	holding := fmt.Sprintf("%s, each with room for %s, answer every item at once with %d bytes",
		plural(o.Processors, "processor process", "processor processes"), thousands(int64(o.Capacity)), stampSize)
	const ending = ", and an item is completed when its answer has come to the sender."
	switch {
	case o.Mode == Enqueue:
		return capital(sending + ", and nobody takes them out; it ends when every item is accepted.")
	case o.Mode == Drain:
		return capital(sending + "; when all are accepted, and from here it is measured, " + holding + ending)
	case o.Backlog > 0:
		return fmt.Sprintf("With %s items waiting, %s and at most that many more added than completed, while %s, as fast as "+
			"items are added%s", thousands(o.Backlog), sending, holding, ending)
	}
	return capital(sending + ", while " + holding + ending)
}

// batches says what is different with Stint.
func (o *Options) batches() string {
	if o.Batch < 2 {
		return ""
	}
	return fmt.Sprintf(" (with Stint up to %d of them in one message, as well as answers and replies)", o.Batch)
}

func (o *Options) amount() string {
	if o.Items > 0 {
		return fmt.Sprintf("%s items of %s bytes", thousands(o.Items), thousands(int64(o.Size)))
	}
	return fmt.Sprintf("items of %s bytes for %s", thousands(int64(o.Size)), o.Duration)
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func plural(n int, one, many string) string {
	if n == 1 {
		return "one " + one
	}
	return thousands(int64(n)) + " " + many
}

func join(kinds []Kind) string {
	words := make([]string, len(kinds))
	for i, k := range kinds {
		words[i] = string(k)
	}
	return strings.Join(words, ", ")
}
