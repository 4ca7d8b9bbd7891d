package pool

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"stint/processor"
	"stint/wire"
)

// Mode is how a child gets its work.
type Mode string

// The modes.
const (
	// Lines: a child lives for many items and speaks the lines protocol, see the package comment.
	Lines Mode = "lines"
	// Exec: a process for each item, with the body as standard input and the reply as standard output.
	Exec Mode = "exec"
)

// Defaults and limits of [Options].
const (
	DefaultTimeout         = 5 * time.Minute
	DefaultExitTimeout     = 2 * time.Second
	DefaultStopTimeout     = 20 * time.Second
	DefaultMonitorInterval = 30 * time.Second
	DefaultMaxKills        = 3
	DefaultMaxOutput       = 8 << 20

	MaxChildren  = 1000
	MaxAhead     = 10_000
	MaxMaxOutput = 1 << 30
	MaxNice      = 19
	MinNice      = -20
)

// Options is what a pool is told. Address and Command are required. Times of zero mean the default, negative ones none at
// all, where that is said.
type Options struct {
	// Address is the queue's address.
	Address string
	// Name is the pool's, in the subject of its statistics and in its log: 1 to 64 letters, digits, "_" and "-". Default: the
	// host's name and the process id.
	Name string
	// Mode: default Lines.
	Mode Mode
	// Command is the program and its arguments. A name without a slash is looked up in PATH, once.
	Command []string
	// Env are variables of the children, as NAME=VALUE, beside those of this process and over them.
	Env []string
	// Dir is the children's working directory. Default: this process's.
	Dir string
	// User is the name or number of the user the children run as, with the user's groups; a group may follow after a colon. It
	// takes the right to change users. Default: this process's.
	User string
	// Nice is the children's nice level, -20 to 19. Below this process's it takes a right.
	Nice int

	// Children is how many there are at most, 1 to 1000. Default: the number of processors.
	Children int
	// MinChildren is how many there are at least. Default: Children, which makes the size fixed; negative: none.
	MinChildren int
	// Ahead is how many items a child may have been handed, 1 to 10,000. It still handles one at a time; the rest waits on its
	// side of the pipe, which spares a round trip for each. In mode Exec it is how many items for each child the pool may have
	// in hand; they wait for whichever process ends first. Default 1. Children times Ahead is at most wire.MaxCapacity.
	Ahead int
	// Stdio has the lines go through standard input and output instead of descriptors of their own.
	Stdio bool

	// Timeout is how long a child may have an item, unless the item's header Stint-Timeout says so; a sign of life from the
	// child starts it anew. Default 5 minutes; negative: no limit.
	Timeout time.Duration
	// ExitTimeout is how long a child has to end when it is told to, and again after SIGTERM, before SIGKILL. Default 2 seconds;
	// negative: none.
	ExitTimeout time.Duration
	// StopTimeout is how long items in hand may take once the pool is told to stop. Default 20 seconds; negative: none.
	StopTimeout time.Duration
	// IdleTimeout ends a child that has had no work for that long, down to MinChildren. Default: never.
	IdleTimeout time.Duration
	// RollOver replaces all children, one by one, every so often. Default: never.
	RollOver time.Duration
	// MaxUseCount is how many items a child handles before it is replaced. Default: any number.
	MaxUseCount int
	// MaxMemory is what a child and all processes below it may take, in bytes of resident memory, measured every second. A
	// child above it is replaced when it has finished what it holds; one half as much again above it is killed, and so is
	// any in mode Exec. Default: no limit.
	MaxMemory int64
	// MaxOutput bounds a line from a child, or the whole standard output in mode Exec, in bytes. Default 8 MiB.
	MaxOutput int
	// MaxKills is how many children in a row an item may bring to an end before it becomes a dead letter. Default 3;
	// negative: any number.
	MaxKills int
	// LockFile, if set, is created exclusively and holds this process's id while the pool runs. Run fails when it belongs to a
	// process that lives.
	LockFile string

	// MonitorInterval is how often the pool logs its statistics, if there was work. Default 30 seconds; negative: never.
	MonitorInterval time.Duration
	// ProcessTimeout is the queue's process timeout, for queues with one below half a minute; see package processor.
	ProcessTimeout time.Duration
	// Subject is where the broker sends work, see package processor.
	Subject string
	// OnRegister is called each time the broker has confirmed the registration. It must not block.
	OnRegister func()
	// Output gets what children print, in whole lines as far as they are not too long. It must be safe for use from several
	// goroutines. nil discards; the end of it is still part of the reason when a child fails.
	Output io.Writer
	// Logger: nil discards.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, to time.Duration) {
		switch {
		case *d == 0:
			*d = to
		case *d < 0:
			*d = 0
		}
	}
	set(&o.Timeout, DefaultTimeout)
	set(&o.ExitTimeout, DefaultExitTimeout)
	set(&o.StopTimeout, DefaultStopTimeout)
	set(&o.MonitorInterval, DefaultMonitorInterval)
	if o.Mode == "" {
		o.Mode = Lines
	}
	if o.Name == "" {
		o.Name = DefaultName()
	}
	if o.Children == 0 {
		o.Children = min(runtime.NumCPU(), MaxChildren)
	}
	switch {
	case o.MinChildren < 0:
		o.MinChildren = 0
	case o.MinChildren == 0:
		o.MinChildren = o.Children
	}
	o.Ahead = orDefault(o.Ahead, 1)
	o.MaxOutput = orDefault(o.MaxOutput, DefaultMaxOutput)
	o.MaxKills = orDefault(o.MaxKills, DefaultMaxKills)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Logger = o.Logger.With("pool", o.Name)
	return o
}

func orDefault(n, to int) int {
	if n == 0 {
		return to
	}
	return n
}

// DefaultName is one that no other pool has at this time.
func DefaultName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "host"
	}
	host, _, _ = strings.Cut(host, ".")
	host = notInName.ReplaceAllString(host, "_")
	return host[:min(len(host), 40)] + "-" + strconv.Itoa(os.Getpid())
}

var (
	notInName = regexp.MustCompile(`[^A-Za-z0-9_-]`)
	validName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
)

// CheckName says whether a pool can have this name.
func CheckName(name string) error {
	if !validName.MatchString(name) {
		return fmt.Errorf(`pool: the name %.80q must be 1 to 64 letters, digits, "_" and "-"`, name)
	}
	return nil
}

// Check says what is wrong with the options. It looks for the command, the directory and the user.
func (o Options) Check() error {
	o = o.withDefaults()
	_, err := o.spec()
	return errors.Join(o.validate(), err)
}

func (o Options) validate() error {
	if err := wire.CheckAddress(o.Address); err != nil {
		return fmt.Errorf("pool: Options.Address: %w", err)
	}
	if err := CheckName(o.Name); err != nil {
		return err
	}
	ranges := []struct {
		name           string
		value, min, to int64
	}{
		{"Children", int64(o.Children), 1, MaxChildren},
		{"MinChildren", int64(o.MinChildren), 0, int64(o.Children)},
		{"Ahead", int64(o.Ahead), 1, MaxAhead},
		{"Children times Ahead", int64(o.Children) * int64(o.Ahead), 1, wire.MaxCapacity},
		{"Nice", int64(o.Nice), MinNice, MaxNice},
		{"MaxOutput", int64(o.MaxOutput), 1, MaxMaxOutput},
		{"MaxUseCount", int64(o.MaxUseCount), 0, 1 << 40},
		{"MaxMemory", o.MaxMemory, 0, 1 << 50},
		{"IdleTimeout", int64(o.IdleTimeout), 0, int64(wire.MaxTimeout)},
		{"RollOver", int64(o.RollOver), 0, int64(wire.MaxTimeout)},
	}
	for _, r := range ranges {
		if r.value < r.min || r.value > r.to {
			return fmt.Errorf("pool: Options.%s is %d: it must be %d to %d", r.name, r.value, r.min, r.to)
		}
	}
	return o.validateMode()
}

func (o Options) validateMode() error {
	switch {
	case o.Mode != Lines && o.Mode != Exec:
		return fmt.Errorf("pool: Options.Mode is %q: it must be %q or %q", o.Mode, Lines, Exec)
	case o.Mode == Exec && (o.Stdio || o.MaxUseCount > 0 || o.RollOver > 0 || o.IdleTimeout > 0):
		return errors.New("pool: Stdio, MaxUseCount, RollOver and IdleTimeout have no effect in mode exec, where each item has a process of its own")
	}
	return nil
}

// spec looks up what the guard must know.
func (o Options) spec() (spec, error) {
	s := spec{Args: o.Command, Env: o.Env, Dir: o.Dir, Nice: o.Nice}
	if o.Mode == Exec {
		s.AtOnce = o.Children
	}
	if len(o.Command) == 0 || o.Command[0] == "" {
		return s, errors.New("pool: Options.Command is empty: it names the program of the children")
	}
	if o.Dir != "" {
		if info, err := os.Stat(o.Dir); err != nil || !info.IsDir() {
			return s, fmt.Errorf("pool: the directory of the children, %s, is not there", o.Dir)
		}
	}
	for _, entry := range o.Env {
		if name, _, ok := strings.Cut(entry, "="); !ok || name == "" || ownVariable(name) {
			return s, fmt.Errorf("pool: the variable %.80q must be NAME=VALUE, and its name none that the pool sets itself", entry)
		}
	}
	var err error
	if s.Path, err = program(o.Command[0], o.Dir); err != nil {
		return s, err
	}
	s.User, err = lookUpUser(o.User)
	return s, err
}

// program finds the command. A relative one with a slash is looked for where the child will look for it: in its directory.
func program(name, dir string) (string, error) {
	at := name
	if strings.Contains(name, "/") && !filepath.IsAbs(name) && dir != "" {
		at = filepath.Join(dir, name)
	}
	path, err := exec.LookPath(at)
	if err != nil {
		return "", fmt.Errorf("pool: the command cannot be run: %w", err)
	}
	if at != name {
		return name, nil
	}
	if !filepath.IsAbs(path) && dir == "" {
		return path, nil
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", fmt.Errorf("pool: the command cannot be found: %w", err)
	}
	return path, nil
}

// lookUpUser reads USER or USER:GROUP, each a name or a number.
func lookUpUser(name string) (*credential, error) {
	if name == "" {
		return nil, nil //nolint:nilnil // nobody else
	}
	who, group, _ := strings.Cut(name, ":")
	u, err := user.Lookup(who)
	if err != nil {
		u, err = user.LookupId(who)
	}
	if err != nil {
		return nil, fmt.Errorf("pool: the user %q of the children is not known here", who)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("pool: the groups of user %q: %w", who, err)
	}
	gid := u.Gid
	if group != "" {
		g, err := user.LookupGroup(group)
		if err != nil {
			g, err = user.LookupGroupId(group)
		}
		if err != nil {
			return nil, fmt.Errorf("pool: the group %q of the children is not known here", group)
		}
		gid = g.Gid
	}
	return numbers(u.Uid, gid, ids)
}

func numbers(uid, gid string, groups []string) (*credential, error) {
	all := make([]uint32, 0, len(groups)+2)
	for _, s := range append([]string{uid, gid}, groups...) {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("pool: %q is no number of a user or group", s)
		}
		all = append(all, uint32(n))
	}
	return &credential{UID: all[0], GID: all[1], Groups: all[2:]}, nil
}

// capacity is how many items the pool may be given at once.
func (o Options) capacity() int {
	return o.Children * o.Ahead
}

// forProcessor are the options of the processor that the pool stands on.
func (o Options) forProcessor() processor.Options {
	drain := o.StopTimeout
	if drain == 0 {
		drain = -1
	}
	return processor.Options{
		Address: o.Address, Subject: o.Subject, Capacity: o.capacity(), ProcessTimeout: o.ProcessTimeout,
		MaxHandle:    -1, // the time limits are ours
		DrainTimeout: drain, OnRegister: o.OnRegister, Logger: o.Logger,
	}
}

// The variables that each child gets.
const (
	envQueue    = "STINT_QUEUE"
	envChild    = "STINT_CHILD"
	envProtocol = "STINT_PROTOCOL"
	envIn       = "STINT_IN"
	envOut      = "STINT_OUT"
	envID       = "STINT_ID"
	envAttempt  = "STINT_ATTEMPT"
	envDeadline = "STINT_DEADLINE"
)

func ownVariable(name string) bool {
	switch name {
	case envQueue, envChild, envProtocol, envIn, envOut, envID, envAttempt, envDeadline, guardEnv:
		return true
	}
	return false
}
