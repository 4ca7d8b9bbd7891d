//go:build linux && (amd64 || arm64)

package powercut

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// cwd is unix.AT_FDCWD as an argument: the directory the program is in.
const cwd = ^uint64(-unix.AT_FDCWD - 1)

// readers are the system calls that are recorded. One looks at a call that begins and returns what to note when it has
// succeeded. The older ones that only some architectures have are added in calls_linux_*_test.go.
var readers = map[int]func(r *recorder, pid int, a [6]uint64) call{
	unix.SYS_OPENAT: func(r *recorder, pid int, a [6]uint64) call { return r.open(pid, a[0], a[1], a[2]) },
	unix.SYS_MKDIRAT: func(r *recorder, pid int, a [6]uint64) call {
		return r.mkdir(pid, a[0], a[1])
	},
	unix.SYS_UNLINKAT: func(r *recorder, pid int, a [6]uint64) call { return r.unlink(pid, a[0], a[1]) },
	unix.SYS_RENAMEAT: func(r *recorder, pid int, a [6]uint64) call {
		return r.rename(pid, a[0], a[1], a[2], a[3])
	},
	unix.SYS_RENAMEAT2: func(r *recorder, pid int, a [6]uint64) call {
		if a[4]&unix.RENAME_EXCHANGE != 0 {
			r.fail("two files change places")
		}
		return r.rename(pid, a[0], a[1], a[2], a[3])
	},
	unix.SYS_WRITE: func(r *recorder, pid int, a [6]uint64) call {
		return r.write(pid, a[0], -1, func() []byte { return readMemory(pid, a[1], int(a[2])) })
	},
	unix.SYS_PWRITE64: func(r *recorder, pid int, a [6]uint64) call {
		return r.write(pid, a[0], int64(a[3]), func() []byte { return readMemory(pid, a[1], int(a[2])) })
	},
	unix.SYS_WRITEV: func(r *recorder, pid int, a [6]uint64) call {
		return r.write(pid, a[0], -1, func() []byte { return readVector(pid, a[1], a[2]) })
	},
	unix.SYS_PWRITEV: func(r *recorder, pid int, a [6]uint64) call {
		return r.write(pid, a[0], int64(a[3]), func() []byte { return readVector(pid, a[1], a[2]) })
	},
	unix.SYS_SENDTO: func(r *recorder, pid int, a [6]uint64) call {
		return r.write(pid, a[0], -1, func() []byte { return readMemory(pid, a[1], int(a[2])) })
	},
	unix.SYS_FTRUNCATE: func(r *recorder, pid int, a [6]uint64) call {
		return r.change(pid, a[0], op{Kind: opSize, Off: int64(a[1])})
	},
	unix.SYS_FALLOCATE: func(r *recorder, pid int, a [6]uint64) call {
		if a[1] != 0 {
			return r.refuse(pid, a[0], "fallocate in a mode other than 0")
		}
		return r.change(pid, a[0], op{Kind: opGrow, Off: int64(a[2] + a[3])})
	},
	unix.SYS_FSYNC: func(r *recorder, pid int, a [6]uint64) call {
		return r.change(pid, a[0], op{Kind: opSync, From: len(r.ops)})
	},
	// What fdatasync leaves out is of no use to a reader: times and the like.
	unix.SYS_FDATASYNC: func(r *recorder, pid int, a [6]uint64) call {
		return r.change(pid, a[0], op{Kind: opSync, From: len(r.ops)})
	},
}

// unrecorded are calls that would change the files, or make them durable, in ways that are not recorded.
var unrecorded = map[int]func(r *recorder, pid int, a [6]uint64){
	unix.SYS_MMAP: func(r *recorder, pid int, a [6]uint64) {
		if a[2]&unix.PROT_WRITE != 0 && a[3]&unix.MAP_TYPE != unix.MAP_PRIVATE && a[3]&unix.MAP_ANONYMOUS == 0 {
			r.refuse(pid, a[4], "a mapping that is shared and writable")
		}
	},
	unix.SYS_PWRITEV2:        func(r *recorder, pid int, a [6]uint64) { r.refuse(pid, a[0], "pwritev2") },
	unix.SYS_COPY_FILE_RANGE: func(r *recorder, pid int, a [6]uint64) { r.refuse(pid, a[2], "copy_file_range") },
	unix.SYS_SENDFILE:        func(r *recorder, pid int, a [6]uint64) { r.refuse(pid, a[0], "sendfile") },
	unix.SYS_SPLICE:          func(r *recorder, pid int, a [6]uint64) { r.refuse(pid, a[2], "splice") },
	unix.SYS_SYNCFS:          func(r *recorder, pid int, a [6]uint64) { r.refuse(pid, a[0], "syncfs") },
	unix.SYS_SYNC:            func(r *recorder, _ int, _ [6]uint64) { r.fail("sync") },
	unix.SYS_IO_URING_SETUP:  func(r *recorder, _ int, _ [6]uint64) { r.fail("io_uring") },
	unix.SYS_TRUNCATE:        func(r *recorder, pid int, a [6]uint64) { r.refusePath(pid, cwd, a[0], "truncate") },
	unix.SYS_LINKAT:          func(r *recorder, pid int, a [6]uint64) { r.refusePath(pid, a[2], a[3], "link") },
	unix.SYS_SYMLINKAT:       func(r *recorder, pid int, a [6]uint64) { r.refusePath(pid, a[1], a[2], "symlink") },
}

// refuse ends the recording if the descriptor is one of our files.
func (r *recorder) refuse(pid int, fd uint64, what string) call {
	if _, ours := r.node(pid, fd); ours {
		r.fail("%s", what)
	}
	return call{}
}

func (r *recorder) refusePath(pid int, dirfd, at uint64, what string) {
	if p, ours := r.path(pid, dirfd, at); ours {
		r.fail("%s of %s", what, p)
	}
}

func (r *recorder) open(pid int, dirfd, at, flags uint64) call {
	const changes = unix.O_CREAT | unix.O_TRUNC | unix.O_SYNC | unix.O_DSYNC | unix.O_TMPFILE&^unix.O_DIRECTORY
	if flags&changes == 0 {
		return call{}
	}
	path, ours := r.path(pid, dirfd, at)
	if !ours {
		return call{}
	}
	if flags&changes&^(unix.O_CREAT|unix.O_TRUNC) != 0 {
		r.fail("%s opened with flags %#x", path, flags)
	}
	return call{files: true, done: func(value int64) {
		st, ok := fd(pid, uint64(value))
		if !ok {
			r.fail("%s was opened but is not there", path)
			return
		}
		if node, known := r.names[path]; !known {
			r.created(path, st.Ino, false)
		} else if flags&unix.O_TRUNC != 0 {
			r.add(op{Kind: opSize, Node: node})
		}
	}}
}

func (r *recorder) mkdir(pid int, dirfd, at uint64) call {
	path, ours := r.path(pid, dirfd, at)
	if !ours {
		return call{}
	}
	return call{files: true, done: func(int64) {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			r.fail("%s was made but is not there: %w", path, err)
			return
		}
		r.created(path, st.Ino, true)
	}}
}

func (r *recorder) unlink(pid int, dirfd, at uint64) call {
	path, ours := r.path(pid, dirfd, at)
	if !ours {
		return call{}
	}
	return call{files: true, done: func(int64) {
		dir, name, ok := r.place(path)
		node, known := r.names[path]
		if !ok || !known {
			r.fail("%s was removed but never made", path)
			return
		}
		delete(r.names, path)
		r.add(op{Kind: opUnlink, Dir: dir, Name: name, Node: node})
	}}
}

func (r *recorder) rename(pid int, oldfd, oldAt, newfd, newAt uint64) call {
	from, ours := r.path(pid, oldfd, oldAt)
	to, oursToo := r.path(pid, newfd, newAt)
	if !ours && !oursToo {
		return call{}
	}
	return call{files: true, done: func(int64) {
		dir, name, ok := r.place(from)
		node, known := r.names[from]
		if !ok || !known || r.isDir[node] || filepath.Dir(from) != filepath.Dir(to) {
			r.fail("%s was renamed to %s: only files within one directory are followed", from, to)
			return
		}
		delete(r.names, from)
		r.names[to] = node
		r.add(op{Kind: opRename, Dir: dir, Name: name, To: filepath.Base(to), Node: node})
	}}
}

// write takes note of what is written to a file or sent to a client. at is -1 where the descriptor's own position counts.
func (r *recorder) write(pid int, fdn uint64, at int64, data func() []byte) call {
	st, ok := fd(pid, fdn)
	if !ok {
		return call{}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFSOCK, unix.S_IFIFO:
		r.sent(st.Ino, data())
		return call{}
	case unix.S_IFREG:
	default:
		return call{}
	}
	node, ours := r.inodes[st.Ino]
	if !ours || st.Dev != r.dev {
		return call{}
	}
	content := data()
	return call{files: true, done: func(n int64) {
		if n == 0 {
			return
		}
		if at < 0 {
			end, ok := position(pid, fdn)
			if !ok {
				r.fail("where %d bytes were written", n)
			}
			at = end - n
		}
		if int64(len(content)) < n {
			r.fail("%d of the %d bytes of a write could be read", len(content), n)
			return
		}
		r.add(op{Kind: opWrite, Node: node, Off: at, Data: content[:n:n]})
	}}
}

// change takes note of another operation on a descriptor.
func (r *recorder) change(pid int, fdn uint64, o op) call {
	node, ours := r.node(pid, fdn)
	if !ours {
		return call{}
	}
	o.Node = node
	return call{files: true, done: func(int64) { r.add(o) }}
}
