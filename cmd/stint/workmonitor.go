package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"stint/processor/pool"
)

const (
	monitorWait = 300 * time.Millisecond // for the answers of all pools
	maxMonitor  = 1000                   // pools that are shown
)

// watch shows the pools until it is stopped; without a terminal, once.
func (f *workFlags) watch(cmd *cobra.Command, args []string) error {
	address := ""
	switch {
	case len(args) > 1:
		return failf(exitUsage, "--monitor takes one address or none: it starts nothing")
	case len(args) == 1:
		address = args[0]
	case f.every < monitorWait:
		return failf(exitUsage, "--interval must be at least %s", monitorWait)
	}
	ctx, stop := withSignals(cmd.Context(), newLogger(cmd.ErrOrStderr(), f.log))
	defer stop()
	nc, err := f.connect("stint work --monitor")
	if err != nil {
		return err
	}
	defer nc.Close()
	stdout := cmd.OutOrStdout()
	again := isTerminal(stdout)
	if !again {
		return f.show(ctx, nc, address, stdout, false)
	}
	tick := time.NewTicker(f.every)
	defer tick.Stop()
	for {
		if err := f.show(ctx, nc, address, stdout, !f.json); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// show asks all pools once and prints what they answer.
func (f *workFlags) show(ctx context.Context, nc *nats.Conn, address string, stdout io.Writer, clearFirst bool) error {
	pools, err := askPools(ctx, nc, address)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if clearFirst {
		b.WriteString("\x1b[H\x1b[2J")
	}
	if f.json {
		enc := json.NewEncoder(&b)
		for i := range pools {
			if err := enc.Encode(&pools[i]); err != nil {
				return fmt.Errorf("writing the statistics: %w", err)
			}
		}
	} else {
		printPools(&b, pools)
	}
	_, err = stdout.Write(b.Bytes())
	return err
}

// askPools gathers what comes within the time.
func askPools(ctx context.Context, nc *nats.Conn, address string) ([]pool.Stats, error) {
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, fmt.Errorf("subscribing for the statistics: %w", err)
	}
	defer sub.Unsubscribe()
	if err := nc.PublishRequest(pool.StatsSubject, inbox, nil); err != nil {
		return nil, fmt.Errorf("asking for the statistics: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, monitorWait)
	defer cancel()
	var pools []pool.Stats
	for len(pools) < maxMonitor {
		m, err := sub.NextMsgWithContext(ctx)
		switch {
		case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, nats.ErrNoResponders):
			slices.SortFunc(pools, func(a, b pool.Stats) int {
				return cmp.Or(cmp.Compare(a.Queue, b.Queue), cmp.Compare(a.Pool, b.Pool))
			})
			return pools, nil
		case err != nil:
			return nil, fmt.Errorf("waiting for the statistics: %w", err)
		}
		var s pool.Stats
		if json.Unmarshal(m.Data, &s) == nil && (address == "" || s.Queue == address) {
			pools = append(pools, s)
		}
	}
	return pools, nil
}

// printPools prints a table: a line for each pool, below it one for each child.
func printPools(w io.Writer, pools []pool.Stats) {
	if len(pools) == 0 {
		fmt.Fprintln(w, "no pools answer")
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := range pools {
		s := &pools[i]
		fmt.Fprintf(t, "QUEUE %s\tPOOL %s\tPID %d\tUP %s\tDONE %d\tFAILED %d\tDIED %d\tWAITING %d\n",
			s.Queue, s.Pool, s.PID, shortTime(s.Uptime), s.Done, s.Failed, s.Died, s.Waiting)
		fmt.Fprintln(t, "child\tpid\tstate\tup\thandled\tmemory\titem\tfor")
		for _, c := range s.Children {
			item, age := "-", "-"
			if c.Item != "" {
				item, age = c.Item, shortTime(c.ItemFor)
			}
			if c.Ahead > 0 {
				item = fmt.Sprintf("%s +%d", item, c.Ahead)
			}
			fmt.Fprintf(t, "%d\t%d\t%s\t%s\t%d\t%s\t%s\t%s\n",
				c.Child, c.PID, c.State, shortTime(c.Uptime), c.Handled, megabytes(c.Memory), item, age)
		}
	}
	t.Flush() //nolint:errcheck // the buffer behind it does not fail
}

func shortTime(ms int64) string {
	d := time.Duration(ms) * time.Millisecond
	switch {
	case d >= time.Hour:
		return d.Round(time.Minute).String()
	case d >= time.Second:
		return d.Round(time.Second).String()
	}
	return d.String()
}

func megabytes(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
