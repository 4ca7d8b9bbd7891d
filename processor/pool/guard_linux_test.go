package pool

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A pool that does not read for a while keeps no guard from its work, and misses no report.
func TestGuardKeepsReportsThatThePoolDoesNotTake(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(pair[0])
	defer closeFD(pair[1])
	g := &guardian{socket: pair[0]}
	if g.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer closeFD(g.epoll)
	if err := g.await(g.socket); err != nil {
		t.Fatal(err)
	}
	said := 0
	for ; !g.full; said++ {
		if said > 1_000_000 {
			t.Fatal("the socket is never full")
		}
		g.say(report{Child: said, PID: 4711})
		g.flush()
	}
	for range 1000 {
		g.say(report{Child: said, PID: 4711})
		said++
	}
	heard, buf := 0, make([]byte, 2*maxPacket)
	for heard < said {
		n, err := unix.Read(pair[1], buf)
		if err != nil {
			t.Fatalf("%v after %d of %d reports", err, heard, said)
		}
		all, err := parseReports(buf[:n])
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if r.Child != heard {
				t.Fatalf("report %d is of child %d", heard, r.Child)
			}
			heard++
		}
		g.flush()
	}
	if g.full || len(g.out) > 0 {
		t.Errorf("%d packets are left, full: %v", len(g.out), g.full)
	}
}
