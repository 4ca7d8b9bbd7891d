package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// The exit codes.
const (
	exitError     = 1
	exitUsage     = 2
	exitStorage   = 3
	exitTimeout   = 4
	exitConnect   = 5
	exitInterrupt = 130
)

// exitCodes is part of the help.
const exitCodes = `Exit codes: 0 done, 1 error, 2 wrong usage, 3 storage failure, 4 no answer in time, 5 no connection or no
broker, 130 stopped by a signal.`

// failure is an error with an exit code.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func failf(code int, format string, args ...any) error {
	return &failure{code, fmt.Errorf(format, args...)}
}

// run is the program.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot()
	if args == nil {
		args = []string{} // cobra would take the process's own
	}
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	at, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	var f *failure
	if errors.As(err, &f) {
		fmt.Fprintln(stderr, "stint:", err)
		return f.code
	}
	fmt.Fprintf(stderr, "stint: %v\nRun '%s --help' for usage.\n", err, at.CommandPath())
	return exitUsage
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "stint",
		Short: "A persistent work-queue broker on NATS",
		Long: `Stint is a persistent work-queue broker in one program. Senders publish items to a NATS subject; the broker stores
them, gives each to one processor at a time, gives it to another when that one dies or is too slow, and carries the
reply back.

` + exitCodes,
		Example: `  stint demo                               see it work
  stint serve                              run a broker with one persistent queue, work
  stint send work 'hello'                  send an item and print the reply
  stint work work -- python3 worker.py     process items with any program
  stint check --config stint.json          say whether a configuration is valid`,
		Args:          cobra.ArbitraryArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
	}
	root.AddCommand(newServe(), newDemo(), newDemoWork(), newCheck(), newSend(), newWork(), newVersion(), newBench())
	return root
}

// unknownCommand is a usage error that says what was probably meant.
func unknownCommand(root *cobra.Command, name string) error {
	var known []string
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() {
			known = append(known, c.Name())
		}
	}
	return fmt.Errorf("there is no command %q: %s", name, suggest(name, known))
}

// do makes a command's function. An error of it that has no exit code of its own gets 1; whatever else goes wrong in a
// command, its flags and arguments, is wrong usage.
func do(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := f(cmd, args)
		var own *failure
		if err == nil || errors.As(err, &own) {
			return err
		}
		return &failure{exitError, err}
	}
}
