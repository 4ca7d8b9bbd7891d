package harness

import (
	"bytes"
	"os/exec"
	"testing"
	"time"
)

// Command is any other process of a test.
type Command struct {
	t           testing.TB
	cmd         *exec.Cmd
	out, errors bytes.Buffer // complete when the process has ended
	exited      chan struct{}
}

// Run starts a command. It is killed at the end of the test.
func Run(t testing.TB, name string, args ...string) *Command {
	t.Helper()
	c := &Command{t: t, cmd: exec.Command(name, args...), exited: make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.errors
	c.cmd.SysProcAttr = childAttr()
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.exited)
		c.cmd.Wait() //nolint:errcheck // the exit code says it
	}()
	t.Cleanup(c.Kill)
	return c
}

// Kill is kill -9, and waits until the process is gone.
func (c *Command) Kill() {
	c.cmd.Process.Kill() //nolint:errcheck // it may have ended by itself
	<-c.exited
}

// Wait waits for the process to end by itself and returns its exit code.
func (c *Command) Wait(limit time.Duration) int {
	c.t.Helper()
	end := time.NewTimer(limit)
	defer end.Stop()
	select {
	case <-c.exited:
	case <-end.C:
		c.Kill()
		c.t.Fatalf("%v has not ended after %v; it said:\n%s", c.cmd.Args, limit, c.errors.Bytes())
	}
	return c.cmd.ProcessState.ExitCode()
}

// Stdout and Stderr are what a process that has ended has said.
func (c *Command) Stdout() string { return c.out.String() }

// Stderr is its standard error.
func (c *Command) Stderr() string { return c.errors.String() }
