//go:build linux && (amd64 || arm64)

package powercut

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// recorder turns system calls into the log. It belongs to the tracer's goroutine; others may read count.
type recorder struct {
	root    string // no symbolic link in it
	dev     uint64
	ops     []op
	count   atomic.Int64 // len(ops)
	names   map[string]int
	inodes  map[uint64]int
	isDir   map[int]bool
	told    map[string]int
	streams map[uint64][]byte // of a socket or pipe: the end of what was last written
	stops   int
	trouble error // an operation that cannot be recorded
}

// call is a system call that has begun.
type call struct {
	files bool              // it changes the files, or syncs them
	done  func(value int64) // notes what it has done, if it has
}

func newRecorder(root string) (*recorder, error) {
	var st unix.Stat_t
	if err := unix.Stat(root, &st); err != nil {
		return nil, fmt.Errorf("look at %s: %w", root, err)
	}
	return &recorder{
		root: root, dev: st.Dev,
		names: map[string]int{root: 0}, inodes: map[uint64]int{st.Ino: 0}, isDir: map[int]bool{0: true},
		told: map[string]int{}, streams: map[uint64][]byte{},
	}, nil
}

// nodes is how many nodes there have been.
func (r *recorder) nodes() int { return len(r.isDir) }

func (r *recorder) fail(format string, args ...any) {
	if r.trouble == nil {
		r.trouble = fmt.Errorf("the recorder cannot follow: "+format, args...)
	}
}

func (r *recorder) add(o op) {
	r.ops = append(r.ops, o)
	r.count.Store(int64(len(r.ops)))
}

// enter looks at a call that begins.
func (r *recorder) enter(pid, nr int, a [6]uint64) call {
	if read := readers[nr]; read != nil {
		return read(r, pid, a)
	}
	if what := unrecorded[nr]; what != nil {
		what(r, pid, a)
	}
	return call{}
}

// fd returns what a descriptor of the program leads to.
func fd(pid int, n uint64) (st unix.Stat_t, ok bool) {
	return st, unix.Stat(fmt.Sprintf("/proc/%d/fd/%d", pid, int32(n)), &st) == nil
}

// node returns the node that a descriptor leads to; false: it is none of ours.
func (r *recorder) node(pid int, n uint64) (int, bool) {
	st, ok := fd(pid, n)
	if !ok || st.Dev != r.dev {
		return 0, false
	}
	node, ok := r.inodes[st.Ino]
	return node, ok
}

// path returns the path that a call names; false: it lies outside of the root.
func (r *recorder) path(pid int, dirfd, at uint64) (string, bool) {
	p, ok := readString(pid, at)
	if !ok {
		return "", false
	}
	if !filepath.IsAbs(p) {
		base := fmt.Sprintf("/proc/%d/cwd", pid)
		if int32(dirfd) != unix.AT_FDCWD {
			base = fmt.Sprintf("/proc/%d/fd/%d", pid, int32(dirfd))
		}
		dir, err := os.Readlink(base)
		if err != nil {
			return "", false
		}
		p = filepath.Join(dir, p)
	}
	p = filepath.Clean(p)
	return p, p == r.root || strings.HasPrefix(p, r.root+"/")
}

// place splits a path into the node of its directory and the name there.
func (r *recorder) place(path string) (dir int, name string, ok bool) {
	dir, ok = r.names[filepath.Dir(path)]
	return dir, filepath.Base(path), ok
}

// created notes a file or directory that a call has made.
func (r *recorder) created(path string, ino uint64, isDir bool) {
	dir, name, ok := r.place(path)
	if !ok {
		r.fail("%s is in a directory that was there before", path)
		return
	}
	node := r.nodes()
	r.names[path], r.inodes[ino], r.isDir[node] = node, node, isDir
	r.add(op{Kind: opCreate, Dir: dir, Name: name, Node: node, IsDir: isDir})
}

// readMemory copies memory of the program.
func readMemory(pid int, at uint64, n int) []byte {
	if n == 0 {
		return nil
	}
	b := make([]byte, n)
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(n)
	got, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: uintptr(at), Len: n}}, 0)
	if err != nil {
		return nil
	}
	return b[:got]
}

// readString copies a string of the program, in pieces that never cross a page it may not have.
func readString(pid int, at uint64) (string, bool) {
	var s []byte
	for len(s) < 4096 {
		piece := readMemory(pid, at, 256-int(at%256))
		if piece == nil {
			return "", false
		}
		if end := bytes.IndexByte(piece, 0); end >= 0 {
			return string(append(s, piece[:end]...)), true
		}
		s, at = append(s, piece...), at+uint64(len(piece))
	}
	return "", false
}

// readVector copies what an array of struct iovec leads to.
func readVector(pid int, at, n uint64) []byte {
	raw := readMemory(pid, at, int(min(n, 1024))*16)
	var all []byte
	for ; len(raw) >= 16; raw = raw[16:] {
		all = append(all, readMemory(pid, binary.NativeEndian.Uint64(raw), int(binary.NativeEndian.Uint64(raw[8:])))...)
	}
	return all
}

// notice is how a message to a client begins, with the subjects that our clients use.
var notice = regexp.MustCompile(`MSG (` + noticePrefix + `\.[0-9a-z.]+) `)

const (
	noticePrefix = "pcut"
	noticeMax    = 64 // bytes of the pattern
)

// sent looks for notices in what goes to a client. It is noted before the client can have it.
func (r *recorder) sent(stream uint64, data []byte) {
	all := append(r.streams[stream], data...)
	for _, m := range notice.FindAllSubmatch(all, -1) {
		if subject := string(m[1]); !r.has(subject) {
			r.told[subject] = len(r.ops)
		}
	}
	r.streams[stream] = bytes.Clone(all[max(0, len(all)-noticeMax):])
}

func (r *recorder) has(subject string) bool {
	_, ok := r.told[subject]
	return ok
}

// position is where a descriptor stands in its file.
func position(pid int, n uint64) (int64, bool) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, int32(n)))
	if err != nil {
		return 0, false
	}
	line, _, _ := strings.Cut(string(info), "\n")
	pos, err := strconv.ParseInt(strings.TrimSpace(strings.TrimPrefix(line, "pos:")), 10, 64)
	return pos, err == nil
}
