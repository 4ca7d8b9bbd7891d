package harness

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// raceBroker has the broker built with the race detector, which needs a C compiler.
var raceBroker = flag.Bool("broker-race", false, "build the broker with the race detector")

// Main is the TestMain of a package that uses the harness. In a process started as a processor it does not return.
func Main(m *testing.M) {
	if spec := os.Getenv(processorEnv); spec != "" {
		os.Exit(processorMain(spec, os.Stdin, os.Stdout))
	}
	dir, err := os.MkdirTemp("", "stint-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "making a directory for the binaries:", err)
		os.Exit(1)
	}
	binaries = builds{dir: dir, built: map[string]string{}}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// builds are the binaries of this test run. Tests that use it must not run in parallel.
type builds struct {
	dir   string
	built map[string]string
}

var binaries builds

// Binary builds the broker with these build tags, unless that has been done in this run, and returns its path.
func Binary(t testing.TB, tags ...string) string {
	t.Helper()
	return Build(t, "stint/cmd/stint", tags...)
}

// Build builds a command of this module likewise.
func Build(t testing.TB, pkg string, tags ...string) string {
	t.Helper()
	name := strings.Join(append([]string{filepath.Base(pkg)}, tags...), "-")
	if path := binaries.built[name]; path != "" {
		return path
	}
	path := filepath.Join(binaries.dir, name)
	args := []string{"build", "-o", path, "-tags", strings.Join(tags, ",")}
	if *raceBroker {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, pkg)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out.Bytes())
	}
	binaries.built[name] = path
	return path
}
