package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"stint/wire"
)

// How long send waits unless told: an item may take its queue's process timeout, an accept notice one write to disk.
const (
	replyWait    = 5 * time.Minute
	acceptedWait = 10 * time.Second
)

type sendFlags struct {
	connectFlags
	accepted, progress, json, lines bool
	headers                         []string
	id                              string
	timeout, ttl, process           time.Duration
	maxAttempts                     uint32
}

func newSend() *cobra.Command {
	var f sendFlags
	cmd := &cobra.Command{
		Use:   "send ADDRESS [BODY|-]",
		Short: "Send an item and print its reply",
		Long: `Send sends one item to the queue at ADDRESS, waits for the reply and prints its body on standard output, byte for byte.
The body of the item is BODY, or with - what standard input has; without either it is empty.

With --accepted it waits only until the item is stored, prints the accept notice, and nobody hears of the reply. Should
send be stopped or its connection be lost earlier, the item stays in the queue all the same.

With --lines each line of BODY, or of standard input, is an item of its own, of the line without its end. Replies are printed
a line each in the order of the lines, whatever the order they come in, and what fails is named on standard error with its line.
Lines travel in batches of what has been read by then. With --id each item's ID has its line number behind it, as in order-7;
--timeout is then how long nothing may come.

With --json each thing that comes is one line of JSON with "event" accepted, progress, reply or error; a body that is
UTF-8 text is in "body", another one in "body_base64".

` + exitCodes + ` An error in place of the reply is 1, its sentence on standard error.`,
		Example: `  stint send work 'hello'
  stint send work - <picture.jpg >thumbnail.jpg
  stint send work '{"order":7}' --accepted --id order-7
  stint send work - --lines <urls.txt >titles.txt
  stint send work 'slow one' --process-timeout 1h --timeout 2h --progress
  stint send work hi -H 'traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
  stint send work hi --server tls://queues.example:4222 --creds sender.creds`,
		Args: cobra.RangeArgs(1, 2),
		RunE: do(func(cmd *cobra.Command, args []string) error {
			s, err := f.item(cmd, args)
			if err != nil {
				return err
			}
			if f.lines {
				return newLineSender(s, input(args[1:], cmd.InOrStdin()), f.id).run(cmd.Context(), &f.connectFlags)
			}
			if s.body, err = readBody(args[1:], cmd.InOrStdin()); err != nil {
				return err
			}
			return s.run(cmd.Context(), &f.connectFlags)
		}),
	}
	f.connectFlags.add(cmd.Flags())
	f.add(cmd)
	return cmd
}

func (f *sendFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.accepted, "accepted", false, "wait only until the item is stored, and print the accept notice")
	flags.BoolVar(&f.progress, "progress", false, "print intermediate replies, on standard error without --json")
	flags.BoolVar(&f.lines, "lines", false, "each line is an item of its own")
	flags.BoolVar(&f.json, "json", false, "print JSON lines")
	flags.StringArrayVarP(&f.headers, "header", "H", nil, "`NAME:VALUE` of a header; may be repeated")
	flags.StringVar(&f.id, "id", "", "`ID` for deduplication ("+wire.HeaderMsgID+")")
	flags.DurationVar(&f.timeout, "timeout", 0, "how long to wait, such as 90s; default 5m, with --accepted 10s")
	flags.DurationVar(&f.ttl, "ttl", 0, "expiry of the item while it waits ("+wire.HeaderTTL+")")
	flags.DurationVar(&f.process, "process-timeout", 0, "how long a processor may keep the item ("+wire.HeaderTimeout+")")
	flags.Uint32Var(&f.maxAttempts, "max-attempts", 0, "attempts before the item is dead ("+wire.HeaderMaxAttempts+")")
}

// item reads flags and arguments; what is wrong with them is wrong usage.
func (f *sendFlags) item(cmd *cobra.Command, args []string) (*sender, error) {
	address := args[0]
	if err := wire.CheckAddress(address); err != nil {
		return nil, &failure{exitUsage, err}
	}
	header, err := f.header()
	if err != nil {
		return nil, &failure{exitUsage, err}
	}
	s := &sender{
		address: address, header: header, accepted: f.accepted, timeout: f.timeout,
		out: printer{stdout: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr(), json: f.json},
	}
	switch {
	case s.timeout < 0:
		return nil, failf(exitUsage, "--timeout must be above 0, not %s", s.timeout)
	case s.timeout == 0 && f.accepted:
		s.timeout = acceptedWait
	case s.timeout == 0:
		s.timeout = replyWait
	}
	return s, nil
}

// input is what --lines reads.
func input(args []string, stdin io.Reader) io.Reader {
	switch {
	case len(args) == 0:
		return strings.NewReader("")
	case args[0] != "-":
		return strings.NewReader(args[0])
	}
	return stdin
}

// readBody stops reading what no server would take.
func readBody(args []string, stdin io.Reader) ([]byte, error) {
	switch {
	case len(args) == 0:
		return nil, nil
	case args[0] != "-":
		return []byte(args[0]), nil
	}
	body, err := io.ReadAll(io.LimitReader(stdin, maxPayload+1))
	if err != nil {
		return nil, fmt.Errorf("reading the body from standard input: %w", err)
	}
	if len(body) > maxPayload {
		return nil, fmt.Errorf("the body on standard input is larger than %d bytes, more than any NATS server takes", maxPayload)
	}
	return body, nil
}

// header puts together what the flags say, and checks it as the broker will.
func (f *sendFlags) header() (nats.Header, error) {
	h := nats.Header{}
	for _, line := range f.headers {
		name, value, ok := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); !ok || !validHeader(name, value) {
			return nil, fmt.Errorf("--header must be NAME:VALUE in one line, the name without spaces, not %q", clip(line))
		}
		if strings.EqualFold(name, wire.HeaderAcceptedReply) {
			return nil, fmt.Errorf("%s is send's own: it waits for the accept notice itself", wire.HeaderAcceptedReply)
		}
		if strings.EqualFold(name, wire.HeaderBatch) || strings.EqualFold(name, wire.HeaderBatchReplies) {
			return nil, fmt.Errorf("%s is send's own: it makes batches itself, with --lines", name)
		}
		h[name] = append(h[name], strings.TrimSpace(value))
	}
	set := func(name, value string, given bool) {
		if given {
			h[name] = append(h[name], value)
		}
	}
	set(wire.HeaderMsgID, f.id, f.id != "" && !f.lines)
	set(wire.HeaderTTL, f.ttl.String(), f.ttl != 0)
	set(wire.HeaderTimeout, strconv.FormatInt(f.process.Milliseconds(), 10), f.process != 0)
	set(wire.HeaderMaxAttempts, strconv.FormatUint(uint64(f.maxAttempts), 10), f.maxAttempts != 0)
	set(wire.HeaderProgress, "true", f.progress)
	if _, err := wire.ParseSend(wire.Header(h), nil); err != nil {
		return nil, err
	}
	return h, nil
}

func validHeader(name, value string) bool {
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f {
			return false
		}
	}
	return name != "" && !strings.ContainsAny(value, "\r\n")
}

// sender sends one item. Accept notice and replies come in at two subjects below one inbox, so that neither can be taken
// for the other, and a wait that ends early can say how far the item has come.
type sender struct {
	address  string
	header   nats.Header
	body     []byte
	accepted bool // wait for no more than the accept notice
	timeout  time.Duration
	out      printer

	inbox string
	id    string // of the item, once it is accepted
}

func (s *sender) acceptSubject() string { return s.inbox + ".accepted" }

// run sends and waits.
func (s *sender) run(ctx context.Context, connect *connectFlags) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, refuse := context.WithCancelCause(ctx)
	defer refuse(nil)
	nc, err := connect.connect("stint send", nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		refuse(err) // no permission for a subject, say
	}))
	if err != nil {
		return err
	}
	defer nc.Close()
	sub, err := s.send(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.timeout, errTimeout)
	defer cancel()
	return s.wait(ctx, sub)
}

var errTimeout = errors.New("no answer in time")

// send publishes the item. With --accepted it names no reply subject: the broker would keep the reply for somebody who
// will not come back.
func (s *sender) send(nc *nats.Conn) (*nats.Subscription, error) {
	s.inbox = nc.NewInbox()
	sub, err := nc.SubscribeSync(s.inbox + ".*")
	if err != nil {
		return nil, fmt.Errorf("subscribing for the reply: %w", err)
	}
	m := &nats.Msg{Subject: s.address, Header: s.header, Data: s.body}
	if !s.accepted {
		m.Reply = s.inbox + ".reply"
	}
	m.Header.Set(wire.HeaderAcceptedReply, s.acceptSubject())
	switch err := nc.PublishMsg(m); {
	case errors.Is(err, nats.ErrMaxPayload):
		return nil, fmt.Errorf("the item is larger than the %d bytes this NATS server takes", nc.MaxPayload())
	case err != nil:
		return nil, fmt.Errorf("sending the item: %w", err)
	}
	return sub, nil
}

// wait reads what comes until the item is done with, as far as this command is concerned.
func (s *sender) wait(ctx context.Context, sub *nats.Subscription) error {
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return s.gaveUp(ctx, err)
		}
		if done, err := s.take(m); done || err != nil {
			return err
		}
	}
}

// take handles one message; done says that nothing more is waited for.
func (s *sender) take(m *nats.Msg) (done bool, err error) {
	status, isStatus := wire.ParseStatus(m.Data)
	switch {
	case m.Subject == s.acceptSubject() && isStatus && status.Status == "accepted":
		s.id = status.ID
		return s.accepted, s.out.accepted(m, status, s.accepted)
	case m.Subject == s.acceptSubject() || m.Header.Get(wire.HeaderErrorCode) != "":
		return true, s.refused(m, status)
	case m.Header.Get(wire.HeaderProgress) == "true":
		return false, s.out.progress(m)
	case m.Reply != "":
		if err := s.out.reply(m); err != nil {
			return true, err
		}
		return true, errors.New("the processor wants to talk: it waits for an answer to this, which send cannot give; " +
			"use a NATS client and the reply's own reply subject")
	}
	return true, s.out.reply(m)
}

// refused is an error in place of the notice or the reply.
func (s *sender) refused(m *nats.Msg, status wire.Status) error {
	if status.Message == "" {
		status.Message = m.Header.Get(wire.HeaderError)
	}
	if err := s.out.failed(m, status); err != nil {
		return err
	}
	if status.Code == "" {
		return failf(exitError, "%s", status.Message)
	}
	return failf(exitError, "%s: %s", status.Code, status.Message)
}

// gaveUp explains why nothing more came.
func (s *sender) gaveUp(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return failf(exitConnect, "there is no broker for the queue %s at this NATS server: is the address right, and stint serve "+
			"running?", s.address)
	case errors.Is(cause, errTimeout):
		return failf(exitTimeout, "%s", s.unanswered())
	case errors.Is(cause, context.Canceled):
		return failf(exitInterrupt, "stopped; %s", s.soFar())
	case cause != nil:
		return failf(exitError, "the NATS server says: %w", cause)
	}
	return fmt.Errorf("waiting for the reply: %w", err)
}

func (s *sender) unanswered() string {
	if s.id != "" {
		return fmt.Sprintf("no reply after %s; %s", s.timeout, s.soFar())
	}
	return fmt.Sprintf("no answer from the queue %s after %s: is the address right, and stint serve running? %s",
		s.address, s.timeout, s.soFar())
}

func (s *sender) soFar() string {
	if s.id != "" {
		return "the item is stored as " + s.id + " and stays in the queue"
	}
	return "it is not known whether the item is stored"
}
