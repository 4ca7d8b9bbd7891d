package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"stint/integration/harness"
	"stint/wire"
)

// nodePackage is NATS' own client for Node.js.
const nodePackage = "@nats-io/transport-node@3.4.0"

// TestNodeClients runs the sender and the processor that docs/protocol.md prints, as they stand there.
func TestNodeClients(t *testing.T) {
	dir := nodeProject(t)
	page, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	programs := jsBlocks(string(page))
	if len(programs) != 2 {
		t.Fatalf("docs/protocol.md has %d programs in JavaScript, want a sender and a processor", len(programs))
	}
	b := harness.NewBroker(t, harness.Binary(t), harness.Config(harness.Durable("work")))
	b.Start()
	t.Setenv("NATS_URL", b.URL)
	sender := runNode(t, dir, "sender.mjs", programs[0])
	processor := runNode(t, dir, "processor.mjs", programs[1])
	if code := sender.Wait(30 * time.Second); code != 0 || !strings.Contains(sender.Stdout(), "reply: HELLO") {
		t.Errorf("the sender ended with %d and printed %q, %q; the processor: %q", code, sender.Stdout(), sender.Stderr(), processor.Stderr())
	}
}

// nodeProject makes a directory with NATS' client in it, or skips where there is no Node.js.
func nodeProject(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("SKIPPED: clients in another language are not tested here: %v", err)
		}
	}
	dir := t.TempDir()
	install := exec.CommandContext(t.Context(), "npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", dir, nodePackage)
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: clients in another language are not tested here, %s cannot be installed: %v: %s", nodePackage, err, out)
	}
	return dir
}

func runNode(t *testing.T, dir, name, program string) *harness.Command {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	return harness.Run(t, "node", file)
}

// jsBlocks are the programs in JavaScript of a page.
func jsBlocks(page string) []string {
	var blocks []string
	for {
		_, rest, found := strings.Cut(page, "```js\n")
		if !found {
			return blocks
		}
		var block string
		block, page, _ = strings.Cut(rest, "```")
		blocks = append(blocks, block)
	}
}

// TestMicroService: a NATS micro service is a processor as it is. Somebody registers its endpoint.
func TestMicroService(t *testing.T) {
	b := harness.NewBroker(t, harness.Binary(t), harness.Config(harness.Durable("work", harness.Queue{"max_attempts": 1})))
	b.Start()
	nc := b.Connect()
	service, err := micro.AddService(b.Connect(), micro.Config{Name: "shout", Version: "1.0.0"})
	if err != nil {
		t.Fatal(err)
	}
	err = service.AddEndpoint("upper", micro.HandlerFunc(func(r micro.Request) {
		if len(r.Data()) == 0 {
			r.Error("400", "nothing to shout", nil)
			return
		}
		r.Respond([]byte(strings.ToUpper(string(r.Data()))))
	}), micro.WithEndpointSubject("shout.upper"))
	if err != nil {
		t.Fatal(err)
	}
	if m, err := nc.Request(wire.RegisterSubject("work"), []byte(`{"processor":"shout.upper"}`), 5*time.Second); err != nil || string(m.Data) != string(wire.OK()) {
		t.Fatalf("register: %v, %v", m, err)
	}
	if r := requested(t, nc, "work", "hey"); string(r.Data) != "HEY" {
		t.Errorf("the reply is %q", r.Data)
	}
	r := requested(t, nc, "work", "")
	if r.Header.Get(wire.HeaderError) == "" || !strings.Contains(string(r.Data), "nothing to shout") {
		t.Errorf("a failure reaches the sender as %q with %v", r.Data, r.Header)
	}
}

func requested(t *testing.T, nc *nats.Conn, address, body string) *nats.Msg {
	t.Helper()
	m, err := nc.Request(address, []byte(body), 10*time.Second)
	if err != nil {
		t.Fatalf("sending %q to %s: %v", body, address, err)
	}
	return m
}
