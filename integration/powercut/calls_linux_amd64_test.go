package powercut

import "golang.org/x/sys/unix"

func init() {
	readers[unix.SYS_OPEN] = func(r *recorder, pid int, a [6]uint64) call { return r.open(pid, cwd, a[0], a[1]) }
	readers[unix.SYS_CREAT] = func(r *recorder, pid int, a [6]uint64) call {
		return r.open(pid, cwd, a[0], unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY)
	}
	readers[unix.SYS_MKDIR] = func(r *recorder, pid int, a [6]uint64) call { return r.mkdir(pid, cwd, a[0]) }
	readers[unix.SYS_UNLINK] = func(r *recorder, pid int, a [6]uint64) call { return r.unlink(pid, cwd, a[0]) }
	readers[unix.SYS_RMDIR] = func(r *recorder, pid int, a [6]uint64) call { return r.unlink(pid, cwd, a[0]) }
	readers[unix.SYS_RENAME] = func(r *recorder, pid int, a [6]uint64) call { return r.rename(pid, cwd, a[0], cwd, a[1]) }
	unrecorded[unix.SYS_LINK] = func(r *recorder, pid int, a [6]uint64) { r.refusePath(pid, cwd, a[1], "link") }
	unrecorded[unix.SYS_SYMLINK] = func(r *recorder, pid int, a [6]uint64) { r.refusePath(pid, cwd, a[1], "symlink") }
}
