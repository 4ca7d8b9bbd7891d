package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"stint/examples/checksum/sum"
	"stint/processor"
)

const (
	demoProcessors = 3
	demoCapacity   = 4
	// demoPace slows each file down, so that there is something to see and something in hand when a processor is killed.
	demoPace = 5 * time.Millisecond
	// demoShow is how often the counts are shown.
	demoShow = 500 * time.Millisecond
)

type demoFlags struct {
	listen, dir string
	files       int
	once        bool
}

func newDemo() *cobra.Command {
	var f demoFlags
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "See the whole thing work: a broker, processors, real work, one processor killed",
		Long: `Demo starts the broker exactly as serve does, with its database in a temporary directory, and three processor
processes. It sends one item for each file of a directory; the processors answer with the file's SHA-256. A third of the
way through one of them is killed with SIGKILL. In the end every sum is compared with one computed here. Then the broker
and the processors that are left stay up for your own items, until Ctrl-C.

` + exitCodes,
		Example: `  stint demo
  stint demo --dir /usr/share --files 5000
  stint demo --once`,
		Args: cobra.NoArgs,
		RunE: do(func(cmd *cobra.Command, _ []string) error {
			return demo(cmd.Context(), f, cmd.OutOrStdout(), cmd.ErrOrStderr())
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.listen, "listen", "", "`HOST:PORT` of the broker; default 127.0.0.1:4222, or a free port if that is taken")
	flags.StringVar(&f.dir, "dir", "", "the `DIRECTORY` whose files are summed; default: Go's own source, or this directory")
	flags.IntVar(&f.files, "files", 2000, "at most so many files")
	flags.BoolVar(&f.once, "once", false, "end when the work is done instead of staying up")
	return cmd
}

// newDemoWork is what demo starts: a processor process.
func newDemoWork() *cobra.Command {
	return &cobra.Command{
		Use: "demo-work URL", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: do(func(cmd *cobra.Command, args []string) error {
			log := slog.New(slog.DiscardHandler)
			ctx, stop := withSignals(cmd.Context(), log)
			defer stop()
			nc, err := nats.Connect(args[0], nats.MaxReconnects(-1))
			if err != nil {
				return fmt.Errorf("connecting to %s: %w", args[0], err)
			}
			defer nc.Close()
			return processor.Run(ctx, nc, processor.Options{Address: defaultAddress, Capacity: demoCapacity}, paced)
		}),
	}
}

func paced(ctx context.Context, w *processor.Work) ([]byte, error) {
	select {
	case <-time.After(demoPace):
		return sum.Handle(ctx, w)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func demo(ctx context.Context, f demoFlags, stdout, stderr io.Writer) (err error) {
	if f.files < 1 {
		return failf(exitUsage, "--files must be at least 1, not %d", f.files)
	}
	dir, err := os.MkdirTemp("", "stint-demo-")
	if err != nil {
		return fmt.Errorf("making a directory for the database: %w", err)
	}
	defer os.RemoveAll(dir)
	c := defaultConfig()
	c.Listen = demoListen(f.listen, c.Listen)
	c.moveData(dir)
	c.Log.Level = "warn"
	log := newLogger(stderr, c.Log)
	ctx, stop := withSignals(ctx, log)
	defer stop()
	tuneMemory()
	h := &house{config: c, log: log}
	if err := h.start(ctx); err != nil {
		return errors.Join(err, h.stop())
	}
	defer func() { err = errors.Join(err, h.stop()) }()
	fmt.Fprintf(stdout, "The broker runs at %s with the persistent queue %q.\n", h.url, defaultAddress)
	d := &demonstration{url: h.url, out: stdout}
	defer d.stop()
	if err := d.run(ctx, f); err != nil || f.once {
		return err
	}
	fmt.Fprintf(stdout, `
The broker and %d processors stay up until Ctrl-C. In another terminal, with any file:
  stint send --server %s %s '{"path":"/etc/hostname"}'
(from the source: go run ./cmd/stint send ...)
`, len(d.processors), h.url, defaultAddress)
	return h.wait(ctx)
}

// demoListen is the address asked for, or the usual one if it is free, or any free port.
func demoListen(asked, usual string) string {
	if asked != "" {
		return asked
	}
	l, err := net.Listen("tcp", usual)
	if err != nil {
		return "127.0.0.1:0"
	}
	l.Close()
	return usual
}

// demonstration is the processors and the sender of a demo.
type demonstration struct {
	url        string
	out        io.Writer
	processors []*exec.Cmd
	killed     int // process id, 0: none yet
	shown      time.Time
}

func (d *demonstration) run(ctx context.Context, f demoFlags) error {
	dir := f.dir
	if dir == "" {
		dir = demoDirectory()
	}
	files, err := sum.Files(dir, f.files)
	if err != nil {
		return err
	}
	for range demoProcessors {
		if err := d.startProcessor(); err != nil {
			return err
		}
	}
	fmt.Fprintf(d.out, "%d processor processes run: %s.\n", len(d.processors), d.pids())
	fmt.Fprintf(d.out, "Sending %d items, one for each file below %s.\n", len(files), dir)
	nc, err := nats.Connect(d.url)
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", d.url, err)
	}
	defer nc.Close()
	res, err := sum.Send(ctx, nc, files, sum.Options{Address: defaultAddress, Window: 1000, Watch: func(p sum.Progress) {
		d.watch(p, len(files))
	}})
	if err != nil {
		return fmt.Errorf("sending the items: %w", err)
	}
	return d.conclude(&res)
}

// demoDirectory is Go's own source where it is installed: some thousand files that are everywhere the same.
func demoDirectory() string {
	if out, err := exec.Command("go", "env", "GOROOT").Output(); err == nil {
		src := filepath.Join(strings.TrimSpace(string(out)), "src")
		if _, err := os.Stat(src); err == nil {
			return src
		}
	}
	return "."
}

func (d *demonstration) startProcessor() error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	cmd := exec.Command(self, "demo-work", d.url)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting a processor: %w", err)
	}
	d.processors = append(d.processors, cmd)
	return nil
}

func (d *demonstration) pids() string {
	var pids []string
	for _, p := range d.processors {
		pids = append(pids, fmt.Sprint(p.Process.Pid))
	}
	return strings.Join(pids, ", ")
}

// watch shows how far the work is, and kills a processor a third of the way.
func (d *demonstration) watch(p sum.Progress, all int) {
	if d.killed == 0 && p.Answered >= max(1, all/3) {
		victim := d.processors[0]
		d.processors = d.processors[1:]
		d.killed = victim.Process.Pid
		if err := victim.Process.Kill(); err == nil {
			victim.Wait() //nolint:errcheck // it was killed
		}
		fmt.Fprintf(d.out, "Killed processor %d (SIGKILL) with work in hand.\n", d.killed)
	}
	if time.Since(d.shown) >= demoShow {
		d.shown = time.Now()
		fmt.Fprintf(d.out, "  accepted %5d   answered %5d   redelivered %3d\n", p.Accepted, p.Answered, p.Redelivered)
	}
}

// conclude sums up, and computes all sums again here.
func (d *demonstration) conclude(res *sum.Result) error {
	fmt.Fprintf(d.out, "Done in %s: %d sent, %d accepted, %d answered, %d of them redelivered, %d failed.\n",
		res.Elapsed.Round(time.Millisecond), res.Sent, res.Accepted, res.Answered, res.Redelivered, res.Failed)
	for _, pid := range slices.Sorted(maps.Keys(res.By)) {
		mark := ""
		if pid == d.killed {
			mark = "   (killed)"
		}
		fmt.Fprintf(d.out, "  processor %d processed %d%s\n", pid, res.By[pid], mark)
	}
	wrong := 0
	for path, got := range res.Sums {
		if want, err := sum.Of(path); err != nil || want != got {
			wrong++
		}
	}
	if wrong > 0 || res.Failed > 0 {
		return fmt.Errorf("%d sums are wrong and %d files have none", wrong, res.Failed)
	}
	fmt.Fprintf(d.out, "All %d sums are equal to those computed here.\n", len(res.Sums))
	return nil
}

// stop ends the processors: they finish what they have in hand.
func (d *demonstration) stop() {
	for _, p := range d.processors {
		if runtime.GOOS == "windows" || p.Process.Signal(os.Interrupt) != nil {
			p.Process.Kill() //nolint:errcheck // it has ended
		}
	}
	for _, p := range d.processors {
		p.Wait() //nolint:errcheck // how it ended does not matter any more
	}
}
