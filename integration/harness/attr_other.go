//go:build !linux

package harness

import "syscall"

// childAttr has nothing to ask of the system here: processes are killed when their test ends, not when the test process
// is killed itself.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
