//go:build linux && (amd64 || arm64)

package powercut

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime/debug"
	"syscall"
	"time"
)

// Images are opened in processes of their own: what is wrong with one may end the process that opens it, beyond any
// recover, and that is a verdict like others.

// lookTime is how long the opening of an image may take.
const lookTime = 10 * time.Second

// runLooker is such a process: it reads facts, then directories, and writes what it found in each.
func runLooker(in io.Reader, out io.Writer) error {
	debug.SetMaxStack(64 << 20) // a cycle of pages is found sooner
	from, to := gob.NewDecoder(in), gob.NewEncoder(out)
	var f facts
	if err := from.Decode(&f); err != nil {
		return fmt.Errorf("read the facts: %w", err)
	}
	inspect := newInspector(&f)
	for {
		var dir string
		if err := from.Decode(&dir); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read the place of an image: %w", err)
		}
		if err := to.Encode(inspect.look(dir)); err != nil {
			return fmt.Errorf("write what was found: %w", err)
		}
	}
}

// looker is our side of one. It belongs to one goroutine that keeps its thread, which the life of the process hangs on.
type looker struct {
	facts *facts
	dir   string // for images

	cmd  *exec.Cmd // nil: none is running
	in   io.WriteCloser
	said bytes.Buffer
	to   *gob.Encoder
	from *gob.Decoder
}

// look stores an image and has it opened. The error is the test's own.
func (l *looker) look(img *image) (*found, error) {
	dir, err := os.MkdirTemp(l.dir, "image-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := img.store(dir); err != nil {
		return nil, fmt.Errorf("write an image: %w", err)
	}
	if l.cmd == nil {
		if err := l.start(); err != nil {
			return nil, fmt.Errorf("start a process to open images: %w", err)
		}
	}
	f := &found{}
	process := l.cmd.Process
	timeout := time.AfterFunc(lookTime, func() { _ = process.Signal(syscall.SIGQUIT) }) // it says where it hangs
	err = errors.Join(l.to.Encode(dir), l.from.Decode(f))
	if !timeout.Stop() || err != nil {
		return l.died(err), nil
	}
	return f, nil
}

func (l *looker) start() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleVariable+"=look")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	l.said.Reset()
	cmd.Stderr = &l.said
	if l.in, err = cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	l.cmd, l.to, l.from = cmd, gob.NewEncoder(l.in), gob.NewDecoder(out)
	return l.to.Encode(l.facts)
}

// died is what is found of an image that the process did not survive.
func (l *looker) died(cause error) *found {
	f := &found{Deadly: true}
	ended := l.stop()
	f.flaw("the process that opened it died, or took longer than %v: %v; %v: %.1000s", lookTime, cause, ended, l.said.Bytes())
	return f
}

// stop ends the process, which has nothing left to do.
func (l *looker) stop() error {
	if l.cmd == nil {
		return nil
	}
	cmd := l.cmd
	l.cmd = nil
	return errors.Join(l.in.Close(), cmd.Wait())
}
