package node

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// install fetches packages with npm into a new directory, or skips the test and says so.
func install(t testing.TB, packages ...string) string {
	t.Helper()
	needNode(t)
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	args := append([]string{"install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--prefix", dir}, packages...)
	cmd := exec.CommandContext(ctx, "npm", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "npm_config_fetch_retries=0", "npm_config_update_notifier=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("SKIPPED, NOTHING WAS COMPARED WITH THE ORIGINAL: npm could not install %v: %v\n%s", packages, err, out)
	}
	return dir
}

// workload is a worker module and the messages it gets, in order.
type workload struct {
	Module   string   `json:"module"`
	Messages []string `json:"messages"`
}

// messages suit all modules: types known and unknown, the built-in one, characters of several bytes, no type at all.
var messages = []string{
	`{"type":"testMessage1","hello":"world"}`,
	`{"type":"testMessage2","hello":"rob","text":"é€😀","list":[1,null,{"a":true}]}`,
	`{"type":"qoper8-test","messageNo":3,"contents":{"hello":"world","a":12345}}`,
	`{"type":"pass","path":"/qoper8/pass","method":"GET","query":{"a":"1"}}`,
	`{"type":"fail","path":"/qoper8/fail"}`,
	`{"type":"non-express-message","path":"/other"}`,
	`{"type":"ewd-qoper8-express","path":"/qoper8/test","application":"qoper8","expressType":"test"}`,
	`{"no":"type"}`,
	`{"type":"testMessage1"}`,
}

// TestOriginalModules runs the example and test modules that the package brings under its own master and in a child, and
// compares every response. One of them, express-module, is in the dialect of 2016, which these masters cannot run any more;
// it does what express-module1 does, and must answer the same.
func TestOriginalModules(t *testing.T) {
	for version, modules := range map[string][]string{
		"3.18.1": {
			"examples/example-worker-module", "examples/express-module1", "examples/express-module2",
			"examples/express-module3", "examples/express-module4", "examples/test-workerModule1", "examples/test-workerModule2",
			"spec/integration/fixtures/workerModule1", "spec/integration/fixtures/workerModule2", "spec/unit/fixtures/worker-module",
			"spec/unit/fixtures/worker-sub-module.handler",
		},
		"3.13.0": {
			"lib/tests/example-worker-module", "lib/tests/express-module1", "lib/tests/express-module2",
			"lib/tests/express-module3", "lib/tests/express-module4", "lib/tests/test-workerModule1", "lib/tests/test-workerModule2",
		},
	} {
		t.Run(version, func(t *testing.T) {
			dir := install(t, "ewd-qoper8@"+version, "ewd-qoper8-express@3.25.3")
			loads := []workload{{Messages: messages}}
			for _, m := range modules {
				loads = append(loads, workload{Module: "ewd-qoper8/" + m, Messages: messages})
			}
			expected := original(t, dir, loads)
			for i, m := range modules {
				if before, ok := strings.CutSuffix(m, "express-module1"); ok {
					loads = append(loads, workload{Module: "ewd-qoper8/" + before + "express-module", Messages: messages})
					expected = append(expected, expected[i+1])
				}
			}
			for i, load := range loads {
				t.Run(load.Module, func(t *testing.T) {
					if diff := cmp.Diff(normal(expected[i]), normal(hosted(t, dir, load))); diff != "" {
						t.Errorf("responses of the original master (-) and here (+):\n%s", diff)
					}
				})
			}
		})
	}
}

// original gives the responses of the package's own master: for each workload, for each message.
func original(t *testing.T, dir string, loads []workload) [][][]string {
	t.Helper()
	work, result := filepath.Join(dir, "work.json"), filepath.Join(dir, "result.json")
	data, err := json.Marshal(loads)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(work, data, 0o600); err != nil {
		t.Fatal(err)
	}
	script, err := filepath.Abs("testdata/master.js")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", script, work, result)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("the original master: %v\n%s", err, out)
	}
	var responses [][][]string
	if data, err = os.ReadFile(result); err == nil {
		err = json.Unmarshal(data, &responses)
	}
	if err != nil || len(responses) != len(loads) {
		t.Fatalf("%d results of %d: %v", len(responses), len(loads), err)
	}
	return responses
}

// hosted gives the responses of a child.
func hosted(t *testing.T, dir string, load workload) [][]string {
	t.Helper()
	c := run(t, dir, Options{Module: load.Module})
	c.want("ready")
	responses := make([][]string, len(load.Messages))
	for i, m := range load.Messages {
		c.send(work(strconv.Itoa(i), m))
		for typ := ""; typ != "done"; {
			l := c.read()
			if typ = l.Type; typ != "done" && typ != "progress" {
				t.Fatalf("message %d: %s", i, l.brief())
			}
			responses[i] = append(responses[i], l.text())
		}
	}
	c.stop()
	return responses
}

var variable = regexp.MustCompile(`"time":"[^"]*"|"pid":\d+|from worker \d+`)

// normal takes out what differs between two runs of the same: process ids and times.
func normal(responses [][]string) [][]string {
	all := make([][]string, len(responses))
	for i, list := range responses {
		for _, s := range list {
			all[i] = append(all[i], variable.ReplaceAllString(s, `"variable"`))
		}
	}
	return all
}
