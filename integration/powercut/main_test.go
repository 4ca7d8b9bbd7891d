//go:build linux && (amd64 || arm64)

package powercut

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

var (
	cutsFlag = flag.Int("cuts", 0, "make so many cuts at most; 0: as many as the ordinary run")
	seedFlag = flag.Uint64("seed", 0, "seed of everything that is chosen at random; 0: one that is printed")
)

// Exit codes of the tracer process.
const (
	exitTrouble      = 1
	exitNotPermitted = 77
)

// The roles of the test binary when it is started again: STINT_POWERCUT is the role and its arguments.
const roleVariable = "STINT_POWERCUT"

func TestMain(m *testing.M) {
	role := strings.Fields(os.Getenv(roleVariable))
	if len(role) == 0 {
		os.Exit(m.Run())
	}
	os.Exit(runRole(role, os.Stdout, os.Stderr))
}

// runRole is the whole of a helper process.
func runRole(args []string, stdout, stderr io.Writer) int {
	err := os.Unsetenv(roleVariable) // what is started from here has a role of its own
	if err == nil {
		err = play(args, os.Stdin, stdout)
	}
	switch {
	case errors.Is(err, errNotPermitted):
		fmt.Fprintln(stderr, err)
		return exitNotPermitted
	case err != nil:
		fmt.Fprintln(stderr, err)
		return exitTrouble
	}
	return 0
}

func play(args []string, stdin io.Reader, stdout io.Writer) error {
	switch args[0] {
	case "look":
		return runLooker(stdin, stdout)
	case "engine":
		return runEngine(args[1], stdout)
	case "files":
		return runFiles(args[1], args[2], stdout)
	case "trace":
		return trace(args[1], args[2], args[3], args[4])
	}
	return fmt.Errorf("there is no role %q", args[0])
}

// trace makes a recording of a kind and saves it in the directory.
func trace(kind, of, work, seed string) error {
	n, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		return err
	}
	var r *recording
	switch kind {
	case "broker", "brief":
		r, err = recordBroker(of, work, n, kind == "brief")
	case "engine":
		r, err = recordEngine(work)
	default:
		r, err = recordFiles(work, of)
	}
	if err != nil {
		return err
	}
	return r.save(filepath.Join(work, "recording"))
}

// recorded has a tracer process make a recording; of is the program for the kinds "broker" and "brief", and what it does for "files".
func recorded(t *testing.T, kind, of string, seed uint64) *recording {
	t.Helper()
	work := t.TempDir()
	if out, err := runTracer(t, kind, of, work, seed); err != nil {
		t.Fatalf("the recording failed: %v\n%s", err, out)
	}
	r, err := loadRecording(filepath.Join(work, "recording"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// runTracer starts the tracer process and waits for it. It dies with the test: the kernel kills it when this thread ends.
func runTracer(t *testing.T, kind, of, work string, seed uint64) ([]byte, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*runTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=trace %s %s %s %d", roleVariable, kind, of, work, seed))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == exitNotPermitted {
		t.Skipf("NOTHING WAS TESTED: %s", out)
	}
	return out, err
}

// build makes the program, with the defect of a build tag if one is named.
func build(t *testing.T, tag string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "stint")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags", tag, "-o", binary, "stint/cmd/stint")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	return binary
}
