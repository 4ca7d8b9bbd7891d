package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Style is the system that a module was written for.
type Style string

// The styles. Auto looks: no module but a script directory is QWorker; a module that registers a handler with
// require('qoper8') is QOper8; of the others, an exported function with two or more parameters is QWorker, one with one
// parameter, the worker, is EWDOld, any other is EWD. No module and no script directory is EWD too.
const (
	Auto        Style = "auto"
	EWD         Style = "ewd"          // ewd-qoper8 of 2017 and later
	EWDOld      Style = "ewd-old"      // ewd-qoper8 of its 2016 guide, up to 3.13
	QOper8      Style = "qoper8"       // Q-Oper8; the module says itself whether it is asynchronous
	QOper8Async Style = "qoper8-async" // Q-Oper8, with a callback whatever the module says
	QWorker     Style = "qworker"
)

// Errors says what a sender gets when a handler fails.
type Errors string

const (
	// Fail makes it a failed attempt: the item is tried again and ends as a dead letter.
	Fail Errors = "fail"
	// Reply makes the error the final reply, in the form of the original system. Nothing is tried again.
	Reply Errors = "reply"
)

// Options of the children of a pool. The JSON names are those of a configuration file.
type Options struct {
	// Module is a path (relative to the children's working directory), the name of a package, or package.property. It may
	// be empty for QWorker, whose items then name their script, and for EWD, which answers as the original does then.
	Module string `json:"module,omitempty"`
	// Style of the module; empty is Auto.
	Style Style `json:"style,omitempty"`
	// Node is the program; empty is "node", looked up in PATH.
	Node string `json:"node,omitempty"`
	// NodeArgs go before everything else, for example --max-old-space-size=256 (megabytes).
	NodeArgs []string `json:"node_args,omitempty"`
	// ScriptDir is where QWorker looks for scripts; empty is the working directory.
	ScriptDir string `json:"script_dir,omitempty"`
	// Confine refuses scripts outside ScriptDir, by an absolute path or a symbolic link too.
	Confine bool `json:"confine,omitempty"`
	// Require is loaded before the module: name of the global to path or package.
	Require map[string]string `json:"require,omitempty"`
	// Lockfile is held while an item is handled, unless the item names its own; empty is none.
	Lockfile string `json:"lockfile,omitempty"`
	// AllowEval lets the items of QWorker bring their own source text.
	AllowEval bool `json:"allow_eval,omitempty"`
	// UserDefined is the worker's userDefined, any JSON value.
	UserDefined json.RawMessage `json:"user_defined,omitempty"`
	// Log is the worker's log: modules print more, and each item is printed as it comes.
	Log bool `json:"log,omitempty"`
	// Errors says what the sender gets of a failure; empty is Fail.
	Errors Errors `json:"errors,omitempty"`
	// MaxLine is the longest line in bytes that the pool takes; an answer beyond it fails its item, which is not tried
	// again. 0 is no limit. The pool sets it, so it has no place in a configuration file.
	MaxLine int `json:"-"`
}

// Validate says what is wrong with the options, naming the key of the configuration. It looks at no file.
func (o Options) Validate() error {
	styles := []Style{"", Auto, EWD, EWDOld, QOper8, QOper8Async, QWorker}
	switch {
	case !slices.Contains(styles, o.Style):
		return fmt.Errorf("style is %q: use auto, ewd, ewd-old, qoper8, qoper8-async or qworker", o.Style)
	case !slices.Contains([]Errors{"", Fail, Reply}, o.Errors):
		return fmt.Errorf("errors is %q: use fail or reply", o.Errors)
	case o.Module == "" && (o.Style == QOper8 || o.Style == QOper8Async):
		return fmt.Errorf("module is missing: style %s needs one", o.Style)
	case len(o.UserDefined) > 0 && !json.Valid(o.UserDefined):
		return errors.New("user_defined is not JSON")
	case o.MaxLine < 0:
		return fmt.Errorf("the longest line is %d bytes: use 0 for no limit", o.MaxLine)
	}
	for _, name := range slices.Sorted(maps.Keys(o.Require)) {
		if name == "" || o.Require[name] == "" {
			return fmt.Errorf("require has %q for the name %q: both must be given", o.Require[name], name)
		}
	}
	return nil
}
