package integration

import (
	"os"
	"strings"
	"testing"
	"time"

	"stint/integration/harness"
)

// TestNodeClientOfBatches runs the program that docs/protocol.md prints under Batches, as it stands there.
func TestNodeClientOfBatches(t *testing.T) {
	page, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(page), "```javascript\n")
	if !found {
		t.Fatal("docs/protocol.md has no program that uses batches")
	}
	program, _, _ := strings.Cut(rest, "```")
	dir := nodeProject(t)
	b := harness.NewBroker(t, harness.Binary(t), harness.Config(harness.Durable("work")))
	b.Start()
	t.Setenv("NATS_URL", b.URL)
	client := runNode(t, dir, "batches.mjs", program)
	code := client.Wait(30 * time.Second)
	for _, part := range []string{`{"status":"accepted","id":"`, `"count":1000}`, "replies: 1000 LINE 999"} {
		if code != 0 || !strings.Contains(client.Stdout(), part) {
			t.Errorf("the client ended with %d and printed %q, %q; want %q", code, client.Stdout(), client.Stderr(), part)
		}
	}
}
