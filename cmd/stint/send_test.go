package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"stint/wire"
)

// fakeBroker answers items as answer says, without a queue.
func fakeBroker(t *testing.T, answer func(nc *nats.Conn, m *nats.Msg)) (url string) {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir()) // no context
	e := mustStart(t, plainConfig(t, `{"address": "orders"}`))
	nc := brokerConn(t, e)
	if _, err := nc.Subscribe("orders", func(m *nats.Msg) { answer(nc, m) }); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return e.url()
}

// runSend runs send against a server and gives the exit code and what it printed on either side.
func runSend(t *testing.T, url string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"send", "orders", "hi", "--server", url, "--timeout", "10s"}, args...), nil, &out, &errs)
	return code, out.String(), errs.String()
}

// The broker keeps a reply for a sender that is away. One that waits for no reply must not name a subject for it.
func TestSendAcceptedNamesNoReplySubject(t *testing.T) {
	reply := "none came"
	url := fakeBroker(t, func(nc *nats.Conn, m *nats.Msg) {
		reply = m.Reply
		_ = nc.Publish(m.Header.Get(wire.HeaderAcceptedReply), wire.Accepted(7, false))
	})
	if code, out, errs := runSend(t, url, "--accepted"); code != 0 || out != `{"status":"accepted","id":"7"}`+"\n" || errs != "" {
		t.Errorf("exit code %d, %q, %q", code, out, errs)
	}
	if reply != "" {
		t.Errorf("the reply subject is %q", reply)
	}
}

func TestSendTellsErrorsFromReplies(t *testing.T) {
	e := wire.Errorf(wire.CodeDead, "it is dead")
	for _, c := range []struct {
		name   string
		answer func(nc *nats.Conn, m *nats.Msg)
		code   int
		stdout string
		stderr string
	}{
		{
			"a reply before the notice",
			func(nc *nats.Conn, m *nats.Msg) {
				_ = m.Respond([]byte("done"))
				_ = nc.Publish(m.Header.Get(wire.HeaderAcceptedReply), wire.Accepted(7, false))
			},
			0, "done", "",
		},
		{
			"an error at the accept subject",
			func(nc *nats.Conn, m *nats.Msg) { _ = nc.Publish(m.Header.Get(wire.HeaderAcceptedReply), e.Body()) },
			exitError, "", "stint: dead: it is dead\n",
		},
		{
			"an error as the reply",
			func(_ *nats.Conn, m *nats.Msg) {
				_ = m.RespondMsg(&nats.Msg{Header: nats.Header(e.Header()), Data: e.Body()})
			},
			exitError, "", "stint: dead: it is dead\n",
		},
		{
			"an error in headers alone, as micro services send it",
			func(_ *nats.Conn, m *nats.Msg) { _ = m.RespondMsg(&nats.Msg{Header: nats.Header(e.Header())}) },
			exitError, "", "stint: it is dead\n",
		},
		{
			"a processor's own words, which only look like an error",
			func(_ *nats.Conn, m *nats.Msg) { _ = m.Respond(e.Body()) },
			0, string(e.Body()), "",
		},
		{
			"a processor's own words, which only look like a notice",
			func(_ *nats.Conn, m *nats.Msg) { _ = m.Respond(wire.Accepted(7, false)) },
			0, string(wire.Accepted(7, false)), "",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, stdout, stderr := runSend(t, fakeBroker(t, c.answer))
			if code != c.code || stdout != c.stdout || stderr != c.stderr {
				t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
			}
		})
	}
}

func TestSendSaysWhatItSends(t *testing.T) {
	var got nats.Header
	url := fakeBroker(t, func(_ *nats.Conn, m *nats.Msg) {
		got = m.Header
		_ = m.Respond(nil)
	})
	code, _, stderr := runSend(t, url, "--id", "a", "--ttl", "90s", "--process-timeout", "1m", "--max-attempts", "3", "--progress",
		"-H", "x: 1", "-H", "x:2")
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	for name, want := range map[string]string{
		wire.HeaderMsgID: "a", wire.HeaderTTL: "1m30s", wire.HeaderTimeout: "60000", wire.HeaderMaxAttempts: "3",
		wire.HeaderProgress: "true", "x": "1,2",
	} {
		if values := strings.Join(got.Values(name), ","); values != want {
			t.Errorf("%s: %q, want %q", name, values, want)
		}
	}
}

// Flags go before the environment, and that before the selected context.
func TestConnectOrder(t *testing.T) {
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	e := mustStart(t, serverFile(t, "authorization { user: u, password: right }"))
	t.Setenv("NATS_URL", e.url())
	t.Setenv("NATS_USER", "u")
	t.Setenv("NATS_PASSWORD", "wrong")
	if _, err := new(connectFlags).connect("test"); err == nil || !strings.Contains(err.Error(), "sign in with --creds") {
		t.Errorf("the environment's password: %v", err)
	}
	nc, err := (&connectFlags{password: "right"}).connect("test")
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
}
