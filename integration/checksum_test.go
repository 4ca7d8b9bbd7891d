package integration

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"stint/integration/harness"
	"stint/wire"
)

// TestChecksum runs the example job: the checksum of every file of the Go installation's source tree, computed by three
// processor processes, of which one is killed on the way, and after it the broker. What the sender prints must be what
// sha256sum prints.
func TestChecksum(t *testing.T) {
	tool, err := exec.LookPath("sha256sum")
	if err != nil {
		t.Skip("sha256sum, to compare with, is not installed here")
	}
	dir := goSource(t)
	b := harness.NewBroker(t, harness.Binary(t), harness.Config(harness.Durable("work")))
	b.Start()
	checksum := harness.Build(t, "stint/examples/checksum")
	var workers []*harness.Command
	for range 3 {
		workers = append(workers, harness.Run(t, checksum, "work", "--server", b.URL))
	}
	// Anybody may listen to the answers of the processors.
	answers := make(chan *nats.Msg, 64<<10)
	nc := b.Connect()
	if _, err := nc.ChanSubscribe(wire.LeasePattern("work"), answers); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	sender := harness.Run(t, checksum, "send", "--server", b.URL, dir)
	for range 2000 {
		harness.Next(t, answers, time.Minute, "answers of the processors")
	}
	workers[0].Kill()
	for range 2000 {
		harness.Next(t, answers, time.Minute, "answers of the others")
	}
	b.Kill()
	b.Start()
	if code := sender.Wait(2 * time.Minute); code != 0 {
		t.Fatalf("the sender ended with %d: %s", code, sender.Stderr())
	}
	t.Log(strings.TrimSpace(sender.Stderr()))
	want := sha256sum(t, tool, dir)
	if got := sender.Stdout(); got != want {
		t.Errorf("%d lines differ from sha256sum's", differing(got, want))
	}
}

func goSource(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.EvalSymlinks(filepath.Join(strings.TrimSpace(string(root)), "src"))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// sha256sum is what the tool prints for all files below dir, sorted by path.
func sha256sum(t *testing.T, tool, dir string) string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(files)
	if len(files) < 5000 {
		t.Fatalf("%s has %d files only", dir, len(files))
	}
	var out bytes.Buffer
	for some := range slices.Chunk(files, 500) {
		cmd := exec.Command(tool, some...)
		cmd.Stdout, cmd.Stderr = &out, os.Stderr
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

func differing(got, want string) int {
	have := map[string]bool{}
	for line := range strings.Lines(got) {
		have[line] = true
	}
	n := 0
	for line := range strings.Lines(want) {
		if !have[line] {
			n++
		}
	}
	return n + max(0, len(have)+n-strings.Count(want, "\n"))
}
