package pool

import (
	"errors"
	"syscall"
	"time"
)

// guardEnv marks a process as a guard.
const guardEnv = "STINT_POOL_GUARD"

// ErrNoGuard is returned by [Pool.Run] in a program that does not call [Init].
var ErrNoGuard = errors.New("pool: this program does not call pool.Init at the start of main, which the pool's guard process needs")

// errGuardLost is why children are gone whose guard has died.
var errGuardLost = errors.New("the guard process of the pool has died")

// spec is what all children of a pool have in common. It is the first thing the guard is told.
type spec struct {
	Path string      `json:"path"` // of the program
	Args []string    `json:"args"`
	Env  []string    `json:"env"` // in addition to the pool's own
	Dir  string      `json:"dir"`
	Nice int         `json:"nice"`
	User *credential `json:"user,omitempty"`
	// AtOnce is how many children there may be; further starts wait in the guard for one to end. 0: any number.
	AtOnce int `json:"at_once"`
}

type credential struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"`
}

// order is what the pool tells the guard: start a child, or signal one and its whole group.
type order struct {
	Child   int
	Start   bool
	Sig     syscall.Signal
	Timeout time.Duration // for the variable with the deadline; 0: there is none
	Env     []string
	// Files are the child's descriptors from 0 on, as places among those that come with the order; -1 is /dev/null.
	Files []int

	files []int // ours, to be sent along and closed
}

// report is what the guard tells the pool. Of a child that ends soon there is only the second.
type report struct {
	Child  int
	PID    int    // it runs, and has for a while
	Err    string // it could not be started
	Ended  bool   // it and its group are gone
	Code   int
	Signal syscall.Signal
}

// maxSpec bounds the specification, in bytes; the kernel takes less as arguments and environment of a program.
const maxSpec = 8 << 20

// maxOrder bounds what goes through the socket at once, in bytes; the kernel's own limit is about 200 KB.
const maxOrder = 128 << 10
