package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"stint/processor/pool"
	"stint/processor/pool/node"
)

// poolConfig is a pool of child processes, in the file and behind the flags of work. Times of 0 mean none.
type poolConfig struct {
	Address         string            `json:"address"`
	Name            string            `json:"name"`
	Mode            string            `json:"mode"`
	Command         []string          `json:"command"`
	Node            *node.Options     `json:"node,omitempty"`
	Children        int64             `json:"children"`
	MinChildren     int64             `json:"min_children"`
	Ahead           int64             `json:"ahead"`
	Stdio           bool              `json:"stdio"`
	Timeout         int64             `json:"timeout"`
	ExitTimeout     int64             `json:"exit_timeout"`
	StopTimeout     int64             `json:"stop_timeout"`
	IdleTimeout     int64             `json:"idle_timeout"`
	RollOver        int64             `json:"roll_over"`
	MaxUseCount     int64             `json:"max_use_count"`
	MaxMemory       int64             `json:"max_memory"`
	MaxOutput       int64             `json:"max_output"`
	MaxKills        int64             `json:"max_kills"`
	Nice            int64             `json:"nice"`
	Cwd             string            `json:"cwd"`
	Env             map[string]string `json:"env"`
	RunAs           string            `json:"run_as"`
	LockFile        string            `json:"lockfile"`
	MonitorInterval int64             `json:"monitor_interval"`
	ProcessTimeout  int64             `json:"process_timeout"`
	Subject         string            `json:"subject"`
}

// defaultPool takes the defaults from the pool package.
func defaultPool() poolConfig {
	return poolConfig{
		Mode: string(pool.Lines), Command: []string{}, Env: map[string]string{},
		Children: int64(min(runtime.NumCPU(), pool.MaxChildren)), Ahead: 1,
		Timeout: pool.DefaultTimeout.Milliseconds(), ExitTimeout: pool.DefaultExitTimeout.Milliseconds(),
		StopTimeout: pool.DefaultStopTimeout.Milliseconds(), MonitorInterval: pool.DefaultMonitorInterval.Milliseconds(),
		ProcessTimeout: processTimeoutDefault, MaxOutput: pool.DefaultMaxOutput, MaxKills: pool.DefaultMaxKills,
	}
}

// Ranges of a pool's numbers.
const maxPools = 1000

var (
	poolTimes    = span{0, longest, "milliseconds"}
	poolProcess  = span{processTimeoutLeast, longest, "milliseconds"}
	poolChildren = span{1, pool.MaxChildren, "children"}
	poolMinimum  = span{0, pool.MaxChildren, "children"}
	poolAhead    = span{1, pool.MaxAhead, "items"}
	poolUses     = span{0, 1 << 40, "items"}
	poolMemory   = span{0, mostBytes, "bytes"}
	poolOutput   = span{1, pool.MaxMaxOutput, "bytes"}
	poolKills    = span{0, 1 << 20, "children"}
	poolNice     = span{pool.MinNice, pool.MaxNice, "levels"}
)

// readPools reads the list of pools.
func readPools(top *object, c *config) {
	list, found := top.want("pools", "list", "a list of objects")
	if !found {
		return
	}
	if len(list.items) > maxPools {
		top.doc.report("pools", "has %d entries: give at most %d", len(list.items), maxPools)
		return
	}
	for i, item := range list.items {
		path := poolPath(i)
		top.doc.lines[path] = item.line
		if item.kind != "object" {
			top.doc.report(path, `must be an object such as {"address": "orders", "command": ["./worker"]}, not %s`, item)
			continue
		}
		o := top.doc.newObject(path, item)
		c.Pools = append(c.Pools, readPool(o))
		o.close()
	}
}

func poolPath(i int) string { return fmt.Sprintf("pools[%d]", i) }

func readPool(o *object) poolConfig {
	c := defaultPool()
	o.text("address", &c.Address, "the address of a queue", nil)
	o.text("name", &c.Name, `1 to 64 letters, digits, "_" and "-"`, func(s string) bool { return pool.CheckName(s) == nil })
	o.choice("mode", &c.Mode, string(pool.Lines), string(pool.Exec))
	o.texts("command", &c.Command, func(string) error { return nil })
	if _, given := o.members["node"]; given {
		c.Node = readNode(o.object("node"))
	} else {
		o.known = append(o.known, "node")
	}
	o.whole("children", &c.Children, poolChildren)
	c.MinChildren = c.Children
	o.whole("min_children", &c.MinChildren, poolMinimum)
	o.whole("ahead", &c.Ahead, poolAhead)
	o.yes("stdio", &c.Stdio)
	o.whole("timeout", &c.Timeout, poolTimes)
	o.whole("exit_timeout", &c.ExitTimeout, poolTimes)
	o.whole("stop_timeout", &c.StopTimeout, poolTimes)
	o.whole("idle_timeout", &c.IdleTimeout, poolTimes)
	o.whole("roll_over", &c.RollOver, poolTimes)
	o.whole("max_use_count", &c.MaxUseCount, poolUses)
	o.whole("max_memory", &c.MaxMemory, poolMemory)
	o.whole("max_output", &c.MaxOutput, poolOutput)
	o.whole("max_kills", &c.MaxKills, poolKills)
	o.whole("nice", &c.Nice, poolNice)
	o.text("cwd", &c.Cwd, "the name of a directory", validPath)
	o.words("env", &c.Env)
	o.text("run_as", &c.RunAs, "USER or USER:GROUP", nil)
	o.text("lockfile", &c.LockFile, fileRule, validPath)
	o.whole("monitor_interval", &c.MonitorInterval, poolTimes)
	o.whole("process_timeout", &c.ProcessTimeout, poolProcess)
	o.text("subject", &c.Subject, "a literal NATS subject", nil)
	return c
}

// checkRanges says which flag is out of the range of its key.
func (c *poolConfig) checkRanges() error {
	for _, r := range []struct {
		flag  string
		value int64
		span
	}{
		{"children", c.Children, poolChildren},
		{"min-children", c.MinChildren, span{0, c.Children, "children"}},
		{"ahead", c.Ahead, poolAhead},
		{"max-use-count", c.MaxUseCount, poolUses},
		{"max-memory", c.MaxMemory, poolMemory},
		{"max-output", c.MaxOutput, poolOutput},
		{"max-kills", c.MaxKills, poolKills},
		{"nice", c.Nice, poolNice},
		{"process-timeout", c.ProcessTimeout, poolProcess},
	} {
		if r.value < r.low || r.value > r.high {
			return fmt.Errorf("--%s must be a whole number of %s from %d to %d, not %d", r.flag, r.unit, r.low, r.high, r.value)
		}
	}
	return nil
}

// readNode reads the options of package node.
func readNode(o *object) *node.Options {
	var n node.Options
	o.text("module", &n.Module, "a path, a package, or package.property", nil)
	o.choice("style", (*string)(&n.Style), "auto", "ewd", "ewd-old", "qoper8", "qoper8-async", "qworker")
	o.text("node", &n.Node, "the name of a program", validPath)
	o.texts("node_args", &n.NodeArgs, func(string) error { return nil })
	o.text("script_dir", &n.ScriptDir, "the name of a directory", validPath)
	o.yes("confine", &n.Confine)
	o.words("require", &n.Require)
	o.text("lockfile", &n.Lockfile, fileRule, validPath)
	o.yes("allow_eval", &n.AllowEval)
	if v, given := o.take("user_defined"); given {
		n.UserDefined = v.json(nil)
	}
	o.yes("log", &n.Log)
	o.choice("errors", (*string)(&n.Errors), "fail", "reply")
	o.close()
	return &n
}

// yes takes true or false.
func (o *object) yes(key string, dst *bool) {
	if v, found := o.want(key, "boolean", "true or false"); found {
		*dst = v.text == "true"
	}
}

// words takes an object of strings.
func (o *object) words(key string, dst *map[string]string) {
	v, found := o.want(key, "object", "an object of strings")
	if !found {
		return
	}
	sub := o.doc.newObject(joinPath(o.path, key), v)
	out := make(map[string]string, len(sub.order))
	for _, name := range sub.order {
		m := sub.members[name].value
		if m.kind != "string" {
			sub.refuse(name, "a string", m)
			continue
		}
		out[name] = m.text
	}
	*dst = out
}

// json writes a value as it was read.
func (v value) json(b []byte) []byte {
	switch v.kind {
	case "object":
		b = append(b, '{')
		for i, m := range v.members {
			if i > 0 {
				b = append(b, ',')
			}
			b = m.value.json(append(quote(b, m.key), ':'))
		}
		return append(b, '}')
	case "list":
		b = append(b, '[')
		for i, item := range v.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = item.json(b)
		}
		return append(b, ']')
	case "string":
		return quote(b, v.text)
	}
	return append(b, v.text...)
}

func quote(b []byte, s string) []byte {
	text, _ := json.Marshal(s) //nolint:errcheck // a string
	return append(b, text...)
}

// checkPools finds what is wrong between keys.
func (d *document) checkPools(c *config) {
	addresses, names := c.addresses(), map[string]int{}
	for i := range c.Pools {
		p, path := &c.Pools[i], poolPath(i)
		switch {
		case p.Address == "":
			d.report(joinPath(path, "address"), "is missing: give the address of one of the queues")
		case c.NATS.URL == "" && !slices.Contains(addresses, p.Address):
			d.report(joinPath(path, "address"), "%q is none of the queues: %s", p.Address, suggest(p.Address, addresses))
		}
		if first, ok := names[p.Name]; ok && p.Name != "" {
			d.report(joinPath(path, "name"), "%q is the name of %s too: name another", p.Name, poolPath(first))
		}
		names[p.Name] = i
		d.checkPool(path, p)
	}
}

func (d *document) checkPool(path string, p *poolConfig) {
	switch {
	case p.Node != nil && len(p.Command) > 0:
		d.report(joinPath(path, "command"), "contradicts node: give one of the two")
	case p.Node == nil && len(p.Command) == 0:
		d.report(joinPath(path, "command"), `is missing: give a list such as ["python3", "worker.py"], or node`)
	case p.Node != nil && p.Mode == string(pool.Exec):
		d.report(joinPath(path, "mode"), "contradicts node, whose children live for many items: remove it")
	}
	if p.Node != nil {
		if err := p.Node.Validate(); err != nil {
			d.report(joinPath(path, "node"), "%v", err)
		}
	}
	if p.MinChildren > p.Children {
		d.report(joinPath(path, "min_children"), "is %d, more than children, %d: lower it, or raise that", p.MinChildren, p.Children)
	}
}

// checkPoolPrograms looks for the programs, directories and users of the pools.
func (c *config) checkPoolPrograms(file string) error {
	p := &problems{file: file}
	for i := range c.Pools {
		o, err := c.Pools[i].options()
		if err == nil {
			err = o.Check()
		}
		if err != nil {
			p.add(0, poolPath(i), "%s", strings.TrimPrefix(err.Error(), "pool: "))
		}
	}
	return p.err()
}

// The process timeout is the processor's to know.
const (
	processTimeoutDefault = int64(5 * time.Minute / time.Millisecond)
	processTimeoutLeast   = 30
)

// options is the pool as its package takes it, which has 0 for the default and less for none.
func (c *poolConfig) options() (pool.Options, error) {
	none := func(ms int64) time.Duration {
		if ms == 0 {
			return -1
		}
		return millis(ms)
	}
	least := func(n int64) int {
		if n == 0 {
			return -1
		}
		return int(n)
	}
	o := pool.Options{
		Address: c.Address, Name: c.Name, Mode: pool.Mode(c.Mode), Command: c.Command, Dir: c.Cwd, User: c.RunAs, Nice: int(c.Nice),
		Children: int(c.Children), MinChildren: least(c.MinChildren), Ahead: int(c.Ahead), Stdio: c.Stdio,
		Timeout: none(c.Timeout), ExitTimeout: none(c.ExitTimeout), StopTimeout: none(c.StopTimeout),
		IdleTimeout: millis(c.IdleTimeout), RollOver: millis(c.RollOver), MaxUseCount: int(c.MaxUseCount), MaxMemory: c.MaxMemory,
		MaxOutput: int(c.MaxOutput), MaxKills: least(c.MaxKills), LockFile: c.LockFile, MonitorInterval: none(c.MonitorInterval),
		ProcessTimeout: millis(c.ProcessTimeout), Subject: c.Subject,
	}
	for _, name := range slices.Sorted(maps.Keys(c.Env)) {
		o.Env = append(o.Env, name+"="+c.Env[name])
	}
	if c.Node == nil {
		return o, nil
	}
	if len(c.Command) > 0 {
		return o, fmt.Errorf("--node takes no command: %q", c.Command)
	}
	n := *c.Node
	n.MaxLine = o.MaxOutput
	argv, env, err := node.Command(n)
	o.Command, o.Env = argv, append(o.Env, env...)
	return o, err
}
