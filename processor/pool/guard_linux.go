package pool

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
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

// guardian is the guard process: the parent of a pool's children. All of it belongs to the goroutine of guard, which keeps its
// thread, as the kernel ties a child's fate to the thread that made it.
type guardian struct {
	conn   *net.UnixConn
	spec   spec
	env    []string
	null   *os.File
	pids   map[int]int // of the children, by number
	number map[int]int // of the children, by pid
	born   chan struct{}
	ended  chan int // pids that can be waited for
	reaped chan struct{}
}

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
	conn, err := unixConn(guardSocket)
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s, err := readSpec(guardSpec)
	if err != nil {
		return err
	}
	g := &guardian{
		spec: s, env: mergeEnv(os.Environ(), s.Env), conn: conn, null: null, pids: map[int]int{}, number: map[int]int{},
		born: make(chan struct{}, 1), ended: make(chan int), reaped: make(chan struct{}),
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

func (g *guardian) run() error {
	orders := make(chan order)
	wrong := make(chan error, 1)
	go func() { wrong <- g.read(orders) }()
	go g.watch()
	for {
		select {
		case o := <-orders:
			g.obey(o)
		case pid := <-g.ended:
			g.reap(pid)
			g.reaped <- struct{}{}
		case err := <-wrong:
			g.endAll()
			return err
		}
	}
}

// read passes on what the pool says until it says no more: it has ended, however that was.
func (g *guardian) read(orders chan<- order) error {
	buf, oob := make([]byte, maxOrder), make([]byte, unix.CmsgSpace(16*4))
	for {
		n, oobn, _, _, err := g.conn.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			return nil //nolint:nilerr // the pool has ended
		}
		var o order
		if err := json.Unmarshal(buf[:n], &o); err != nil {
			return fmt.Errorf("an order cannot be read: %w", err)
		}
		if o.files, err = received(oob[:oobn]); err != nil {
			return err
		}
		orders <- o
	}
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
	for _, fd := range fds {
		unix.CloseOnExec(fd)
	}
	return fds, nil
}

func (g *guardian) say(r report) {
	line, err := json.Marshal(r)
	if err != nil {
		panic(err) // plain values
	}
	g.conn.Write(line) //nolint:errcheck // a pool that is gone is noticed by read
}

func (g *guardian) obey(o order) {
	switch {
	case o.Start:
		g.start(o)
	case g.pids[o.Child] != 0:
		unix.Kill(-g.pids[o.Child], o.Sig) //nolint:errcheck // it may be gone
	}
}

func (g *guardian) start(o order) {
	defer func() {
		for _, fd := range o.files {
			closeFD(fd)
		}
	}()
	pid, err := g.fork(o)
	if err != nil {
		g.say(report{Child: o.Child, Err: err.Error()})
		return
	}
	g.pids[o.Child], g.number[pid] = pid, o.Child
	g.say(report{Child: o.Child, PID: pid})
	select {
	case g.born <- struct{}{}:
	default:
	}
}

func (g *guardian) fork(o order) (int, error) {
	if err := g.beNice(); err != nil {
		return 0, err
	}
	files := make([]uintptr, len(o.Files))
	for i, place := range o.Files {
		files[i] = g.null.Fd()
		if place >= 0 {
			files[i] = uintptr(o.files[place])
		}
	}
	attr := &syscall.ProcAttr{
		Dir: g.spec.Dir, Env: append(g.env[:len(g.env):len(g.env)], o.Env...), Files: files,
		Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	}
	if u := g.spec.User; u != nil {
		attr.Sys.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
	}
	pid, err := syscall.ForkExec(g.spec.Path, g.spec.Args, attr)
	if err != nil {
		return 0, fmt.Errorf("starting %s: %w", g.spec.Path, err)
	}
	return pid, nil
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

// watch finds processes that have ended and leaves them to be reaped by the owner: as long as they are there, their group's
// number belongs to nobody else.
func (g *guardian) watch() {
	for {
		pid, err := waitable()
		switch {
		case errors.Is(err, unix.ECHILD):
			<-g.born
		case err == nil:
			g.ended <- pid
			<-g.reaped
		}
	}
}

// waitable waits for a child that has ended and does not reap it.
func waitable() (int, error) {
	var info [128]byte // siginfo_t: three numbers, then a union that begins with the pid, aligned as a pointer
	const pidAt = 12 + (unsafe.Sizeof(uintptr(0))/8)*4
	err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOWAIT, nil)
	return int(*(*int32)(unsafe.Pointer(&info[pidAt]))), err
}

// reap ends what a child leaves behind and reports its end.
func (g *guardian) reap(pid int) {
	n, known := g.number[pid]
	if known {
		unix.Kill(-pid, unix.SIGKILL) //nolint:errcheck // there may be nobody left
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, 0, nil); err != nil {
		return
	}
	if known {
		delete(g.number, pid)
		delete(g.pids, n)
	}
	g.sweep()
	if known {
		g.say(ending(n, status))
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
	for _, pid := range childrenOf(os.Getpid()) {
		if g.number[pid] != 0 {
			continue
		}
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
	for pid := range g.number {
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
