package integration

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"stint/integration/harness"
)

// exitStorage is the documented exit code of a database that cannot be used.
const exitStorage = 3

// done answers everything.
func done(m *nats.Msg) {
	m.Respond([]byte("done")) //nolint:errcheck // the sender sees it
}

// TestLocked: a second broker on the same database says so and ends; the first one does not notice.
func TestLocked(t *testing.T) {
	config := harness.Config(harness.Durable("q"))
	first := harness.NewBroker(t, harness.Binary(t), config)
	first.Start()
	config["data_dir"] = first.Data
	second := harness.NewBroker(t, harness.Binary(t), config)
	second.Launch()
	if code := second.Wait(); code != exitStorage {
		t.Errorf("exit code %d, want %d", code, exitStorage)
	}
	said := lastLine(second.Log())
	t.Log(said)
	for _, part := range []string{"stint: ", filepath.Join(first.Data, "main.db"), "process"} {
		if !strings.Contains(said, part) {
			t.Errorf("the second broker said %q, which does not contain %q", said, part)
		}
	}
	nc := first.Connect()
	processor(t, nc, "q", "p", `{"processor":"p"}`, done)
	if m := send(t, nc, "q", []byte("x")).reply.next(t); string(m.Data) != "done" {
		t.Errorf("the first broker answers %q", m.Data)
	}
	first.Kill()
	second.Start() // a lock ends with its process
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// TestDamagedRecord flips one bit of one item in the database between two runs: that item is reported and never
// delivered, the others are served.
func TestDamagedRecord(t *testing.T) {
	const items, spoilt = 10, 4
	b := harness.NewBroker(t, harness.Binary(t), harness.Config(harness.Durable("q")))
	b.Start()
	nc := b.Connect()
	var all []sent
	for i := range items {
		s := send(t, nc, "q", fmt.Appendf(nil, "the body of item %d, unlike all others", i))
		s.accepted(t)
		all = append(all, s)
	}
	b.Stop()
	flip(t, filepath.Join(b.Data, "main.db"), fmt.Sprintf("the body of item %d,", spoilt))
	b.Start()
	delivered := make(chan string, items)
	processor(t, nc, "q", "p", `{"processor":"p"}`, func(m *nats.Msg) {
		delivered <- string(m.Data)
		done(m)
	})
	for i, s := range all {
		if i == spoilt {
			continue
		}
		if m := s.reply.next(t); string(m.Data) != "done" {
			t.Errorf("item %d was answered %q", i, m.Data)
		}
		if body, want := <-delivered, fmt.Sprintf("the body of item %d, unlike all others", i); body != want {
			t.Errorf("delivered %q, want %q", body, want)
		}
	}
	harness.None(t, delivered, 0, "the damaged item was delivered")
	if log := b.Log(); !strings.Contains(log, "damaged record") {
		t.Errorf("the log does not speak of a damaged record:\n%s", log)
	}
	b.Stop()
	b.Start() // it has been set aside, and is in nobody's way
	if m := send(t, nc, "q", []byte("one more")).reply.next(t); string(m.Data) != "done" {
		t.Errorf("after another restart: %q", m.Data)
	}
}

// flip changes one bit in every copy of some text in a file.
func flip(t *testing.T, file, text string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(data, []byte(text)) {
		t.Fatalf("%s does not contain %q", file, text)
	}
	changed := []byte(text)
	changed[len(changed)/2] ^= 1
	if err := os.WriteFile(file, bytes.ReplaceAll(data, []byte(text), changed), 0o600); err != nil {
		t.Fatal(err)
	}
}
