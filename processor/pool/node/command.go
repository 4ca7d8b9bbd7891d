package node

import (
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"sync"
)

//go:embed host/*.js
var files embed.FS

// host is the text of the bootstrap: the files in the order of their names, which is that of their sections.
var host = sync.OnceValue(func() string {
	names, err := fs.Glob(files, "host/*.js")
	if err != nil {
		panic(err)
	}
	var b strings.Builder
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			panic(err)
		}
		b.Write(text)
	}
	return b.String()
})

// The variables that carry the bootstrap and its options.
const (
	hostVariable    = "STINT_NODE_HOST"
	optionsVariable = "STINT_NODE_OPTIONS"
)

// loader is what node -e runs. It hands on its import, since compiled text has none of its own.
const loader = `require('vm').compileFunction(process.env.STINT_NODE_HOST,['require','load'],{filename:'stint-host.js'})(require,s=>import(s))`

// maxVariable is how much Linux takes as one string of the environment, in bytes, with the name and the final zero.
const maxVariable = 128 << 10

// wireOptions are the options as the bootstrap reads them.
type wireOptions struct {
	Options
	MaxLine int `json:"max_line,omitempty"`
}

// Command gives the command line of a child, and what its environment needs beside the variables that every child of a
// pool gets (STINT_IN, STINT_OUT, ...), as NAME=value. Both do for any number of children, and nothing has to be cleaned up.
//
// Errors: options that Validate refuses; options that do not fit into the environment (128 KiB); an error that wraps
// exec.ErrNotFound when there is no such program.
func Command(o Options) (argv, env []string, err error) {
	if err := o.Validate(); err != nil {
		return nil, nil, fmt.Errorf("node: %w", err)
	}
	name := o.Node
	if name == "" {
		name = "node"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, nil, fmt.Errorf("node: find the program of Node.js, name it or install it: %w", err)
	}
	data, err := json.Marshal(wireOptions{Options: o, MaxLine: o.MaxLine})
	if err != nil {
		return nil, nil, fmt.Errorf("node: write the options: %w", err)
	}
	env = []string{hostVariable + "=" + host(), optionsVariable + "=" + string(data)}
	if len(env[1]) >= maxVariable {
		return nil, nil, fmt.Errorf("node: the options take %d bytes of the environment, at most %d are possible: make user_defined smaller", len(env[1]), maxVariable-1)
	}
	argv = append([]string{path}, o.NodeArgs...)
	argv = append(argv, "-e", loader, "stint")
	if o.Module != "" {
		argv = append(argv, o.Module)
	}
	return argv, env, nil
}
