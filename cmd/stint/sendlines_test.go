package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

// runLines runs send --lines on an input.
func runLines(t *testing.T, url, input string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"send", "orders", "-", "--lines", "--server", url, "--timeout", "10s"}, args...)
	code = run(t.Context(), args, strings.NewReader(input), &out, &errs)
	return code, out.String(), errs.String()
}

type sentLine struct{ key, id, body string }

// sentLines reads a batch.
func sentLines(t *testing.T, m *nats.Msg) (all []sentLine) {
	t.Helper()
	frames := wire.ReadFrames(m.Header.Get(wire.HeaderBatch), m.Data)
	for frames.Next() {
		h, err := frames.Header()
		if err != nil {
			t.Error(err)
		}
		l := sentLine{key: string(frames.Key), body: string(frames.Body)}
		if ids := h[wire.HeaderMsgID]; len(ids) == 1 {
			l.id = ids[0]
		}
		all = append(all, l)
	}
	if err := frames.Err(); err != nil {
		t.Error(err)
	}
	return all
}

// backwards answers a batch with the last line first, and the last line twice.
func backwards(t *testing.T, nc *nats.Conn, m *nats.Msg) {
	t.Helper()
	lines := sentLines(t, m)
	slices.Reverse(lines)
	lines = append(lines, lines[0])
	for len(lines) > 0 {
		n := min(len(lines), 7)
		var data []byte
		for _, l := range lines[:n] {
			data = wire.AppendFrame(data, l.key, nil, []byte("re "+l.body))
		}
		lines = lines[n:]
		_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Header: nats.Header(wire.BatchHeader(n)), Data: data})
	}
}

// Many lines go in few messages, more of them than are kept in memory, and come back in order.
func TestSendLinesInOrder(t *testing.T) {
	const lines = 3 * lineWindow
	var messages atomic.Int64
	url := fakeBroker(t, func(nc *nats.Conn, m *nats.Msg) {
		messages.Add(1)
		backwards(t, nc, m)
	})
	var input, want strings.Builder
	for i := range lines {
		fmt.Fprintf(&input, "line %d\n", i)
		fmt.Fprintf(&want, "re line %d\n", i)
	}
	code, stdout, stderr := runLines(t, url, input.String())
	if code != 0 || stdout != want.String() || stderr != "" {
		t.Errorf("exit code %d, %d bytes for %d, %q", code, len(stdout), want.Len(), stderr)
	}
	if n := messages.Load(); n > lines/10 {
		t.Errorf("%d lines went in %d messages", lines, n)
	}
}

// What is sent is the line and nothing else; each has an id of its own, and all share the headers.
func TestSendLinesSaysWhatItSends(t *testing.T) {
	var got []sentLine
	var header nats.Header
	url := fakeBroker(t, func(nc *nats.Conn, m *nats.Msg) {
		got, header = append(got, sentLines(t, m)...), m.Header
		backwards(t, nc, m)
	})
	code, _, stderr := runLines(t, url, "a\r\n\nlast", "--id", "x", "-H", "Trace:t", "--max-attempts", "2")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if want := []sentLine{{"1", "x-1", "a"}, {"2", "x-2", ""}, {"3", "x-3", "last"}}; !slices.Equal(got, want) {
		t.Errorf("sent are %v", got)
	}
	if header.Get("Trace") != "t" || header.Get(wire.HeaderMaxAttempts) != "2" || header.Get(wire.HeaderMsgID) != "" || header.Get(wire.HeaderBatchReplies) != "gathered" {
		t.Errorf("the header is %v", header)
	}
}

// An error of the whole batch is one of each line.
func TestSendLinesThatAreRefused(t *testing.T) {
	e := wire.Errorf(wire.CodeQueueFull, "no room")
	url := fakeBroker(t, func(nc *nats.Conn, m *nats.Msg) {
		for _, subject := range []string{m.Header.Get(wire.HeaderAcceptedReply), m.Reply} {
			_ = nc.PublishMsg(&nats.Msg{Subject: subject, Header: nats.Header(e.Header()), Data: e.Body()})
		}
	})
	code, stdout, stderr := runLines(t, url, "a\nb\n")
	if want := "line 1: queue_full: no room\nline 2: queue_full: no room\nstint: 2 of 2 lines failed\n"; code != exitError || stdout != "" || stderr != want {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
}

func TestSendALineThatIsTooLong(t *testing.T) {
	url := fakeBroker(t, func(nc *nats.Conn, m *nats.Msg) { backwards(t, nc, m) })
	code, stdout, stderr := runLines(t, url, "a\n"+strings.Repeat("x", maxPayload+1))
	if code != exitError || stdout != "re a\n" || !strings.Contains(stderr, "reading line 2: ") {
		t.Errorf("exit code %d, %q, %.200q", code, stdout, stderr)
	}
}
