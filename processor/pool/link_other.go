//go:build unix && !linux

package pool

import (
	"errors"
	"os"
)

var errSystem = errors.New("pool: pools of child processes need Linux: no other system lets a parent see to it that nothing is left behind")

// Init must be called first in main by every program that runs a pool. On this system it does nothing.
func Init() {}

// link is never there.
type link struct{ orders chan order }

func startGuard(spec, int, func([]report)) (*link, error) { return nil, errSystem }

func (*order) close() {}

func (*link) close() {}

func closeFD(int) {}

func newPipe([]int) error { return errSystem }

func unread(*os.File) int64 { return 0 }
