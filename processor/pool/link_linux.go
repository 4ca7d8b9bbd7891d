package pool

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// guardEnd is how long a guard may take to end once it has no children left to wait for.
const guardEnd = 5 * time.Second

// link is the pool's end of a guard. Orders may come from one goroutine only, the owner's; reports go to one function.
type link struct {
	cmd    *exec.Cmd
	conn   *net.UnixConn
	orders chan order
	sent   chan struct{} // closed when the sending goroutine has ended
	read   chan struct{} // likewise the reading one
}

// startGuard runs this program again as a guard. hear is called for what it reports and, with nil, at the guard's end.
func startGuard(s spec, room int, hear func([]report)) (*link, error) {
	if !inited {
		return nil, ErrNoGuard
	}
	first, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("pool: the specification of the children: %w", err)
	}
	if len(first) > maxSpec {
		return nil, fmt.Errorf("pool: command and environment of the children take %d bytes, which is more than %d", len(first), maxSpec)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("pool: making a socket for the guard: %w", err)
	}
	far := os.NewFile(uintptr(pair[1]), "guard")
	defer far.Close()
	conn, err := unixConn(pair[0])
	if err != nil {
		return nil, err
	}
	theirs, ours, err := os.Pipe()
	if err != nil {
		conn.Close() //nolint:errcheck // unused
		return nil, fmt.Errorf("pool: making a pipe for the guard: %w", err)
	}
	defer theirs.Close()
	cmd := exec.Command("/proc/self/exe", "pool-guard")
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), guardEnv+"=1")
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, []*os.File{far, theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		conn.Close() //nolint:errcheck // unused
		ours.Close()
		return nil, fmt.Errorf("pool: starting the guard: %w", err)
	}
	l := &link{cmd: cmd, conn: conn, orders: make(chan order, room), sent: make(chan struct{}), read: make(chan struct{})}
	go func() {
		ours.Write(first) //nolint:errcheck // a guard that is gone is noticed otherwise
		ours.Close()
		l.send()
	}()
	go l.listen(hear)
	return l, nil
}

// send passes the orders on. When the guard is gone they come to nothing; listen says so.
func (l *link) send() {
	defer close(l.sent)
	var err error
	var packet []byte
	var files []int
	for o := range l.orders {
		runtime.Gosched() // whoever is about to say something too shares the packet
		for packet, files = packet[:0], files[:0]; ; {
			packet, files = appendOrder(packet, &o), append(files, o.files...)
			if len(l.orders) == 0 || len(packet) > maxPacket || len(files) > maxFiles-maxOwnFiles {
				break
			}
			o = <-l.orders
		}
		if err == nil {
			err = l.pass(packet, files)
		}
		(&order{files: files}).close() // the children's ends, which the guard has
	}
}

func closeFD(fd int) { unix.Close(fd) } //nolint:errcheck // a descriptor that was only read or never used

func (l *link) pass(packet []byte, files []int) error {
	var rights []byte
	if len(files) > 0 {
		rights = unix.UnixRights(files...)
	}
	_, _, err := l.conn.WriteMsgUnix(packet, rights, nil)
	return err
}

func (l *link) listen(hear func([]report)) {
	defer close(l.read)
	buf := make([]byte, 2*maxPacket)
	for {
		n, err := l.conn.Read(buf)
		if err != nil || n == 0 {
			hear(nil)
			return
		}
		if all, err := parseReports(buf[:n]); err == nil {
			hear(all)
		}
	}
}

// close is for an order that has been carried out, or that nobody will.
func (o *order) close() {
	for _, fd := range o.files {
		closeFD(fd)
	}
}

// close lets the guard end, with all that is left below it.
func (l *link) close() {
	close(l.orders)
	<-l.sent
	unblock := time.AfterFunc(guardEnd, func() {
		l.cmd.Process.Kill() //nolint:errcheck // it may be gone
	})
	defer unblock.Stop()
	l.conn.CloseWrite() //nolint:errcheck // it may be gone
	<-l.read
	l.conn.Close() //nolint:errcheck // likewise
	l.cmd.Wait()   //nolint:errcheck // how it ended does not matter any more
}

// newPipe makes a pipe that no other program gets.
func newPipe(fds []int) error { return unix.Pipe2(fds, unix.O_CLOEXEC) }

// unread is how much of what was written into a pipe nobody has read.
func unread(f *os.File) int64 {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	err = raw.Control(func(fd uintptr) {
		if got, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ); err == nil {
			n = got
		}
	})
	if err != nil {
		return 0
	}
	return int64(n)
}
