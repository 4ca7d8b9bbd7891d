// Command checksum computes the SHA-256 of every file below a directory through a Stint queue.
//
//	checksum work [--server URL] [--address ADDRESS] [--capacity N] [--delay D]
//	checksum send [--server URL] [--address ADDRESS] DIRECTORY
//
// send prints what sha256sum would print for the files, sorted by path; a summary goes to standard error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"stint/examples/checksum/sum"
	"stint/processor"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "checksum:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: checksum work [flags], or checksum send [flags] DIRECTORY; -h lists the flags")

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	fl := flag.NewFlagSet("checksum "+args[0], flag.ContinueOnError)
	fl.SetOutput(stderr)
	server := fl.String("server", nats.DefaultURL, "the broker's NATS `URL`")
	address := fl.String("address", "work", "the queue's `ADDRESS`")
	capacity := fl.Int("capacity", 4, "work: how many files at once")
	delay := fl.Duration("delay", 0, "work: wait this long before each file, to have time to watch")
	window := fl.Int("window", 256, "send: how many files may be unfinished at once")
	if err := fl.Parse(args[1:]); err != nil {
		return err
	}
	nc, err := nats.Connect(*server, nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", *server, err)
	}
	defer nc.Close()
	switch {
	case args[0] == "work" && fl.NArg() == 0:
		return processor.Run(ctx, nc, processor.Options{Address: *address, Capacity: *capacity}, slowed(sum.Handle, *delay))
	case args[0] == "send" && fl.NArg() == 1:
		return send(ctx, nc, fl.Arg(0), sum.Options{Address: *address, Window: *window}, stdout, stderr)
	}
	return errUsage
}

func slowed(h processor.Handler, delay time.Duration) processor.Handler {
	return func(ctx context.Context, w *processor.Work) ([]byte, error) {
		select {
		case <-time.After(delay):
			return h(ctx, w)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func send(ctx context.Context, nc *nats.Conn, dir string, o sum.Options, stdout, stderr io.Writer) error {
	files, err := sum.Files(dir, 0)
	if err != nil {
		return err
	}
	res, err := sum.Send(ctx, nc, files, o)
	if perr := res.Print(stdout); err == nil {
		err = perr
	}
	fmt.Fprintf(stderr, "%d files sent, %d accepted, %d answered by %d processors, %d redelivered, %d failed, %d bytes in %s\n",
		res.Sent, res.Accepted, res.Answered, len(res.By), res.Redelivered, res.Failed, res.Bytes, res.Elapsed.Round(time.Millisecond))
	for path, problem := range res.Errors {
		fmt.Fprintf(stderr, "%s: %s\n", path, problem)
	}
	if err == nil && res.Failed > 0 {
		err = fmt.Errorf("%d files have no checksum", res.Failed)
	}
	return err
}
