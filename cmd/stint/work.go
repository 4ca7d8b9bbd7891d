package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"stint/processor"
	"stint/processor/pool"
	"stint/processor/pool/node"
	"stint/wire"
)

type workFlags struct {
	connectFlags
	poolConfig
	exec, lines          bool
	times                map[*int64]*time.Duration
	env, require         []string
	node                 node.Options
	nodeModule, nodeKind string
	log                  logConfig
	monitor, json        bool
	every                time.Duration
}

func newWork() *cobra.Command {
	f := workFlags{poolConfig: defaultPool(), times: map[*int64]*time.Duration{}}
	cmd := &cobra.Command{
		Use:   "work ADDRESS [flags] -- COMMAND [ARGS...]",
		Short: "Run a pool of child processes that process a queue's items",
		Long: `Work starts COMMAND in several child processes and has them process the items of the queue at ADDRESS. It watches over
them: a child that crashes, hangs or answers nonsense costs its item one attempt and is replaced. When work ends, however that
is, its children and all that they have started end too.

  --lines  (default) a child lives for many items and speaks one JSON object per line, on descriptors 3 (in) and 4 (out)
  --exec   a process for each item: body on standard input, reply from standard output; exit code 0 is done
  --node   a Node.js module written for ewd-qoper8, Q-Oper8 or qworker; no COMMAND

docs/pools.md has the protocol, with examples. A configuration of stint serve can have the same as "pools".

When it is registered it prints one line on standard output, and nothing else there:

  stint work ready: queue=orders pool=host-4711 children=4

What children print, and the log, go to standard error. SIGTERM or SIGINT ends it: items in hand are finished for --stop-timeout,
the rest goes back to the queue without a counted attempt, exit code 0. A second signal ends it at once with 130. SIGHUP replaces
the children one by one, without refusing work; if the new ones end at once the old ones stay.

--monitor starts nothing: it shows the pools of ADDRESS, or all pools, as a table, on a terminal again and again.

` + exitCodes,
		Example: `  stint work orders -- python3 worker.py
  stint work thumbnails --exec --children 4 --timeout 30s -- convert - -resize 100x100 jpg:-
  stint work orders --node ./worker.js --ahead 16
  stint work orders --min-children 0 --children 8 --idle-timeout 5m --max-memory 300000000 -- ./worker
  stint work orders --monitor`,
		Args: cobra.ArbitraryArgs,
		RunE: do(func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) }),
	}
	flags := cmd.Flags()
	f.add(flags)
	f.connectFlags.add(flags)
	return cmd
}

func (f *workFlags) add(flags *pflag.FlagSet) {
	flags.BoolVar(&f.lines, "lines", false, "children that live for many items (the default)")
	flags.BoolVar(&f.exec, "exec", false, "a process for each item")
	f.addNode(flags)
	flags.StringVar(&f.Name, "name", "", "`NAME` of the pool in statistics and log; default host and process id")
	flags.Int64Var(&f.Children, "children", f.Children, "how many children there are at most")
	flags.Int64Var(&f.MinChildren, "min-children", -1, "how many there are at least; default as many as at most")
	flags.Int64Var(&f.Ahead, "ahead", f.Ahead, "how many items a child may be handed at once; it handles one at a time. With --exec, how many the pool may hold for each")
	flags.BoolVar(&f.Stdio, "stdio", false, "lines go through standard input and output")
	f.duration(flags, &f.Timeout, "timeout", "how long a child may have an item; 0: for ever")
	f.duration(flags, &f.ExitTimeout, "exit-timeout", "how long it has to end, before SIGTERM and again before SIGKILL")
	f.duration(flags, &f.StopTimeout, "stop-timeout", "how long items in hand may take when work is told to stop")
	f.duration(flags, &f.IdleTimeout, "idle-timeout", "end a child without work after so long, down to --min-children; 0: never")
	f.duration(flags, &f.RollOver, "roll-over", "replace all children, one by one, every so often; 0: never")
	f.duration(flags, &f.MonitorInterval, "monitor-interval", "log the statistics every so often, if there was work; 0: never")
	f.duration(flags, &f.ProcessTimeout, "process-timeout", "the queue's process timeout, if that is below 30s")
	flags.Int64Var(&f.MaxUseCount, "max-use-count", 0, "replace a child after so many items; 0: never")
	flags.Int64Var(&f.MaxMemory, "max-memory", 0, "`BYTES` of memory that a child and all below it may take; 0: any")
	flags.Int64Var(&f.MaxOutput, "max-output", f.MaxOutput, "`BYTES` of a line from a child, or of the output with --exec")
	flags.Int64Var(&f.MaxKills, "max-kills", f.MaxKills, "dead letter after ending so many children in a row; 0: never")
	flags.Int64Var(&f.Nice, "nice", 0, "nice level of the children, -20 to 19")
	flags.StringVar(&f.Cwd, "cwd", "", "working `DIRECTORY` of the children")
	flags.StringArrayVar(&f.env, "env", nil, "`NAME=VALUE` in their environment; may be repeated")
	flags.StringVar(&f.RunAs, "run-as", "", "`USER[:GROUP]` that they run as")
	flags.StringVar(&f.LockFile, "lockfile", "", "`FILE` that keeps a second pool from running")
	flags.StringVar(&f.Subject, "subject", "", "`SUBJECT` where the broker sends work; default a new one")
	flags.StringVar(&f.log.Format, "log-format", "text", "text or json")
	flags.StringVar(&f.log.Level, "log-level", "info", "debug, info, warn or error")
	flags.BoolVar(&f.monitor, "monitor", false, "show the pools that run")
	flags.BoolVar(&f.json, "json", false, "with --monitor, print JSON lines")
	flags.DurationVar(&f.every, "interval", time.Second, "with --monitor, how often the table is made anew")
}

func (f *workFlags) addNode(flags *pflag.FlagSet) {
	flags.StringVar(&f.nodeModule, "node", "", "`MODULE` of Node.js: a path, a package, or package.property")
	flags.StringVar(&f.nodeKind, "node-style", "auto", "auto, ewd, ewd-old, qoper8, qoper8-async or qworker")
	flags.StringVar(&f.node.Node, "node-program", "", "`PROGRAM` of Node.js; default node, looked up in PATH")
	flags.StringArrayVar(&f.node.NodeArgs, "node-arg", nil, "`ARG` for Node.js, such as --max-old-space-size=256; may be repeated")
	flags.StringVar(&f.node.ScriptDir, "script-dir", "", "`DIRECTORY` of the scripts that items of qworker name")
	flags.BoolVar(&f.node.Confine, "confine", false, "refuse scripts outside it")
	flags.StringArrayVar(&f.require, "require", nil, "`NAME=PATH` to load before the module, as a global; may be repeated")
	flags.BoolVar(&f.node.AllowEval, "allow-eval", false, "let items of qworker bring their own source text")
	flags.StringVar((*string)(&f.node.Errors), "node-errors", "", "fail: an error is a failed attempt; reply: it is the reply")
}

// duration adds a flag for a key of milliseconds.
func (f *workFlags) duration(flags *pflag.FlagSet, key *int64, name, usage string) {
	d := new(time.Duration)
	flags.DurationVar(d, name, millis(*key), usage)
	f.times[key] = d
}

func (f *workFlags) run(cmd *cobra.Command, args []string) error {
	if f.monitor {
		return f.watch(cmd, args)
	}
	c, err := f.pool(cmd, args)
	if err != nil {
		return &failure{exitUsage, err}
	}
	o, err := c.options()
	if err != nil {
		return &failure{exitUsage, err}
	}
	log := newLogger(cmd.ErrOrStderr(), f.log)
	o.Logger, o.Output = log, cmd.ErrOrStderr()
	return f.work(cmd.Context(), o, cmd.OutOrStdout())
}

// pool is what the flags and arguments say.
func (f *workFlags) pool(cmd *cobra.Command, args []string) (*poolConfig, error) {
	c := &f.poolConfig
	dash := cmd.ArgsLenAtDash()
	switch {
	case len(args) == 0 || dash == 0:
		return nil, errors.New("the address of the queue is missing: stint work ADDRESS -- COMMAND")
	case dash > 1 || dash < 0 && len(args) > 1:
		return nil, fmt.Errorf("give one address, and the command behind --: stint work %s -- COMMAND", args[0])
	case f.exec && f.lines || f.nodeModule != "" && f.exec:
		return nil, errors.New("--exec, --lines and --node contradict each other: choose one")
	}
	c.Address, c.Command = args[0], args[1:]
	if f.exec {
		c.Mode = string(pool.Exec)
	}
	for key, d := range f.times {
		if *d < 0 || *d > millis(longest) || *d%time.Millisecond != 0 {
			return nil, fmt.Errorf("%s is no time of whole milliseconds from 0 to %s", *d, millis(longest))
		}
		*key = d.Milliseconds()
	}
	if c.MinChildren < 0 {
		c.MinChildren = c.Children
	}
	err := c.checkRanges()
	if err != nil {
		return nil, err
	}
	if c.Env, err = pairs("--env", f.env); err != nil {
		return nil, err
	}
	if f.usesNode(cmd) {
		c.Node, err = f.nodeOptions()
	}
	return c, errors.Join(err, f.checkLog())
}

func (f *workFlags) checkLog() error {
	return (&serveFlags{logFormat: f.log.Format, logLevel: f.log.Level}).check()
}

// usesNode says whether some flag is for Node.js; scripts of qworker need no module.
func (f *workFlags) usesNode(cmd *cobra.Command) bool {
	return f.nodeModule != "" || cmd.Flags().Changed("node") || cmd.Flags().Changed("script-dir") || cmd.Flags().Changed("node-style")
}

func (f *workFlags) nodeOptions() (*node.Options, error) {
	o := f.node
	o.Module, o.Style = f.nodeModule, node.Style(f.nodeKind)
	var err error
	if len(f.require) > 0 {
		o.Require, err = pairs("--require", f.require)
	}
	return &o, err
}

func pairs(flag string, given []string) (map[string]string, error) {
	out := map[string]string{}
	for _, entry := range given {
		name, value, ok := strings.Cut(entry, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%s must be NAME=VALUE, not %q", flag, clip(entry))
		}
		out[name] = value
	}
	return out, nil
}

// work runs the pool until a signal comes.
func (f *workFlags) work(ctx context.Context, o pool.Options, stdout io.Writer) error {
	if err := wire.CheckAddress(o.Address); err != nil {
		return &failure{exitUsage, err}
	}
	if o.Name == "" {
		o.Name = pool.DefaultName()
	}
	ready := make(chan error, 1)
	var once sync.Once
	o.OnRegister = func() {
		once.Do(func() {
			_, err := fmt.Fprintf(stdout, "stint work ready: queue=%s pool=%s children=%d\n", o.Address, o.Name, o.Children)
			ready <- err
		})
	}
	p, err := pool.New(o)
	if err != nil {
		return &failure{exitUsage, err}
	}
	ctx, stop := withSignals(ctx, o.Logger, p.Reload)
	defer stop()
	nc, err := f.connect("stint work "+o.Name, f.notices(o.Logger)...)
	if err != nil {
		return err
	}
	defer nc.Close()
	err = p.Run(ctx, nc)
	if err == nil {
		o.Logger.Info("the pool has stopped", "queue", o.Address)
	}
	return workFailure(err)
}

// notices are what the log is told of the connection.
func (f *workFlags) notices(log *slog.Logger) []nats.Option {
	return []nats.Option{
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("the connection to the NATS server is lost; trying again", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("connected to the NATS server again", "url", nc.ConnectedUrlRedacted()) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Error("the NATS server reports an error", "error", err)
		}),
	}
}

// workFailure gives errors of a pool their exit code.
func workFailure(err error) error {
	if errors.Is(err, processor.ErrClosed) {
		return &failure{exitConnect, err}
	}
	return err
}
