package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"stint/broker"
	"stint/store"
	"stint/store/bolt"
)

// stopGrace is how long a stop may take beyond drain_timeout: databases are written and closed in it.
const stopGrace = 30 * time.Second

type serveFlags struct {
	config, listen, dataDir, logFormat, logLevel string
}

func newServe() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the broker",
		Long: `Serve runs the broker and, unless the configuration names an outside one, the NATS server it stands on. Without a
configuration there is one persistent queue, work, on nats://127.0.0.1:4222, with its database in ./stint-data.

When it is ready it prints one line on standard output, and nothing else there:

  stint ready: nats://127.0.0.1:4222 queues=work

Its log goes to standard error. SIGTERM, SIGINT or SIGHUP ends it: no more work is given out, answers to work in hand are taken
for drain_timeout, the rest stays in the database, and it exits with 0. A second signal ends it at once with 130. Pools of the
configuration stop first; where there are pools, SIGHUP replaces their children one by one instead.

Relative paths in a configuration are relative to the working directory, not to the file. GOGC and GOMEMLIMIT, if set,
are kept; otherwise the collector is tuned for throughput while there is less than 176 MiB, and to keep within three quarters of
the memory at hand.

` + exitCodes,
		Example: `  stint serve
  stint serve --config stint.json
  stint serve --listen 0.0.0.0:4222 --data-dir /var/lib/stint --log-format json`,
		Args: cobra.NoArgs,
		RunE: do(func(cmd *cobra.Command, _ []string) error {
			c, err := f.load()
			if err != nil {
				return err
			}
			tuneMemory()
			return serve(cmd.Context(), c, cmd.OutOrStdout(), newLogger(cmd.ErrOrStderr(), c.Log))
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.config, "config", "", "the configuration `FILE`; without it, the defaults")
	flags.StringVar(&f.listen, "listen", "", "`HOST:PORT` to listen on, before what any file says; port 0 takes a free one")
	flags.StringVar(&f.dataDir, "data-dir", "", "`DIRECTORY` of the databases that the configuration gives no file")
	flags.StringVar(&f.logFormat, "log-format", "", "text or json")
	flags.StringVar(&f.logLevel, "log-level", "", "debug, info, warn or error")
	return cmd
}

// load reads the configuration and puts the flags over it.
func (f *serveFlags) load() (*config, error) {
	if err := f.check(); err != nil {
		return nil, &failure{exitUsage, err}
	}
	c, err := loadConfig(f.config)
	if err != nil {
		return nil, configError(err)
	}
	if f.listen != "" && c.NATS.URL != "" {
		return nil, failf(exitUsage, "--listen has no effect with nats.url, an outside server")
	}
	if f.listen != "" {
		c.Listen, c.listenFlag = f.listen, true
	}
	if f.dataDir != "" {
		c.moveData(f.dataDir)
	}
	c.Log.Format = either(f.logFormat, c.Log.Format)
	c.Log.Level = either(f.logLevel, c.Log.Level)
	return c, nil
}

func either(first, second string) string {
	if first != "" {
		return first
	}
	return second
}

// check reads the flags by the rules of the keys.
func (f *serveFlags) check() error {
	switch {
	case f.listen != "" && !validListen(f.listen):
		return fmt.Errorf("--listen must be %s, not %q", listenRule, f.listen)
	case f.logFormat != "" && f.logFormat != "text" && f.logFormat != "json":
		return fmt.Errorf(`--log-format must be "text" or "json", not %q`, f.logFormat)
	}
	switch f.logLevel {
	case "", "debug", "info", "warn", "error":
		return nil
	}
	return fmt.Errorf(`--log-level must be "debug", "info", "warn" or "error", not %q`, f.logLevel)
}

// serve runs until ctx ends, a signal comes, or something fails that cannot be mended.
func serve(ctx context.Context, c *config, stdout io.Writer, log *slog.Logger) error {
	h := &house{config: c, log: log}
	var reload []func()
	if len(c.Pools) > 0 {
		reload = []func(){h.reloadPools}
	}
	ctx, stop := withSignals(ctx, log, reload...)
	defer stop()
	if err := h.start(ctx); err != nil {
		return storageFailure(errors.Join(err, h.stop()))
	}
	_, err := fmt.Fprintf(stdout, "stint ready: %s queues=%s\n", h.url, strings.Join(c.addresses(), ","))
	if err == nil {
		err = h.wait(ctx)
	}
	if err != nil {
		log.Error("stint stops because it cannot go on", "err", err)
	} else {
		log.Info("stint stops: answers to work in hand are taken; another signal ends it at once",
			"drain_timeout", millis(c.DrainTimeout))
	}
	err = errors.Join(err, h.stop())
	log.Info("stint has stopped")
	return storageFailure(err)
}

// withSignals ends the context at the first signal. The second one ends the process, whatever it is doing. With a function to
// reload, SIGHUP is for that instead.
func withSignals(ctx context.Context, log *slog.Logger, reload ...func()) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP) // a closed terminal is no crash
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		done, stopping := ctx.Done(), false
		for {
			select {
			case s, open := <-signals:
				switch {
				case !open:
					return
				case s == syscall.SIGHUP && len(reload) > 0:
					reload[0]()
				case stopping:
					log.Warn("stint is ended by a second signal")
					os.Exit(exitInterrupt)
				default:
					stopping = true
					cancel()
				}
			case <-done:
				done, stopping = nil, true
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel()
		close(signals)
		<-ended
	}
}

// storageFailure gives errors of the store their exit code.
func storageFailure(err error) error {
	for _, of := range []error{store.ErrUnknown, store.ErrFull, store.ErrLocked, store.ErrNewer, store.ErrCorrupt} {
		if errors.Is(err, of) {
			return &failure{exitStorage, err}
		}
	}
	return err
}

// house is everything that serve runs: the NATS server if it is ours, the broker's connection, and the broker.
type house struct {
	config *config
	log    *slog.Logger
	url    string
	server *embedded // nil with an outside server
	door   *door
	// beforeSync is called before so many syncs of a database; nil, as for serve: nothing is.
	beforeSync func(syncs int)
	conn       *nats.Conn
	broker     *broker.Broker
	pools      pools
}

// start brings everything up in order. After an error stop cleans up what is there.
func (h *house) start(ctx context.Context) error {
	known, err := h.connect()
	if err != nil {
		return err
	}
	if err := h.config.checkPayload(h.conn.MaxPayload()); err != nil {
		return err
	}
	h.broker, err = broker.Start(ctx, broker.Options{
		Conn:         h.conn,
		Interest:     known.interest,
		Changes:      known.changes,
		Open:         h.open,
		Queues:       h.config.queueOptions(),
		DrainTimeout: millis(h.config.DrainTimeout),
		Logger:       h.log,
	})
	if err != nil {
		return err
	}
	if h.server != nil {
		if err := h.door.open(); err != nil {
			return err
		}
		h.url = h.server.url()
	}
	return h.startPools()
}

// connect makes the broker's own connection, to an outside server or to one that it starts.
func (h *house) connect() (presence, error) {
	options := broker.ConnOptions(h.log)
	if h.config.NATS.URL != "" {
		return presence{}, h.connectOutside(options)
	}
	var err error
	if h.server, err = setUpNATS(h.config, h.log); err != nil {
		return presence{}, err
	}
	if h.door, err = newDoor(h.server, h.config.addresses()); err != nil {
		return presence{}, err
	}
	if h.conn, err = h.server.connect(options...); err != nil {
		return presence{}, err
	}
	return h.server.presence(h.conn)
}

func (h *house) connectOutside(options []nats.Option) error {
	n := &h.config.NATS
	own, err := n.options()
	if err != nil {
		return err
	}
	h.conn, err = nats.Connect(n.URL, append(own, options...)...)
	if err != nil {
		return failf(exitConnect, "cannot connect to the NATS server of nats.url, %s: %w", redactURLs(n.URL), err)
	}
	h.url = redactURLs(h.conn.ConnectedUrl())
	return nil
}

// open opens a database for the broker.
func (h *house) open(persistor string, health store.Health) (store.DB, error) {
	if persistor == "" {
		return store.NewMemory(health), nil
	}
	return bolt.Open(h.config.Persistors[persistor].File, bolt.Options{
		Health: health, Logger: h.log, BeforeSync: h.beforeSync,
	})
}

// wait comes back without an error when ctx has ended.
func (h *house) wait(ctx context.Context) error {
	var server <-chan error
	if h.server != nil {
		server = h.server.failed()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-h.broker.Failed():
		return err
	case err := <-server:
		return err
	}
}

// stop takes down what is up, the broker first, while processors can still answer it.
func (h *house) stop() error {
	h.pools.stop()
	var err error
	if h.broker != nil {
		ctx, cancel := context.WithTimeout(context.Background(), millis(h.config.DrainTimeout)+stopGrace)
		defer cancel()
		err = h.broker.Stop(ctx)
	}
	if h.conn != nil {
		h.conn.Close()
	}
	if h.server != nil {
		h.server.close()
	}
	return err
}
