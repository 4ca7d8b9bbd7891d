//go:build linux && (amd64 || arm64)

package powercut

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What the recorder must see is tried with a program that does each thing once.

// runFiles is that program.
func runFiles(root, what string, out io.Writer) error {
	fmt.Fprintln(out, "stint ready: none")
	dir := filepath.Join(root, "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, "a"), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if what == "mapping" {
		return writeByMapping(f)
	}
	return errors.Join(appendTwice(f), vectors(dir), names(dir, f), out2(out))
}

// out2 tells a client in two pieces.
func out2(out io.Writer) error {
	_, err := io.WriteString(out, "HMSG pcut.f")
	_, again := io.WriteString(out, ".7 1 9 9\r\n")
	return errors.Join(err, again)
}

func writeByMapping(f *os.File) error {
	if err := f.Truncate(blockSize); err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, blockSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	m[0] = 1
	return unix.Munmap(m)
}

func appendTwice(f *os.File) error {
	_, err := f.WriteString("one")
	fd, dupErr := unix.Dup(int(f.Fd()))
	if dupErr != nil {
		return dupErr
	}
	again := os.NewFile(uintptr(fd), "again")
	_, againErr := again.WriteString("two")
	return errors.Join(err, againErr, again.Sync(), again.Close())
}

func vectors(dir string) error {
	f, err := os.Create(filepath.Join(dir, "b"))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = unix.Pwritev(int(f.Fd()), [][]byte{[]byte("12"), []byte("345")}, 10)
	_, err2 := unix.Writev(int(f.Fd()), [][]byte{[]byte("ab"), []byte("c")})
	err3 := unix.Fallocate(int(f.Fd()), 0, 0, 100)
	return errors.Join(err, err2, err3, f.Truncate(12), unix.Fdatasync(int(f.Fd())))
}

// names writes to a file after it has another name, and after it has none.
func names(dir string, f *os.File) error {
	err := os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b"))
	_, wrote := f.WriteString("3")
	gone := os.Remove(filepath.Join(dir, "b"))
	_, wroteAgain := f.WriteString("4")
	made := os.WriteFile(filepath.Join(dir, "c"), []byte("56"), 0o600)
	cut := os.WriteFile(filepath.Join(dir, "c"), nil, 0o600)
	outside := os.WriteFile(filepath.Join(dir, "../../outside"), []byte("no"), 0o600)
	d, opened := os.Open(dir)
	if opened != nil {
		return opened
	}
	return errors.Join(err, wrote, gone, wroteAgain, made, cut, outside, d.Sync(), d.Close())
}

var everyOperation = []string{
	"create d in 0",
	"create a in 1", "write 3 bytes at 0 of file 2", "write 3 bytes at 3 of file 2", "sync of 2",
	"create b in 1", "write 5 bytes at 10 of file 3", "write 3 bytes at 0 of file 3",
	"grow of file 3: 100", "size of file 3: 12", "sync of 3",
	"rename a to b in 1", "write 1 bytes at 6 of file 2", "unlink b in 1", "write 1 bytes at 7 of file 2",
	"create c in 1", "write 2 bytes at 0 of file 4", "size of file 4: 0", "sync of 1",
}

func TestRecorder(t *testing.T) {
	r := recorded(t, "files", "all", 1)
	var got []string
	for i := range r.Ops {
		got = append(got, r.Ops[i].String())
	}
	if a, b := strings.Join(got, "\n"), strings.Join(everyOperation, "\n"); a != b {
		t.Errorf("recorded:\n%s\nwas done:\n%s", a, b)
	}
	if at, told := r.at("pcut.f.7"); !told || at != len(r.Ops) {
		t.Errorf("the notice left after %d operations (%v), it was %d", at, told, len(r.Ops))
	}
}

// TestRecorderRefuses has the program write in a way that cannot be seen.
func TestRecorderRefuses(t *testing.T) {
	out, err := runTracer(t, "files", "mapping", t.TempDir(), 1)
	if err == nil || !strings.Contains(string(out), "a mapping that is shared and writable") {
		t.Errorf("a shared writable mapping was recorded: %v\n%s", err, out)
	}
}

// recordFiles runs the program above under the tracer.
func recordFiles(work, what string) (*recording, error) {
	s, err := newSession("", work, 0)
	if err != nil {
		return nil, err
	}
	if err := s.role("files", s.root, what); err != nil {
		return nil, err
	}
	return s.recording()
}
