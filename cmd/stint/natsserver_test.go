package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

var quiet = slog.New(slog.DiscardHandler)

// plainConfig is a queue at a free port.
func plainConfig(t testing.TB, file string) *config {
	t.Helper()
	c := mustDecode(t, file)
	c.Listen, c.listenFlag = "127.0.0.1:0", true
	c.moveData(t.TempDir())
	return c
}

// serverFile writes a NATS server file and gives a configuration of the queue orders with it.
func serverFile(t testing.TB, text string) *config {
	t.Helper()
	name := filepath.Join(t.TempDir(), "nats.conf")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return plainConfig(t, fmt.Sprintf(`{"address": "orders", "nats": {"config": %q}}`, name))
}

func mustStart(t testing.TB, c *config) *embedded {
	t.Helper()
	e, err := startNATS(c, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.close)
	return e
}

// brokerConn is the broker's own connection.
func brokerConn(t testing.TB, e *embedded, more ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := e.connect(more...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func client(t testing.TB, e *embedded, options ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(e.url(), options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// subscribe comes back when the server has the subscription.
func subscribe(t testing.TB, nc *nats.Conn, subject string) *nats.Subscription {
	t.Helper()
	sub, err := nc.SubscribeSync(subject)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return sub
}

func next(t testing.TB, sub *nats.Subscription) *nats.Msg {
	t.Helper()
	m, err := sub.NextMsg(5 * time.Second)
	if err != nil {
		t.Fatalf("waiting at %s: %v", sub.Subject, err)
	}
	return m
}

func TestServerKnowsWhoListens(t *testing.T) {
	e := mustStart(t, plainConfig(t, `{"address": "orders"}`))
	known, err := e.presence(brokerConn(t, e))
	if err != nil {
		t.Fatal(err)
	}
	if known.interest("a.b") {
		t.Error("interest before anybody subscribed")
	}
	before := known.changes()
	nc := client(t, e)
	subscribe(t, nc, "a.*")
	if !known.interest("a.b") || known.interest("b.b") {
		t.Errorf("a.b %v, b.b %v", known.interest("a.b"), known.interest("b.b"))
	}
	if known.changes() == before {
		t.Error("a subscription changed nothing")
	}
}

func TestServerWithGatewayKnowsNothing(t *testing.T) {
	c := serverFile(t, `gateway { name: here, listen: "127.0.0.1:-1" }`)
	e := mustStart(t, c)
	known, err := e.presence(brokerConn(t, e))
	if err != nil || known.interest != nil || known.changes != nil {
		t.Errorf("presence is known over a gateway; error %v", err)
	}
}

func TestServerAddressTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	c := plainConfig(t, `{"address": "orders"}`)
	c.Listen = l.Addr().String()
	_, err = startNATS(c, quiet)
	if err == nil || !strings.Contains(err.Error(), "cannot listen on "+c.Listen+": the address is in use") {
		t.Errorf("the error is %v", err)
	}
}

func TestServerAddressOfNobody(t *testing.T) {
	c := plainConfig(t, `{"address": "orders"}`)
	c.Listen = "192.0.2.1:4222" // kept for documentation
	if _, err := startNATS(c, quiet); err == nil || !strings.Contains(err.Error(), "cannot listen on 192.0.2.1:4222: ") {
		t.Errorf("the error is %v", err)
	}
}

// What the server finds out only while it starts reaches its log alone, after which it counts as running.
func TestServerThatGivesUp(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	_, err = startNATS(serverFile(t, fmt.Sprintf("http: %q", l.Addr())), quiet)
	if err == nil || !strings.Contains(err.Error(), "the NATS server has given up: ") {
		t.Errorf("the error is %v", err)
	}
}

func TestServerFileThatIsWrong(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"lissten: 4222", `unknown field "lissten"`},
		{"max_payload: {", "nats.conf"},
		{"write_deadline: 0\nmax_pending: 1kb\nmax_payload: 1mb", "setting up the NATS server: "},
	} {
		_, err := startNATS(serverFile(t, c.file), quiet)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: the error is %v", c.file, err)
		}
	}
}

func TestServerClosesOnce(t *testing.T) {
	e := mustStart(t, plainConfig(t, `{"address": "orders"}`))
	address := e.server.Addr().String()
	e.close()
	e.close()
	if _, err := net.DialTimeout("tcp", address, time.Second); err == nil {
		t.Error("the port is still open")
	}
}

func TestServerListensWhereItIsTold(t *testing.T) {
	logged := &bytes.Buffer{}
	log := slog.New(slog.NewTextHandler(logged, nil))
	for _, c := range []struct {
		name, server, file, flag string
		host                     string
		port                     int
		warns                    bool
	}{
		{name: "by default", host: "127.0.0.1", port: 4222},
		{name: "the key", file: "127.0.0.2:5", host: "127.0.0.2", port: 5},
		{name: "every interface", file: ":5", host: "0.0.0.0", port: 5},
		{name: "the server file", server: `listen: "127.0.0.3:6"`, host: "127.0.0.3", port: 6},
		{name: "the server file before the key", server: `port: 6`, file: "127.0.0.2:5", host: "", port: 6, warns: true},
		{name: "the flag before all", server: `port: 6`, file: "127.0.0.2:5", flag: "[::1]:0", host: "::1", port: -1},
	} {
		logged.Reset()
		config := serverFile(t, c.server)
		config.Listen, config.listenFlag, config.listenGiven = emptyConfig().Listen, c.flag != "", c.file != ""
		config.Listen = either(c.flag, either(c.file, config.Listen))
		o, _, err := serverOptions(config, log)
		if err != nil {
			t.Fatal(err)
		}
		if o.Host != c.host || o.Port != c.port {
			t.Errorf("%s: host %q, port %d", c.name, o.Host, o.Port)
		}
		if warned := strings.Contains(logged.String(), "listen of the configuration is not used"); warned != c.warns {
			t.Errorf("%s: the log says %q", c.name, logged)
		}
	}
}

func TestServerOwnURL(t *testing.T) {
	c := plainConfig(t, `{"address": "orders"}`)
	c.Listen = "0.0.0.0:0"
	e := mustStart(t, c)
	if url := e.ownURL(); !strings.HasPrefix(url, "nats://127.0.0.1:") || strings.HasSuffix(url, ":0") {
		t.Errorf("the broker connects to %s", url)
	}
}

func TestServerPayload(t *testing.T) {
	large := `{"address": "orders", "max_item_bytes": 2000000}`
	for _, c := range []struct {
		name, file, server string
		want               int32
		fits               bool
	}{
		{"by default", `{"address": "orders"}`, "", 1 << 20, true},
		{"follows the items", large, "", 2_000_000 + payloadExtra, true},
		{"is the server file's", large, "max_payload: 1mb", 1 << 20, false},
	} {
		config := serverFile(t, c.server)
		config.Queues = mustDecode(t, c.file).Queues
		o, _, err := serverOptions(config, quiet)
		if err != nil {
			t.Fatal(err)
		}
		if o.MaxPayload != c.want {
			t.Errorf("%s: max_payload is %d", c.name, o.MaxPayload)
		}
		if err := config.checkPayload(int64(o.MaxPayload)); (err == nil) != c.fits {
			t.Errorf("%s: the check says %v", c.name, err)
		}
	}
}

func TestServerConnectionLimit(t *testing.T) {
	o, _, err := serverOptions(serverFile(t, ""), quiet)
	if err != nil {
		t.Fatal(err)
	}
	if o.MaxConn < fewestConns || o.MaxConn > defaultConns || o.MaxConn > max(fewestConns, fileLimit()-reservedFiles) {
		t.Errorf("max_connections is %d with %d files", o.MaxConn, fileLimit())
	}
	e := mustStart(t, serverFile(t, "max_connections: 2"))
	brokerConn(t, e)
	client(t, e)
	third, err := net.Dial("tcp", e.server.Addr().String()) // a client library may see only the closed connection
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = third.Close() })
	if said, _ := io.ReadAll(third); !strings.Contains(string(said), "-ERR 'maximum connections exceeded'") {
		t.Errorf("the third connection is told %q", said)
	}
}

func TestServerKeepsJetStreamBesideTheData(t *testing.T) {
	c := serverFile(t, "jetstream: enabled")
	o, _, err := serverOptions(c, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if o.StoreDir != filepath.Join(c.DataDir, "jetstream") {
		t.Errorf("JetStream is in %s", o.StoreDir)
	}
	plain, _, err := serverOptions(plainConfig(t, `{"address": "orders"}`), quiet)
	if err != nil || plain.JetStream {
		t.Errorf("JetStream is on by default; error %v", err)
	}
}

func TestServerLog(t *testing.T) {
	var out bytes.Buffer
	l := newNATSLog(newLogger(&out, logConfig{Format: "json", Level: "info"}), false)
	l.Noticef("a %s", "detail")
	l.Debugf("a detail")
	l.Tracef("a detail")
	if out.Len() > 0 {
		t.Errorf("details show: %s", out.String())
	}
	l.Warnf("w %d", 1)
	l.Errorf("e %d", 2)
	l.Fatalf("f %d", 3)
	l.Fatalf("f %d", 4)
	for _, want := range []string{`"WARN","msg":"w 1","part":"nats-server"`, `"ERROR","msg":"e 2"`, `"ERROR","msg":"f 4"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in %s", want, out.String())
		}
	}
	if err := <-l.fatal; err.Error() != "the NATS server has given up: f 3" {
		t.Errorf("the cause is %v", err)
	}
	out.Reset()
	newNATSLog(newLogger(&out, logConfig{Format: "text", Level: "info"}), true).Noticef("shown")
	if !strings.Contains(out.String(), "shown") {
		t.Error("a notice does not show with a server file")
	}
	if newLogger(io.Discard, logConfig{Level: "error"}).Enabled(context.Background(), slog.LevelWarn) {
		t.Error("the level is not kept")
	}
}

func TestServerWarnsOfItsOwnLogFile(t *testing.T) {
	var out bytes.Buffer
	if _, _, err := serverOptions(serverFile(t, `log_file: "/tmp/x"`), slog.New(slog.NewTextHandler(&out, nil))); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "log settings of the NATS server file are not used") {
		t.Errorf("the log says %q", out.String())
	}
}

func TestServerRefusesReload(t *testing.T) {
	e := mustStart(t, serverFile(t, `authorization { user: u, password: p }`))
	// Other errors depend on what has changed in the file.
	if err := e.server.Reload(); err == nil || !strings.Contains(err.Error(), "only reload config when a file is provided") {
		t.Errorf("a reload would drop the broker's user: %v", err)
	}
	if e.server.NumClients() != 0 || e.opts.Port == server.DEFAULT_PORT {
		t.Error("not the server that was asked for")
	}
}
