package pool

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// LockedError says that a lock file belongs to another process.
type LockedError struct {
	File string
	PID  int
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("pool: %s: cannot break lock, process %d exists", e.File, e.PID)
}

// lockTries bounds how often a lock file is looked at that changes hands meanwhile.
const lockTries = 10

// lock creates a lock file with this process's id. One whose process is gone is taken over. The file appears with its
// content, so that nobody ever reads half of it. unlock removes it.
func lock(file string) (unlock func(), err error) {
	if file == "" {
		return func() {}, nil
	}
	own, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("pool: making the lock file %s: %w", file, err)
	}
	defer os.Remove(own.Name())
	defer own.Close()
	if _, err := own.WriteString(strconv.Itoa(os.Getpid()) + "\n"); err != nil {
		return nil, fmt.Errorf("pool: writing the lock file %s: %w", file, err)
	}
	for range lockTries {
		err = os.Link(own.Name(), file) // exclusive: it fails when there is one
		if err == nil {
			return func() { os.Remove(file) }, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			break
		}
		if err := breakLock(file); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("pool: making the lock file %s: %w", file, err)
}

// breakLock removes a lock file whose process is gone. Of several that try, the one that has the file itself locked does.
func breakLock(file string) error {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pool: reading the lock file: %w", err)
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("pool: taking over the lock file %s: %w", file, err)
	}
	pid, err := lockHolder(f)
	if err != nil {
		return err
	}
	if pid != os.Getpid() && alive(pid) { // our own number is one from before a restart of the container, say
		return &LockedError{File: file, PID: pid}
	}
	mine, err := f.Stat()
	if err != nil {
		return fmt.Errorf("pool: taking over the lock file: %w", err)
	}
	if now, err := os.Stat(file); err != nil || !os.SameFile(mine, now) {
		return nil //nolint:nilerr // somebody else was faster: look again
	}
	if err := os.Remove(file); err != nil {
		return fmt.Errorf("pool: taking over the lock file: %w", err)
	}
	return nil
}

// maxLockFile is how much of a lock file is read, in bytes.
const maxLockFile = 32

func lockHolder(f *os.File) (int, error) {
	buf := make([]byte, maxLockFile)
	n, _ := f.Read(buf)
	text := strings.TrimSpace(string(buf[:n]))
	if text == "" {
		return 0, nil
	}
	pid, err := strconv.Atoi(text)
	if err != nil || pid < 0 {
		return 0, fmt.Errorf("pool: the lock file %s holds %q, which is no process id: is it another file? remove it", f.Name(), text)
	}
	return pid, nil
}

func alive(pid int) bool {
	if pid == 0 {
		return false
	}
	err := unix.Kill(pid, 0)
	return err == nil || errors.Is(err, unix.EPERM)
}
