package pool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where the guard finds its end of the socket, and a pipe with the specification of the children.
const (
	guardSocket = 3
	guardSpec   = 4
)

// inited says that Init has been called.
var inited bool

// Init must be called first in main by every program that runs a pool. In the guard process, which is the program run again,
// it does the guard's work and does not return. Everywhere else it does nothing.
func Init() {
	inited = true
	if os.Getenv(guardEnv) == "" {
		return
	}
	if err := guard(); err != nil {
		fmt.Fprintln(os.Stderr, "stint: the guard of a pool:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// guardian is the guard process: the parent of a pool's children. It has one thread and keeps it, as the kernel ties a child's
// fate to the thread that made it; and it waits in one place, for the pool and its children, as going from thread to thread for
// each of them took as long as starting a process does.
type guardian struct {
	socket  int
	epoll   int
	list    int // /proc/self/task/N/children, where orphans come to; -1: there is none
	spec    spec
	env     []string
	null    *os.File
	pids    map[int]int // of the children, by number
	kids    map[int]kid // by pid
	waiting []order     // starts, for as long as there are AtOnce children
	young   []youth     // that are not reported yet, the eldest first
	ended   []report    // in this round
	orphans bool        // there were some
	blind   bool        // this kernel does not tell of the end of a process
	buf     []byte
	oob     []byte
	out     [][]byte // packets of reports that have not been sent; at most two reports for each child
	since   time.Time
	full    bool // the socket was, and epoll is to tell when it is not
}

// kid is a child that was started.
type kid struct {
	number int
	pidfd  int // readable once it has ended; -1: none
}

// youth is a child that was started a moment ago. The pool is told of those that live for youthEnds: most that end sooner are
// in mode Exec, and one report is enough for them.
type youth struct {
	number int
	pid    int
	born   time.Time
}

const youthEnds = 2 * time.Millisecond

// reportWait is how long reports wait for others, while there are starts enough in the guard's hands that nobody waits for the
// pool. It, and the broker behind it, have less to do with several at a time.
const reportWait = 8 * time.Millisecond

func guard() error {
	runtime.LockOSThread()
	if err := os.Unsetenv(guardEnv); err != nil {
		return err
	}
	// What the terminal or a service manager sends to everyone is the pool's to act on. Ignoring would be inherited.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("becoming the reaper of orphans: %w", err)
	}
	unix.CloseOnExec(guardSocket)
	s, err := readSpec(guardSpec)
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	g := &guardian{
		socket: guardSocket, null: null, spec: s, env: mergeEnv(os.Environ(), s.Env), pids: map[int]int{}, kids: map[int]kid{},
		buf: make([]byte, maxOrder), oob: make([]byte, unix.CmsgSpace(maxFiles*4)),
	}
	return g.run()
}

// unixConn takes over a descriptor, which no child may have.
func unixConn(fd int) (*net.UnixConn, error) {
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "guard")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("the socket between pool and guard: %w", err)
	}
	return c.(*net.UnixConn), nil
}

// Waits of the guard: for orphans, whose end nobody reports, and for children on kernels that report none, in milliseconds.
const (
	orphanWait = 500
	blindWait  = 10
)

// run is the guard's loop: orders, ends, until the pool has ended, however that was.
func (g *guardian) run() error {
	defer g.endAll()
	var err error
	if g.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("waiting for orders: %w", err)
	}
	if g.list, err = unix.Open(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()), unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		g.list = -1
	}
	if err := g.await(g.socket); err != nil {
		return err
	}
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := unix.EpollWait(g.epoll, events, g.patience())
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("waiting for orders: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			if int(e.Fd) != g.socket || e.Events&^unix.EPOLLOUT == 0 {
				continue
			}
			if goOn, err := g.read(); !goOn {
				return err
			}
		}
		g.harvest()
		g.startWaiting()
		g.announce()
		if !g.holdsBack() {
			g.flush()
		}
	}
}

func (g *guardian) await(fd int) error {
	err := unix.EpollCtl(g.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	if err != nil {
		return fmt.Errorf("waiting for orders: %w", err)
	}
	return nil
}

// patience is how long there is nothing to do unless somebody says something, in milliseconds; -1: for ever.
func (g *guardian) patience() int {
	switch {
	case len(g.young) > 0 || len(g.out) > 0 && !g.full:
		return int(youthEnds / time.Millisecond)
	case g.blind && len(g.kids) > 0:
		return blindWait
	case g.orphans:
		return orphanWait
	}
	return -1
}

// read carries out orders. goOn is false when the pool says no more.
func (g *guardian) read() (goOn bool, err error) {
	n, oobn, _, _, err := unix.Recvmsg(g.socket, g.buf, g.oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return true, nil
	case err != nil || n == 0:
		return false, nil //nolint:nilerr // the pool has ended
	}
	files, err := received(g.oob[:oobn])
	if err != nil {
		return false, err
	}
	all, err := parseOrders(g.buf[:n], files)
	for _, o := range all {
		g.obey(o)
	}
	return err == nil, err
}

// readSpec reads what the children have in common.
func readSpec(fd int) (s spec, err error) {
	f := os.NewFile(uintptr(fd), "specification")
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSpec))
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		return s, fmt.Errorf("the specification of the children cannot be read: %w", err)
	}
	return s, nil
}

// received takes the descriptors out of a control message.
func received(oob []byte) ([]int, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("%d control messages came with an order: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, fmt.Errorf("the descriptors that came with an order: %w", err)
	}
	return fds, nil
}

// say has a report sent with others.
func (g *guardian) say(r report) {
	last := len(g.out) - 1
	if last < 0 {
		g.since = time.Now()
	}
	if last < 0 || len(g.out[last]) > maxPacket {
		g.out = append(g.out, nil)
		last++
	}
	g.out[last] = appendReport(g.out[last], &r)
}

// holdsBack says whether reports may wait.
func (g *guardian) holdsBack() bool {
	return len(g.out) == 1 && len(g.waiting) > len(g.kids) && time.Since(g.since) < reportWait
}

// flush sends what there is, as far as the pool takes it. To wait for the pool here could be to wait for each other.
func (g *guardian) flush() {
	for len(g.out) > 0 {
		err := unix.Sendto(g.socket, g.out[0], unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
		if errors.Is(err, unix.EAGAIN) {
			g.watchRoom(true)
			return
		}
		g.out = g.out[1:] // a pool that is gone is noticed by read
	}
	g.out = nil
	if g.full {
		g.watchRoom(false)
	}
}

// watchRoom has epoll tell when the socket takes more, or not any longer.
func (g *guardian) watchRoom(on bool) {
	e := &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(g.socket)}
	if on {
		e.Events |= unix.EPOLLOUT
	}
	g.full = on && unix.EpollCtl(g.epoll, unix.EPOLL_CTL_MOD, g.socket, e) == nil
	if !on {
		unix.EpollCtl(g.epoll, unix.EPOLL_CTL_MOD, g.socket, e) //nolint:errcheck // it costs a look too many
	}
}

func (g *guardian) obey(o order) {
	switch {
	case o.Start && g.spec.AtOnce > 0 && len(g.kids) >= g.spec.AtOnce:
		g.waiting = append(g.waiting, o)
	case o.Start:
		g.start(o)
	case g.pids[o.Child] != 0:
		unix.Kill(-g.pids[o.Child], o.Sig) //nolint:errcheck // it may be gone
	default:
		g.forget(o)
	}
}

// forget is a signal for a child that waits to be started: it will not be.
func (g *guardian) forget(o order) {
	i := slices.IndexFunc(g.waiting, func(w order) bool { return w.Child == o.Child })
	if i < 0 {
		return
	}
	g.waiting[i].close()
	g.waiting = slices.Delete(g.waiting, i, i+1)
	g.say(report{Child: o.Child, Ended: true, Signal: o.Sig})
}

// startWaiting starts who has waited for others to end.
func (g *guardian) startWaiting() {
	for len(g.waiting) > 0 && len(g.kids) < g.spec.AtOnce {
		o := g.waiting[0]
		g.waiting = slices.Delete(g.waiting, 0, 1)
		g.start(o)
	}
}

func (g *guardian) start(o order) {
	defer o.close()
	pid, pidfd, err := g.fork(o)
	if err != nil {
		g.say(report{Child: o.Child, Err: err.Error()})
		return
	}
	if pidfd < 0 || g.await(pidfd) != nil {
		g.blind = true
	}
	g.pids[o.Child], g.kids[pid] = pid, kid{number: o.Child, pidfd: pidfd}
	g.young = append(g.young, youth{number: o.Child, pid: pid, born: time.Now()})
}

// announce reports the children that are young no more.
func (g *guardian) announce() {
	if len(g.young) == 0 {
		return
	}
	grown := time.Now().Add(-youthEnds)
	i := 0
	for ; i < len(g.young); i++ {
		switch y := g.young[i]; {
		case g.pids[y.number] == 0: // it has ended
		case y.born.After(grown):
			g.young = slices.Delete(g.young, 0, i)
			return
		default:
			g.say(report{Child: y.number, PID: y.pid})
		}
	}
	g.young = g.young[:0]
}

func (g *guardian) fork(o order) (pid, pidfd int, err error) {
	if err := g.beNice(); err != nil {
		return 0, 0, err
	}
	files := make([]uintptr, len(o.Files))
	for i, place := range o.Files {
		files[i] = g.null.Fd()
		if place >= 0 {
			files[i] = uintptr(o.files[place])
		}
	}
	pidfd = -1
	env := append(g.env[:len(g.env):len(g.env)], o.Env...)
	if o.Timeout > 0 {
		env = append(env, envDeadline+"="+strconv.FormatInt(time.Now().Add(o.Timeout).UnixMilli(), 10))
	}
	attr := &syscall.ProcAttr{
		Dir: g.spec.Dir, Env: env, Files: files,
		Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, PidFD: &pidfd},
	}
	if u := g.spec.User; u != nil {
		attr.Sys.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
	}
	if pid, err = syscall.ForkExec(g.spec.Path, g.spec.Args, attr); err != nil {
		return 0, 0, fmt.Errorf("starting %s: %w", g.spec.Path, err)
	}
	return pid, pidfd, nil
}

// beNice sets the nice level of this thread once; children inherit it, so that none runs a moment without.
func (g *guardian) beNice() error {
	if g.spec.Nice == 0 {
		return nil
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, g.spec.Nice); err != nil {
		return fmt.Errorf("setting the nice level %d: %w", g.spec.Nice, err)
	}
	g.spec.Nice = 0
	return nil
}

// harvest reaps whatever has ended, and reports it when nothing is left of it.
func (g *guardian) harvest() {
	g.ended = g.ended[:0]
	for {
		pid, err := waitable()
		if err != nil || pid == 0 {
			break
		}
		g.reap(pid)
	}
	if len(g.ended) > 0 || g.orphans {
		g.sweep()
	}
	for _, r := range g.ended {
		g.say(r)
	}
}

// waitable finds a child that has ended and leaves it to be reaped: as long as it is there, the number of its group belongs to
// nobody else. 0: none has.
func waitable() (int, error) {
	var info [128]byte // siginfo_t: three numbers, then a union that begins with the pid, aligned as a pointer
	const pidAt = 12 + (unsafe.Sizeof(uintptr(0))/8)*4
	err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil)
	return int(*(*int32)(unsafe.Pointer(&info[pidAt]))), err
}

// reap takes a process out of the system, and ends the rest of its group before, if it is a child's.
func (g *guardian) reap(pid int) {
	k, known := g.kids[pid]
	if known {
		unix.Kill(-pid, unix.SIGKILL) //nolint:errcheck // there may be nobody left
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		return
	}
	if known {
		delete(g.kids, pid)
		delete(g.pids, k.number)
		if k.pidfd >= 0 {
			closeFD(k.pidfd)
		}
	}
	if known {
		g.ended = append(g.ended, ending(k.number, status))
	}
}

func ending(n int, status unix.WaitStatus) report {
	r := report{Child: n, Ended: true, Code: status.ExitStatus()}
	if status.Signaled() {
		r.Signal = status.Signal()
	}
	return r
}

// sweep kills orphans that left their group, if the child that they come from has ended: they have its number in their
// environment. The others may be somebody's helpers; they stay until the pool ends. Orphans come to the first thread.
func (g *guardian) sweep() {
	if g.list < 0 {
		return
	}
	n, err := unix.Pread(g.list, g.buf, 0)
	if err != nil {
		return
	}
	g.orphans = false
	for field := range bytes.FieldsSeq(g.buf[:n]) {
		pid, err := strconv.Atoi(string(field))
		if _, known := g.kids[pid]; known || err != nil {
			continue
		}
		g.orphans = true
		if n := numberOf(pid); n > 0 && g.pids[n] == 0 {
			unix.Kill(pid, unix.SIGKILL) //nolint:errcheck // it may be gone
		}
	}
}

// childrenOf lists the children of one thread of this process.
func childrenOf(thread int) []int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", thread))
	if err != nil {
		return nil
	}
	var pids []int
	for field := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(field); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// numberOf is the number of the child that a process comes from; 0: nobody knows.
func numberOf(pid int) int {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return 0
	}
	for entry := range strings.SplitSeq(string(env), "\x00") {
		if value, ok := strings.CutPrefix(entry, envChild+"="); ok {
			n, _ := strconv.Atoi(value)
			return n
		}
	}
	return 0
}

// endAll kills everything below this process until nothing is left. Whoever is orphaned by it comes to us and is next.
func (g *guardian) endAll() {
	for pid := range g.kids {
		unix.Kill(-pid, unix.SIGKILL) //nolint:errcheck // it may be gone
	}
	for {
		for _, pid := range allChildren() {
			unix.Kill(pid, unix.SIGKILL) //nolint:errcheck // it may be gone
		}
		if _, err := unix.Wait4(-1, nil, 0, nil); errors.Is(err, unix.ECHILD) {
			return
		}
	}
}

func allChildren() []int {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil
	}
	var pids []int
	for _, t := range threads {
		if thread, err := strconv.Atoi(t.Name()); err == nil {
			pids = append(pids, childrenOf(thread)...)
		}
	}
	return pids
}

// mergeEnv is base with more over it, without the variables that each child gets anew.
func mergeEnv(base, more []string) []string {
	var names []string
	values := map[string]string{}
	for _, entry := range append(base[:len(base):len(base)], more...) {
		name, _, _ := strings.Cut(entry, "=")
		if ownVariable(name) {
			continue
		}
		if _, known := values[name]; !known {
			names = append(names, name)
		}
		values[name] = entry
	}
	out := make([]string, len(names))
	for i, name := range names {
		out[i] = values[name]
	}
	return out
}
