package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"stint/broker"
	"stint/broker/queue"
)

// config is the configuration, in the form of its file: the tags are the keys, times are milliseconds, sizes are bytes.
// Relative paths in it are relative to the working directory of the process, not to the file.
type config struct {
	Listen       string                     `json:"listen"`
	DataDir      string                     `json:"data_dir"`
	DrainTimeout int64                      `json:"drain_timeout"`
	Log          logConfig                  `json:"log"`
	NATS         natsConfig                 `json:"nats"`
	Persistors   map[string]persistorConfig `json:"persistors"`
	Queues       []queueConfig              `json:"queues"`
	Pools        []poolConfig               `json:"pools"`

	listenGiven bool // in the file
	listenFlag  bool // on the command line, which goes before everything
}

type logConfig struct {
	Format string `json:"format"`
	Level  string `json:"level"`
}

// natsConfig says which NATS server to use: an outside one at URL, or else one inside the process, with an ordinary
// server file as Config or with the defaults. The rest is how the broker itself signs in.
type natsConfig struct {
	Config   string    `json:"config"`
	URL      string    `json:"url"`
	Account  string    `json:"account"`
	User     string    `json:"user"`
	Password string    `json:"password"`
	Token    string    `json:"token"`
	Creds    string    `json:"creds"`
	NKey     string    `json:"nkey"`
	TLS      tlsConfig `json:"tls"`
}

type tlsConfig struct {
	CA   string `json:"ca"`
	Cert string `json:"cert"`
	Key  string `json:"key"`
}

type persistorConfig struct {
	File string `json:"file"`
}

type queueConfig struct {
	Address           string        `json:"address"`
	ProcessTimeout    int64         `json:"process_timeout"`
	PersistorAddress  string        `json:"persistor_address"`
	Collection        string        `json:"collection"`
	MaxAttempts       int64         `json:"max_attempts"`
	MaxDeaths         int64         `json:"max_deaths"`
	Backoff           backoffConfig `json:"backoff"`
	MaxItems          int64         `json:"max_items"`
	MaxBytes          int64         `json:"max_bytes"`
	MaxItemBytes      int64         `json:"max_item_bytes"`
	WindowItems       int64         `json:"window_items"`
	WindowBytes       int64         `json:"window_bytes"`
	MaxProcessors     int64         `json:"max_processors"`
	RegistrationTTL   int64         `json:"registration_ttl"`
	ReplyTTL          int64         `json:"reply_ttl"`
	MaxReplies        int64         `json:"max_replies"`
	DedupWindow       int64         `json:"dedup_window"`
	MaxDedup          int64         `json:"max_dedup"`
	ReplySubjects     []string      `json:"reply_subjects"`
	ProcessorSubjects []string      `json:"processor_subjects"`
}

type backoffConfig struct {
	Kind   string  `json:"kind"`
	Base   int64   `json:"base"`
	Max    int64   `json:"max"`
	Jitter float64 `json:"jitter"`
}

// The kinds of backoff.
const (
	backoffFixed       = "fixed"
	backoffExponential = "exponential"
)

// emptyConfig has the defaults of everything but the queues.
func emptyConfig() *config {
	return &config{
		Listen:       "127.0.0.1:4222",
		DataDir:      "./stint-data",
		DrainTimeout: (10 * time.Second).Milliseconds(),
		Log:          logConfig{Format: "text", Level: "info"},
		Persistors:   map[string]persistorConfig{},
		Pools:        []poolConfig{},
	}
}

// defaultAddress is the queue that runs without a configuration.
const defaultAddress = "work"

// defaultConfig is what runs without a file: one persistent queue.
func defaultConfig() *config {
	c := emptyConfig()
	c.Queues = []queueConfig{workQueue()}
	c.complete()
	return c
}

func workQueue() queueConfig {
	q := defaultQueue(true)
	q.Address, q.PersistorAddress = defaultAddress, "stint"
	return q
}

// defaultQueue takes the defaults from the queue package, so that they are written down once.
func defaultQueue(persistent bool) queueConfig {
	d := queue.Config{}.WithDefaults(persistent)
	kind := backoffExponential
	if d.Backoff.Fixed {
		kind = backoffFixed
	}
	return queueConfig{
		ProcessTimeout: d.ProcessTimeout.Milliseconds(),
		MaxAttempts:    int64(d.MaxAttempts),
		MaxDeaths:      int64(d.MaxDeaths),
		Backoff: backoffConfig{
			Kind:   kind,
			Base:   d.Backoff.Base.Milliseconds(),
			Max:    d.Backoff.Max.Milliseconds(),
			Jitter: d.Backoff.Jitter,
		},
		MaxItems:          int64(d.MaxItems),
		MaxBytes:          d.MaxBytes,
		MaxItemBytes:      int64(d.MaxItemBytes),
		WindowItems:       int64(d.WindowItems),
		WindowBytes:       int64(d.WindowBytes),
		MaxProcessors:     int64(d.MaxProcessors),
		RegistrationTTL:   d.RegistrationTTL.Milliseconds(),
		ReplyTTL:          d.ReplyTTL.Milliseconds(),
		MaxReplies:        int64(d.MaxReplies),
		DedupWindow:       d.DedupWindow.Milliseconds(),
		MaxDedup:          int64(d.MaxDedup),
		ReplySubjects:     []string{},
		ProcessorSubjects: []string{},
	}
}

// complete fills in what follows from other keys: collections and database files.
func (c *config) complete() {
	if c.NATS.URL != "" {
		c.Listen = ""
	}
	for i := range c.Queues {
		q := &c.Queues[i]
		if q.PersistorAddress == "" {
			continue
		}
		if q.Collection == "" {
			q.Collection = q.Address
		}
		if c.Persistors[q.PersistorAddress].File == "" {
			c.Persistors[q.PersistorAddress] = persistorConfig{File: filepath.Join(c.DataDir, q.PersistorAddress+".db")}
		}
	}
}

// moveData puts the databases that lie in the data directory into another one.
func (c *config) moveData(dir string) {
	for name, p := range c.Persistors {
		if p.File == filepath.Join(c.DataDir, name+".db") {
			c.Persistors[name] = persistorConfig{}
		}
	}
	c.DataDir = dir
	c.complete()
}

func millis(ms int64) time.Duration { return time.Duration(ms) * time.Millisecond }

// options is the queue as the broker takes it.
func (q *queueConfig) options() broker.QueueOptions {
	return broker.QueueOptions{
		Persistor:  q.PersistorAddress,
		Collection: q.Collection,
		Config: queue.Config{
			Address:        q.Address,
			ProcessTimeout: millis(q.ProcessTimeout),
			MaxAttempts:    int(q.MaxAttempts),
			MaxDeaths:      int(q.MaxDeaths),
			Backoff: queue.Backoff{
				Fixed:  q.Backoff.Kind == backoffFixed,
				Base:   millis(q.Backoff.Base),
				Max:    millis(q.Backoff.Max),
				Jitter: q.Backoff.Jitter,
			},
			MaxItems:          int(q.MaxItems),
			MaxBytes:          q.MaxBytes,
			MaxItemBytes:      int(q.MaxItemBytes),
			WindowItems:       int(q.WindowItems),
			WindowBytes:       int(q.WindowBytes),
			MaxProcessors:     int(q.MaxProcessors),
			RegistrationTTL:   millis(q.RegistrationTTL),
			ReplyTTL:          millis(q.ReplyTTL),
			MaxReplies:        int(q.MaxReplies),
			DedupWindow:       millis(q.DedupWindow),
			MaxDedup:          int(q.MaxDedup),
			ReplySubjects:     q.ReplySubjects,
			ProcessorSubjects: q.ProcessorSubjects,
		},
	}
}

func (c *config) queueOptions() []broker.QueueOptions {
	out := make([]broker.QueueOptions, len(c.Queues))
	for i := range c.Queues {
		out[i] = c.Queues[i].options()
	}
	return out
}

func (c *config) addresses() []string {
	out := make([]string, len(c.Queues))
	for i, q := range c.Queues {
		out[i] = q.Address
	}
	return out
}

// encode is the configuration as a file that says the same.
func (c *config) encode() []byte {
	out, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("encoding a configuration of plain values: %v", err)) // cannot be: no floats but 0 to 1
	}
	return append(out, '\n')
}

const masked = "********"

// redacted is the configuration without its secrets. Names of files with secrets stay.
func (c *config) redacted() *config {
	out := *c
	for _, secret := range []*string{&out.NATS.Password, &out.NATS.Token} {
		if *secret != "" {
			*secret = masked
		}
	}
	out.NATS.URL = redactURLs(out.NATS.URL)
	return &out
}

// redactURLs masks the user information in a list of URLs, all of it, since a lone user name is a token to NATS.
func redactURLs(list string) string {
	parts := strings.Split(list, ",")
	for i, part := range parts {
		u, err := url.Parse(strings.TrimSpace(part))
		if err != nil || u.User == nil {
			continue
		}
		u.User = nil
		parts[i] = strings.Replace(u.String(), "://", "://"+masked+"@", 1)
	}
	return strings.Join(parts, ",")
}
