package harness

import "syscall"

// childAttr makes a child die with the test process, and puts it in a group of its own so that a Ctrl-C is not for it.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
