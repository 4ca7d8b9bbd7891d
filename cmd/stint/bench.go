package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"stint/broker"
	"stint/cmd/stint/bench"
)

type benchFlags struct {
	bench.Options
	peers   []string
	mode    string
	seconds float64
	json    bool
}

func newBench() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the same work through stint and through its peers",
		Long: `Bench measures one work: a sender process publishes items, with at most a window of them not yet accepted, while
processor processes, each with room for a number of items, answer every item at once, and an item is completed when its
answer has come to the sender.

It does so through stint, as serve runs it, and through each --peer, in turns, for several rounds, each with new processes
and a new database, and prints medians and ratios. The peers:

  jetstream       a JetStream work queue in files as it is by default, which calls fsync every two minutes
  jetstream-sync  the same with fsync before each acknowledgement
  relay           the same hops through the same NATS server with nothing remembered: the limit

--mode says which part of the way is measured:

  roundtrip  until every reply has come; with a window of 1 each item waits for the reply of the one before
  enqueue    without processors, until every item is accepted
  drain      items are put there first, then the processors start; from the first reply to the last

With --backlog N, N items are put there first, too. Then the processors take from the head while the sender adds at the
tail. The sender is never more than a window ahead of what is completed meanwhile, and it gives the processors credit for
answers as it adds, so that they are never further ahead of it than a handful for each: the backlog keeps its length, and
completed/s and accepted/s are one flow. It is measured from the first reply until as many are completed as were added.

With --batch N the sender and the processors use batches with stint: up to N items, answers or replies that are ready at one
time go in one message. Nothing waits for a message to fill. The peers have no batches and are measured as they are.

The sender reads accept notices as stint send does, with --decode-json with a decoder of any JSON, as the client library of
JetStream reads acknowledgements.

With --slow-sync there are also rounds of stint in which each fsync takes that much longer.

Latencies are taken under the load. Processor time, memory (what is not a mapped file) and bytes written are those of the
server process; they are known on Linux only. An item that is lost or answered twice is an error.

` + exitCodes,
		Example: `  stint bench --peer jetstream --peer relay
  stint bench --mode drain --peer jetstream --json >drain.json
  stint bench --window 1 --processors 1 --peer relay
  stint bench --batch 64 --window 1024 --capacity 256 --peer jetstream
  stint bench --slow-sync 5ms --dir /var/tmp
  stint bench --backlog 1000000 --rounds 1 --cpuprofile cpu.pprof`,
		Args: cobra.NoArgs,
		RunE: do(func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		}),
	}
	f.add(cmd)
	for _, role := range bench.Roles() {
		cmd.AddCommand(newBenchRole(role))
	}
	return cmd
}

func (f *benchFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.peers, "peer", nil, "`NAME` of a peer: jetstream, jetstream-sync or relay; may be repeated")
	flags.StringVar(&f.mode, "mode", string(bench.Roundtrip), "roundtrip, enqueue or drain")
	flags.Float64Var(&f.seconds, "seconds", 4, "how long the sender sends in a round, unless --items is given")
	flags.Int64Var(&f.Items, "items", 0, "how many items the sender sends in a round")
	flags.IntVar(&f.Size, "size", 128, "`BYTES` of an item's body")
	flags.IntVar(&f.Window, "window", 256, "how many items may be sent and not yet accepted")
	flags.IntVar(&f.Processors, "processors", 2, "how many processor processes there are")
	flags.IntVar(&f.Capacity, "capacity", 64, "how many items of a queue a processor may hold")
	flags.IntVar(&f.Rounds, "rounds", 5, "how many rounds there are of each kind")
	flags.IntVar(&f.Batch, "batch", 0, "how many items may go in one message through stint, both ways")
	flags.IntVar(&f.Queues, "queues", 1, "how many queues the items are spread over")
	flags.Int64Var(&f.Backlog, "backlog", 0, "how many items wait meanwhile; with --mode roundtrip")
	flags.BoolVar(&f.DecodeJSON, "decode-json", false, "decode accept notices as any JSON")
	flags.DurationVar(&f.SlowSync, "slow-sync", 0, "measure stint also with each fsync this much longer, such as 5ms")
	flags.StringVar(&f.Dir, "dir", "", "`DIRECTORY` for the data while it runs; without it, that of temporary files")
	flags.StringVar(&f.CPUProfile, "cpuprofile", "", "`FILE` for the server's processor profile; a peer's is FILE.NAME")
	flags.StringVar(&f.MemProfile, "memprofile", "", "`FILE` for the server's heap profile; a peer's is FILE.NAME")
	flags.BoolVar(&f.json, "json", false, "print JSON")
}

func (f *benchFlags) run(ctx context.Context, stdout, stderr io.Writer) error {
	o, err := f.options()
	if err != nil {
		return &failure{exitUsage, err}
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var live io.Writer
	if isTerminal(stderr) && !f.json {
		live = stderr
	}
	report, err := bench.Run(ctx, o, live)
	switch {
	case err != nil && ctx.Err() != nil:
		return failf(exitInterrupt, "stopped before it was done")
	case err != nil:
		return err
	case f.json:
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(report)
	}
	return report.Print(stdout)
}

func (f *benchFlags) options() (bench.Options, error) {
	o := f.Options
	o.Mode = bench.Mode(f.mode)
	for _, peer := range f.peers {
		o.Peers = append(o.Peers, bench.Kind(peer))
	}
	if math.IsNaN(f.seconds) || f.seconds > bench.MaxDuration.Seconds() {
		return o, fmt.Errorf("--seconds must be above 0 and at most %.0f", bench.MaxDuration.Seconds())
	}
	o.Duration = time.Duration(f.seconds * float64(time.Second))
	for _, file := range []*string{&o.CPUProfile, &o.MemProfile} {
		if *file == "" {
			continue
		}
		var err error
		if *file, err = filepath.Abs(*file); err != nil {
			return o, err
		}
	}
	return o, o.Check()
}

// newBenchRole is a command that bench runs itself, in processes of their own.
func newBenchRole(role string) *cobra.Command {
	return &cobra.Command{
		Use:    role,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: do(func(cmd *cobra.Command, _ []string) error {
			if role == bench.RoleServer {
				tuneMemory()
			}
			hosts := bench.Hosts{Stint: benchStint, NATS: benchNATS}
			return bench.Play(cmd.Context(), role, hosts, cmd.InOrStdin(), cmd.OutOrStdout())
		}),
	}
}

// benchConfig is that of serve without a file, but for the directory, a free port and the queues.
func benchConfig(dir string, addresses []string) *config {
	c := emptyConfig()
	c.DataDir = dir
	c.Listen = "127.0.0.1:0"
	c.listenFlag = true
	for _, address := range addresses {
		q := workQueue()
		q.Address = address
		c.Queues = append(c.Queues, q)
	}
	c.complete()
	return c
}

// benchLog lets through what explains a failure.
func benchLog() *slog.Logger { return newLogger(os.Stderr, logConfig{Format: "text", Level: "error"}) }

func benchStint(ctx context.Context, dir string, addresses []string, beforeSync func(int)) (bench.Host, error) {
	h := &house{config: benchConfig(dir, addresses), log: benchLog(), beforeSync: beforeSync}
	if err := h.start(ctx); err != nil {
		return bench.Host{Close: h.stop}, err
	}
	return bench.Host{URL: h.url, Close: h.stop}, nil
}

// benchNATS runs the server as benchStint's house does. Its Connect makes a connection such as the broker's.
func benchNATS(_ context.Context, dir, text string) (bench.Host, error) {
	c := benchConfig(dir, nil)
	if text != "" {
		c.NATS.Config = filepath.Join(dir, "nats.conf")
		if err := os.WriteFile(c.NATS.Config, []byte(strings.TrimSpace(text)+"\n"), 0o600); err != nil {
			return bench.Host{}, fmt.Errorf("writing the NATS server file: %w", err)
		}
	}
	log := benchLog()
	e, err := startNATS(c, log)
	if err != nil {
		return bench.Host{}, err
	}
	return bench.Host{
		URL:     e.url(),
		Connect: func() (*nats.Conn, error) { return e.connect(broker.ConnOptions(log)...) },
		Close: func() error {
			e.close()
			return nil
		},
	}, nil
}
