//go:build linux && (amd64 || arm64)

package powercut

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errNotPermitted: this system does not let us trace our own children.
var errNotPermitted = errors.New("ptrace is not permitted here")

// tracer runs programs under ptrace, one at a time. ptrace ties a traced program to one thread, which is the tracer's
// goroutine's alone; it owns threads and rec.
type tracer struct {
	rec    *recorder
	starts chan start
	kill   atomic.Bool // end the program between two operations

	threads map[int]*thread
	leader  int
}

// thread is a thread of the traced program.
type thread struct {
	call call // what it is in the middle of
	in   bool
}

// start asks for a program to be run.
type start struct {
	path   string
	args   []string
	env    []string
	stdout *os.File
	stderr *os.File
	begun  chan begun
}

type begun struct {
	pid   int
	err   error
	ended chan ended // gets one value, and is closed
}

// ended is how a program ended; err is the tracer's own trouble.
type ended struct {
	status unix.WaitStatus
	err    error
}

func newTracer(rec *recorder) *tracer {
	t := &tracer{rec: rec, starts: make(chan start), threads: map[int]*thread{}}
	go t.serve()
	return t
}

func (t *tracer) serve() {
	runtime.LockOSThread()
	for s := range t.starts {
		pid, err := t.spawn(s)
		b := begun{pid: pid, err: err, ended: make(chan ended, 1)}
		s.begun <- b
		if err == nil {
			b.ended <- t.follow(pid)
			close(b.ended)
		}
	}
}

// run starts a program and returns at once.
func (t *tracer) run(s start) begun {
	s.begun = make(chan begun)
	t.starts <- s
	return <-s.begun
}

// end kills the program at a moment at which no operation on the files is under way, so that none is missed.
func (t *tracer) end(pid int) error {
	t.kill.Store(true)
	return unix.Kill(pid, unix.SIGURG) // wakes the tracer; to a Go program it is a signal like many others
}

const traceOptions = unix.PTRACE_O_EXITKILL | unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE |
	unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC

func (t *tracer) spawn(s start) (int, error) {
	p, err := os.StartProcess(s.path, s.args, &os.ProcAttr{
		Env: s.env, Files: []*os.File{nil, s.stdout, s.stderr},
		Sys: &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL},
	})
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) {
		return 0, fmt.Errorf("%w: %w", errNotPermitted, err)
	}
	if err != nil {
		return 0, err
	}
	pid := p.Pid
	var ws unix.WaitStatus
	if _, err := wait(pid, &ws); err != nil {
		return 0, err
	}
	if err := unix.PtraceSetOptions(pid, traceOptions); err != nil {
		return 0, errors.Join(fmt.Errorf("%w: %w", errNotPermitted, err), unix.Kill(pid, unix.SIGKILL))
	}
	if _, err := syscallInfo(pid); err != nil {
		return 0, errors.Join(fmt.Errorf("%w: the kernel does not describe system calls: %w", errNotPermitted, err), unix.Kill(pid, unix.SIGKILL))
	}
	t.kill.Store(false)
	clear(t.threads)
	t.threads[pid], t.leader = &thread{}, pid
	return pid, unix.PtraceSyscall(pid, 0)
}

func wait(pid int, ws *unix.WaitStatus) (int, error) {
	for {
		got, err := unix.Wait4(pid, ws, unix.WALL, nil)
		if !errors.Is(err, unix.EINTR) {
			return got, err
		}
	}
}

// follow goes along with the program until it has ended.
func (t *tracer) follow(pid int) ended {
	for {
		var ws unix.WaitStatus
		tid, err := wait(-1, &ws)
		if err != nil {
			return ended{err: fmt.Errorf("wait for the traced program: %w", err)}
		}
		if ws.Exited() || ws.Signaled() {
			delete(t.threads, tid)
			if tid == pid {
				return ended{status: ws, err: t.rec.trouble}
			}
			continue
		}
		t.rec.stops++
		if err := t.stopped(tid, ws); err != nil && !errors.Is(err, unix.ESRCH) {
			return ended{err: errors.Join(err, unix.Kill(pid, unix.SIGKILL))}
		}
		if t.rec.trouble != nil || t.kill.Load() && t.quiet() {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return ended{err: err}
			}
		}
	}
}

// quiet says that no thread is in the middle of an operation on the files.
func (t *tracer) quiet() bool {
	for _, th := range t.threads {
		if th.in && th.call.files {
			return false
		}
	}
	return true
}

// stopped deals with one stop of a thread and lets it go on. When the program is to be killed, a thread that is about to
// begin an operation on the files is not let go on any more.
func (t *tracer) stopped(tid int, ws unix.WaitStatus) error {
	th, signal := t.threads[tid], 0
	switch sig := ws.StopSignal(); {
	case th == nil:
		t.threads[tid] = &thread{} // a new thread; its first stop is not a signal of its own
	case sig == unix.SIGTRAP|0x80:
		begins, err := t.syscallStop(tid, th)
		if err != nil {
			return err
		}
		if begins && th.call.files && t.kill.Load() {
			th.in = false
			return nil
		}
	case sig == unix.SIGTRAP && ws.TrapCause() > 0:
	default:
		signal = int(sig)
	}
	return unix.PtraceSyscall(tid, signal)
}

// syscallStop deals with the stop of a thread at the beginning or at the end of a system call.
func (t *tracer) syscallStop(tid int, th *thread) (begins bool, err error) {
	info, err := syscallInfo(tid)
	if err != nil {
		return false, err
	}
	switch info.Op {
	case unix.PTRACE_SYSCALL_INFO_ENTRY:
		th.in = true
		th.call = t.rec.enter(t.leader, int(info.entry().Nr), info.entry().Args)
		return true, nil
	case unix.PTRACE_SYSCALL_INFO_EXIT:
		if th.in && th.call.done != nil && info.exit().Value >= 0 {
			th.call.done(info.exit().Value)
		}
		th.in, th.call = false, call{}
	}
	return false, nil
}

// callInfo is struct ptrace_syscall_info, the same on every architecture.
type callInfo struct {
	Op     uint8
	_      [3]byte
	Arch   uint32
	IP, SP uint64
	Rest   [8]uint64
}

type entryInfo struct {
	Nr   uint64
	Args [6]uint64
}

type exitInfo struct {
	Value   int64
	IsError uint8
}

func (i *callInfo) entry() *entryInfo { return (*entryInfo)(unsafe.Pointer(&i.Rest)) }
func (i *callInfo) exit() *exitInfo   { return (*exitInfo)(unsafe.Pointer(&i.Rest)) }

func syscallInfo(tid int) (*callInfo, error) {
	var info callInfo
	_, _, errno := unix.RawSyscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(tid),
		unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	if errno != 0 {
		return nil, errno
	}
	return &info, nil
}
