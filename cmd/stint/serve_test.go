package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"stint/store"
)

// onLine calls f with the first line.
type onLine func(string)

func (f onLine) Write(p []byte) (int, error) {
	f(string(p))
	return len(p), nil
}

func TestServeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var line string
	ready := onLine(func(s string) {
		line = s
		cancel()
	})
	var log bytes.Buffer
	args := []string{"serve", "--listen", "127.0.0.1:0", "--data-dir", t.TempDir()}
	if code := run(ctx, args, nil, ready, &log); code != 0 {
		t.Errorf("exit code %d: %s", code, log.String())
	}
	var url string
	if n, err := fmt.Sscanf(line, "stint ready: %s queues=work\n", &url); n != 1 || err != nil {
		t.Errorf("the ready line is %q", line)
	}
}

func TestServeEndsWhenItCannotSayThatItIsReady(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = r.Close(), w.Close()
	var log bytes.Buffer
	args := []string{"serve", "--listen", "127.0.0.1:0", "--data-dir", t.TempDir()}
	if code := run(t.Context(), args, nil, w, &log); code != exitError {
		t.Errorf("exit code %d: %s", code, log.String())
	}
}

func TestServeTakesPayloadOfTheServerIntoAccount(t *testing.T) {
	c := serverFile(t, "max_payload: 64kb")
	err := serve(t.Context(), c, io.Discard, quiet)
	if err == nil || !strings.Contains(err.Error(), "lower it to 49152, or raise max_payload") {
		t.Errorf("the error is %v", err)
	}
}

func TestSendOverTLS(t *testing.T) {
	certs := makeCerts(t)
	e := mustStart(t, serverFile(t, fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }",
		certs.cert, certs.key, certs.ca)))
	args := []string{
		"send", "orders", "hi", "--server", e.url(), "--tlsca", certs.ca, "--tlscert", certs.cert, "--tlskey", certs.key,
		"--context", "",
	}
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	var out bytes.Buffer
	code := run(t.Context(), args, nil, &out, &out)
	if code != exitConnect || !strings.Contains(out.String(), "there is no broker for the queue orders") {
		t.Errorf("exit code %d: %s", code, out.String())
	}
}

func TestSendRefusesAnEndlessBody(t *testing.T) {
	endless := readerFunc(func(p []byte) (int, error) { return len(p), nil })
	var out bytes.Buffer
	code := run(t.Context(), []string{"send", "orders", "-"}, endless, &out, &out)
	if code != exitError || !strings.Contains(out.String(), "is larger than 67108864 bytes") {
		t.Errorf("exit code %d: %s", code, out.String())
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestStorageFailuresHaveAnExitCode(t *testing.T) {
	for _, of := range []error{store.ErrUnknown, store.ErrFull, store.ErrLocked, store.ErrNewer, store.ErrCorrupt} {
		var f *failure
		if err := storageFailure(fmt.Errorf("starting: %w", of)); !errors.As(err, &f) || f.code != exitStorage || !errors.Is(err, of) {
			t.Errorf("%v became %v", of, err)
		}
	}
	if err := storageFailure(io.EOF); !errors.Is(err, io.EOF) || errors.As(err, new(*failure)) {
		t.Errorf("another error became %v", err)
	}
	if storageFailure(nil) != nil {
		t.Error("no error became one")
	}
}

func TestTuneMemoryKeepsTheEnvironment(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	t.Cleanup(func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	})
	t.Setenv("GOGC", "100")
	t.Setenv("GOMEMLIMIT", "1GiB")
	debug.SetMemoryLimit(1 << 30)
	tuneMemory()
	if p, l := debug.SetGCPercent(100), debug.SetMemoryLimit(-1); p != 100 || l != 1<<30 {
		t.Errorf("%d %%, limit %d", p, l)
	}
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "")
	tuneMemory()
	p, l := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	if p != gcPercent {
		t.Errorf("%d %%", p)
	}
	if at := memoryAtHand(); l < memoryLimit(0, at) || l > memoryLimit(1<<30, at) {
		t.Errorf("limit %d of %d", l, at)
	}
}

func TestMemoryLimitFollowsWhatLives(t *testing.T) {
	for _, c := range []struct{ live, atHand, want int64 }{
		{0, 0, memoryEnough},
		{10 << 20, 8 << 30, memoryEnough},
		{100 << 20, 8 << 30, 232 << 20},
		{100 << 20, 256 << 20, 192 << 20},
	} {
		if got := memoryLimit(c.live, c.atHand); got != c.want {
			t.Errorf("%d alive of %d: limit %d, want %d", c.live, c.atHand, got, c.want)
		}
	}
	before, old := debug.SetMemoryLimit(-1), int64(0)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	limitMemory(0, old)
	held := make([]byte, 200<<20)
	defer runtime.KeepAlive(held)
	for range 1000 { // a finalizer runs some time after its collection
		runtime.GC()
		runtime.Gosched()
		if debug.SetMemoryLimit(-1) > 400<<20 {
			return
		}
	}
	t.Errorf("with %d bytes alive the limit is %d", len(held), debug.SetMemoryLimit(-1))
}

func TestMemoryLimits(t *testing.T) {
	if n := totalMemory([]byte("MemFree: 1 kB\nMemTotal:       2048 kB\n")); n != 2<<20 {
		t.Errorf("MemTotal is %d", n)
	}
	if n := totalMemory(nil); n != 0 {
		t.Errorf("nothing is %d", n)
	}
	for text, want := range map[string]int64{"max\n": 0, "1048576\n": 1 << 20, "9223372036854771712": 0, "": 0} {
		if n := groupLimit([]byte(text)); n != want {
			t.Errorf("%q is %d", text, n)
		}
	}
	got := groupFiles("12:cpu:/ignored\n0::/system.slice/stint.service\n")
	want := []string{
		"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes",
		"/sys/fs/cgroup/system.slice/stint.service/memory.max", "/sys/fs/cgroup/system.slice/memory.max",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestVersionsWithoutBuildInformation(t *testing.T) {
	v := versionsOf(nil)
	if v.Stint != "(devel)" || v.Bbolt != "unknown" || v.NATSServer == "" {
		t.Errorf("%+v", v)
	}
	info := &debug.BuildInfo{
		Main:     debug.Module{Version: "v1.2.3"},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {Key: "vcs.modified", Value: "true"}},
		Deps:     []*debug.Module{{Path: "go.etcd.io/bbolt", Version: "v9"}},
	}
	var out bytes.Buffer
	if err := printVersions(&out, versionsOf(info), false); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "stint v1.2.3 (abc, modified)\n") || !strings.HasSuffix(out.String(), "bbolt v9\n") {
		t.Errorf("%s", out.String())
	}
}

func TestReadFileIsBounded(t *testing.T) {
	name := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(name, make([]byte, maxConfigFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadConfig(name); err == nil || !strings.Contains(err.Error(), "is larger than 4194304 bytes") {
		t.Errorf("the error is %v", err)
	}
}
