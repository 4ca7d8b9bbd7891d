package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
)

// The roles of the processes.
const (
	RoleServer    = "server"
	RoleSender    = "sender"
	RoleProcessor = "processor"
)

// Roles are the names of the hidden commands that Run starts.
func Roles() []string { return []string{RoleServer, RoleSender, RoleProcessor} }

const setupLimit = time.Minute // for a connection, a registration, a stream

// role is a process from inside: it has been told its spec, and answers commands.
type role interface {
	// ready comes back when the process can take commands. The event is told to the runner.
	ready(ctx context.Context) (event, error)
	// do carries out a command. tell may be called from this goroutine while it does.
	do(ctx context.Context, command string, tell func(event) error) (event, error)
	// close gives back what is held.
	close()
}

// Play is the main function of a process of a round. It comes back when its input ends, or with what went wrong, which the
// runner has been told too.
func Play(ctx context.Context, name string, hosts Hosts, in io.Reader, out io.Writer) error {
	l := newLines(in, out)
	s, err := l.spec()
	if err != nil {
		return err
	}
	var r role
	switch name {
	case RoleServer:
		r = &server{spec: s, hosts: hosts}
	case RoleSender:
		r = newSender(s)
	case RoleProcessor:
		r = &processor{spec: s}
	default:
		return fmt.Errorf("there is no role %q", name)
	}
	defer r.close()
	if err := play(ctx, r, l); err != nil {
		err = fmt.Errorf("%s, %s: %w", s.Kind, name, err)
		return errors.Join(err, l.tell(event{Event: isFailed, Error: err.Error()}))
	}
	return nil
}

func play(ctx context.Context, r role, l *lines) error {
	e, err := r.ready(ctx)
	for kind := isReady; ; kind = isDone {
		if err != nil {
			return err
		}
		e.Event = kind
		if err := l.tell(e); err != nil {
			return err
		}
		command, err2 := l.command()
		if errors.Is(err2, io.EOF) {
			return nil
		}
		if err2 != nil {
			return err2
		}
		e, err = r.do(ctx, command, l.tell)
	}
}

func unknownCommand(command string) error { return fmt.Errorf("there is no command %q", command) }

// connect makes the one connection of a sender or processor. A connection that is lost, or drops something, fails the
// round: report is told, once or more.
func connect(url, name string, report func(error)) (*nats.Conn, error) {
	nc, err := nats.Connect(url,
		nats.Name("stint bench "+name),
		nats.NoReconnect(),
		nats.Timeout(10*time.Second),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { report(err) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				report(fmt.Errorf("the connection to the server is lost: %w", err))
			}
		}))
	if err != nil {
		return nil, fmt.Errorf("connecting to the server at %s: %w", url, err)
	}
	return nc, nil
}

// listen subscribes with no limit on what waits for the callback: the work bounds it (by a window, a capacity, or the items
// of a round, whose answers are short), and nats.go would throw away what is beyond a limit.
func listen(nc *nats.Conn, subject string, take nats.MsgHandler) error {
	sub, err := nc.Subscribe(subject, take)
	if err == nil {
		err = sub.SetPendingLimits(-1, -1)
	}
	if err != nil {
		return fmt.Errorf("subscribing to %s: %w", subject, err)
	}
	return nil
}
