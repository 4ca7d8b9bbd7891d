package integration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"stint/integration/harness"
	"stint/wire"
)

// smallDisk mounts a file system of its own that a test can fill, of some bytes. That takes root; without it the test is
// skipped.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	err := syscall.Mount("stint-test", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size))
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSYS) {
		t.Skipf("a disk to fill cannot be mounted here (%v): run this test as root", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill takes all the space that is left, with a file, which free removes.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 64<<10); err == nil; {
		_, err = f.Write(chunk)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
}

// putter sends one item after the other and waits for word of each.
type putter struct {
	nc       *nats.Conn
	replies  inbox
	accepted int
}

// put returns the code of the error, empty if the item was accepted. Items are numbered by how many were before them.
func (p *putter) put(t *testing.T) string {
	t.Helper()
	accept := newInbox(t, p.nc)
	publish(t, p.nc, &nats.Msg{
		Subject: "q", Reply: p.replies.subject, Data: fmt.Appendf(nil, "%d %s", p.accepted, bytes.Repeat([]byte("x"), 5000)),
		Header: nats.Header{wire.HeaderAcceptedReply: {accept.subject}},
	})
	st := accept.status(t)
	if st.Status == "accepted" {
		p.accepted++
		return ""
	}
	p.replies.refused(t, wire.Code(st.Code))
	return st.Code
}

// TestFullDisk fills the disk under the broker. Sends get disk_full; what is there is finished all the same; when space
// is freed sends are accepted again, without a restart; and all that was ever accepted is answered once.
func TestFullDisk(t *testing.T) {
	config := harness.Config(harness.Durable("q"))
	config["data_dir"] = smallDisk(t, 96<<20)
	b := harness.NewBroker(t, harness.Binary(t), config)
	b.Start()
	nc := b.Connect()
	p := &putter{nc: nc, replies: newInbox(t, nc)}
	for range 200 {
		if code := p.put(t); code != "" {
			t.Fatalf("on an empty disk an item was refused: %s", code)
		}
	}
	free := fill(t, b.Data)
	code := ""
	for i := 0; i < 2000 && code == ""; i++ {
		code = p.put(t)
	}
	if code != string(wire.CodeDiskFull) {
		t.Fatalf("on a full disk an item was answered %q, want %s", code, wire.CodeDiskFull)
	}

	// Finishing goes on.
	processor(t, nc, "q", "p", `{"processor":"p"}`, func(m *nats.Msg) {
		id, _, _ := strings.Cut(string(m.Data), " ")
		if err := m.Respond([]byte(id)); err != nil {
			t.Error(err)
		}
	})
	before := p.accepted
	seen := map[string]int{}
	for range before {
		seen[string(p.replies.next(t).Data)]++
	}

	free()
	began := time.Now()
	harness.Until(t, soon, "items are accepted again", func() bool { return p.put(t) == "" })
	t.Logf("%d items were finished on the full disk; accepted again %v after space was freed", before,
		time.Since(began).Round(time.Millisecond))
	for range 100 {
		if code := p.put(t); code != "" {
			t.Errorf("refused after space was freed: %s", code)
		}
	}
	for range p.accepted - before {
		seen[string(p.replies.next(t).Data)]++
	}
	for i := range p.accepted {
		if n := seen[fmt.Sprint(i)]; n != 1 {
			t.Errorf("item %d was answered %d times", i, n)
		}
	}
	harness.None(t, p.replies.c, 50*time.Millisecond, "a reply too many")
	b.Stop()
}
