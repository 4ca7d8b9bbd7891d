package node

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// scripts starts a child with a directory of scripts.
func scripts(t *testing.T, o Options, texts map[string]string) *child {
	t.Helper()
	dir := tree(t, texts)
	if o.ScriptDir == "" {
		o.ScriptDir = "."
	}
	c := run(t, dir, o)
	c.want("ready")
	return c
}

func TestQWorkerScripts(t *testing.T) {
	const ping = `module.exports = function(payload, callback) { callback(null, payload); };`
	elsewhere := tree(t, map[string]string{"far.js": `module.exports = (payload, callback) => callback(null, 'far');`})
	c := scripts(t, Options{ScriptDir: "./jobs"}, map[string]string{
		"ping.js":          `module.exports = (payload, callback) => callback(null, 'not from the script directory');`,
		"jobs/ping.js":     ping,
		"jobs/sub/ping.js": `module.exports = (payload, callback) => setTimeout(callback, 1, null, {sub: payload});`,
		"jobs/empty.js":    `module.exports = (payload, callback) => callback();`,
		"jobs/count.js":    `let n = 0; module.exports = (payload, callback) => callback(null, ++n);`,
		"jobs/async.js":    `module.exports = async (payload, callback) => { await null; callback(null, 'async'); };`,
	})
	for _, tt := range []struct{ body, want string }{
		{`{"script":"ping","payload":{"a":"é"}}`, `done 1 {"a":"é"}`},
		{`{"script":"ping.js","payload":[1,null]}`, `done 1 [1,null]`},
		{`{"script":"./ping","payload":0}`, `done 1 0`},
		{`{"script":"ping"}`, `done 1 no body`},
		{`{"script":"sub/ping","payload":"x"}`, `done 1 {"sub":"x"}`},
		{`{"script":"empty"}`, `done 1 no body`},
		{`{"script":"async"}`, `done 1 "async"`},
		{`{"script":"count"}`, `done 1 1`},
		{`{"script":"count"}`, `done 1 2`},
		{`{"script":"` + filepath.Join(elsewhere, "far.js") + `"}`, `done 1 "far"`},
	} {
		c.send(work("1", tt.body))
		c.want(tt.want)
	}
	c.stop()
}

func TestQWorkerDefaultDirectoryIsTheWorkingOne(t *testing.T) {
	c := run(t, tree(t, map[string]string{"s.js": `module.exports = (p, cb) => cb(null, __dirname === process.cwd());`}), Options{Style: QWorker})
	c.want("ready")
	c.send(work("1", `{"script":"s"}`))
	c.want(`done 1 true`)
}

// One script for the whole pool: the body is the payload, as it is.
func TestQWorkerFixedScript(t *testing.T) {
	c := worker(t, Options{}, `module.exports = function(payload, callback) { console.log('run'); callback(null, [payload, typeof payload]); };`)
	for body, want := range map[string]string{`{"script":"x"}`: `[{"script":"x"},"object"]`, `"é"`: `["é","string"]`, `null`: `[null,"object"]`, ``: `[null,"undefined"]`} {
		c.send(work("1", body))
		c.want("done 1 " + want)
	}
	c.send(work("1", `{`))
	if l := c.read(); l.Type != "failed" {
		t.Errorf("a body that is no JSON: %s", l.brief())
	}
	c.stop()
	if got := c.stdout.String(); got != strings.Repeat("run\n", 4) {
		t.Errorf("printed was %q", got)
	}
}

func TestQWorkerErrors(t *testing.T) {
	texts := map[string]string{
		"error.js":  `module.exports = (p, cb) => cb(Object.assign(new Error('script error'), {code: 'EMINE', extra: {a: 1}}));`,
		"string.js": `module.exports = (p, cb) => cb('a string');`,
		"number.js": `module.exports = (p, cb) => setTimeout(cb, 1, 42);`,
		"throw.js":  `module.exports = (p, cb) => { throw new RangeError('thrown'); };`,
		"reject.js": `module.exports = async (p, cb) => { throw new Error('rejected'); };`,
		"syntax.js": `module.exports = (p, cb) => {`,
		"load.js":   `throw new Error('at load');`,
		"object.js": `module.exports = {};`,
		"good.js":   `module.exports = (p, cb) => cb(null, process.pid);`,
		"null.js":   `module.exports = (p, cb) => cb(0, 'fine');`,
	}
	c := scripts(t, Options{}, texts)
	c.send(work("1", `{"script":"good"}`))
	pid := c.read().text()
	for _, tt := range []struct{ script, want string }{
		{"error", "failed 1 script error"},
		{"string", "failed 1 a string"},
		{"number", "failed 1 42"},
		{"throw", "failed 1 thrown"},
		{"reject", "failed 1 rejected"},
		{"load", "failed 1 at load"},
		{"load", "failed 1 at load"},
		{"object", "failed 1 script object exports no function"},
		{"null", `done 1 "fine"`},
	} {
		c.send(work("1", `{"script":"`+tt.script+`"}`))
		c.want(tt.want)
	}
	for script, part := range map[string]string{"syntax": "Unexpected end of input", "missing": "Cannot find module"} {
		c.send(work("1", `{"script":"`+script+`"}`))
		if l := c.read(); l.Type != "failed" || !strings.Contains(l.Message, part) || l.Retry != nil {
			t.Errorf("script %s: %s", script, l.brief())
		}
	}
	c.send(work("1", `{"script":"good"}`))
	c.want("done 1 " + pid)
	c.stop()
}

func TestQWorkerErrorsAsReplies(t *testing.T) {
	c := scripts(t, Options{Errors: Reply}, map[string]string{
		"error.js":  `module.exports = (p, cb) => cb(Object.assign(new Error('script error'), {code: 'EMINE', extra: {a: 1}}));`,
		"string.js": `module.exports = (p, cb) => cb('a string');`,
	})
	c.send(work("1", `{"script":"error"}`), work("2", `{"script":"string"}`))
	for _, want := range []map[string]any{{"message": "script error", "code": "EMINE", "extra": map[string]any{"a": 1.0}}, {"message": "a string"}} {
		var reply struct{ Error map[string]any }
		l := c.read()
		if err := json.Unmarshal([]byte(l.text()), &reply); err != nil || l.Type != "done" {
			t.Fatalf("%s: %v", l.brief(), err)
		}
		stack, _ := reply.Error["stack"].(string)
		if !strings.HasPrefix(stack, "Error: "+want["message"].(string)) {
			t.Errorf("the stack is %q", stack)
		}
		delete(reply.Error, "stack")
		got, _ := json.Marshal(reply.Error)
		if expected, _ := json.Marshal(want); string(got) != string(expected) {
			t.Errorf("the error is %s, expected was %s", got, expected)
		}
	}
}

func TestQWorkerCodeOfAFailure(t *testing.T) {
	c := scripts(t, Options{}, map[string]string{"error.js": `module.exports = (p, cb) => cb(Object.assign(new Error('x'), {code: p}));`})
	c.send(work("1", `{"script":"error","payload":"EMINE"}`), work("2", `{"script":"error","payload":7}`), work("3", `{"script":"error"}`))
	for _, want := range []string{"EMINE", "7", ""} {
		if l := c.read(); l.Type != "failed" || l.Code != want {
			t.Errorf("%s with code %q, expected was %q", l.brief(), l.Code, want)
		}
	}
}

func TestQWorkerRefusesWhatNamesNoScript(t *testing.T) {
	c := scripts(t, Options{}, nil)
	for _, body := range []string{`{}`, `{"script":""}`, `{"script":7}`} {
		c.send(work("1", body))
		c.want(`failed 1 the body names no script: {"script":"name","payload":...} (rejected)`)
	}
}

func TestQWorkerPreloads(t *testing.T) {
	c := scripts(t, Options{Require: map[string]string{"mine": "./lib/mine.js", "osModule": "os", "pkg": "pkg"}}, map[string]string{
		"lib/mine.js":               `exports.name = 'mine';`,
		"node_modules/pkg/index.js": `module.exports = 'a package';`,
		"s.js":                      `const early = mine.name; module.exports = (p, cb) => cb(null, [early, typeof osModule.cpus, pkg]);`,
	})
	c.send(work("1", `{"script":"s"}`))
	c.want(`done 1 ["mine","function","a package"]`)
}

func TestQWorkerEval(t *testing.T) {
	c := scripts(t, Options{AllowEval: true}, map[string]string{"s.js": `module.exports = (p, cb) => cb(null, 'from the file');`})
	send := func(source string) {
		body, _ := json.Marshal(map[string]any{"script": "s", "payload": 5, "eval": source})
		c.send(work("1", string(body)))
	}
	for _, source := range []string{
		`function(payload, callback) { callback(null, payload + 1); }`,
		`(payload, callback) => callback(null, payload + 1);`,
		`(function() { const os = require('os'); return (payload, callback) => callback(null, payload + os.EOL.length) })()`,
		"(payload, callback) => callback(null, payload + 1) // a comment",
	} {
		send(source)
		c.want(`done 1 6`)
	}
	send(`function(`)
	if l := c.read(); l.Type != "failed" || !strings.HasPrefix(l.Message, "qworker eval error: ") {
		t.Errorf("source text that does not parse: %s", l.brief())
	}
	send(`undefinedName`)
	c.want(`failed 1 qworker eval error: undefinedName is not defined`)
	send(`7`)
	c.want(`failed 1 qworker eval error: the source text is no function`)
	c.send(work("1", `{"script":"s"}`))
	c.want(`done 1 "from the file"`)
	c.stop()
}

func TestQWorkerEvalIsOffByDefault(t *testing.T) {
	c := scripts(t, Options{}, nil)
	c.send(work("1", `{"script":"s","eval":"(p, cb) => cb()"}`))
	c.want(`failed 1 the item brings source text, which this pool does not allow (allow_eval) (rejected)`)
}

func TestQWorkerConfine(t *testing.T) {
	elsewhere := tree(t, map[string]string{"far.js": `module.exports = (p, cb) => cb(null, 'far');`})
	c := scripts(t, Options{Confine: true, ScriptDir: "jobs", NodeArgs: []string{"--preserve-symlinks"}}, map[string]string{
		"jobs/near.js": `module.exports = (p, cb) => cb(null, 'near');`,
		"near.js":      `module.exports = (p, cb) => cb(null, 'above');`,
	})
	if err := os.Symlink(filepath.Join(elsewhere, "far.js"), filepath.Join(c.cmd.Dir, "jobs/link.js")); err != nil {
		t.Fatal(err)
	}
	for script, want := range map[string]string{
		"near": `done 1 "near"`, filepath.Join(c.cmd.Dir, "jobs/near"): `done 1 "near"`,
		"../near": "", "link": "", filepath.Join(elsewhere, "far"): "",
	} {
		if want == "" {
			want = "failed 1 script " + script + " is outside the script directory, which this pool does not allow (confine)"
		}
		c.send(work("1", `{"script":"`+script+`"}`))
		c.want(want)
	}
}

// In the original the second call answers the next item.
func TestQWorkerCallingBackTwice(t *testing.T) {
	c := scripts(t, Options{}, map[string]string{
		"twice.js": `module.exports = (p, cb) => { cb(null, 1); setTimeout(cb, 10, null, 2); setTimeout(cb, 15, new Error('late')); };`,
		"wait.js":  `module.exports = (p, cb) => setTimeout(cb, 60, null, 'mine');`,
	})
	c.send(work("1", `{"script":"twice"}`), work("2", `{"script":"wait"}`))
	c.want("done 1 1")
	c.want(`done 2 "mine"`)
	if !c.logged("item 1 has been answered already") {
		t.Errorf("the second answer is not logged: %v", c.logs)
	}
}

func TestLockfile(t *testing.T) {
	look := `module.exports = (p, cb) => { const fs = require('fs'); const s = fs.statSync('lock'); cb(p && new Error(p), [Number(fs.readFileSync('lock', 'utf8')) === process.pid, s.mode & 0o777]); };`
	c := scripts(t, Options{}, map[string]string{"look.js": look})
	lock := filepath.Join(c.cmd.Dir, "lock")
	item := work("1", `{"script":"look","lockfile":"lock"}`)
	free := func(when string) {
		t.Helper()
		if _, err := os.Stat(lock); !os.IsNotExist(err) {
			t.Errorf("%s: the lock file is there: %v", when, err)
		}
	}

	c.send(item)
	c.want(`done 1 [true,384]`) // 0600
	free("after the item")
	c.send(work("1", `{"script":"look","lockfile":"lock","payload":"no"}`))
	c.want(`failed 1 no`)
	free("after a failed item")

	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(lock, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(strconv.Itoa(os.Getpid()))
	c.send(item)
	c.want("failed 1 " + lock + ": cannot break lock, process " + strconv.Itoa(os.Getpid()) + " exists")
	write(strconv.Itoa(deadProcess(t)) + "\n")
	c.send(item)
	c.want(`done 1 [true,384]`)
	free("after a lock of the dead")

	write("") // its holder has created it and not written its id yet
	c.send(item)
	c.want("failed 1 " + lock + ": cannot break lock, its holder is not written yet")
	old := time.Now().Add(-time.Minute)
	if err := os.Chtimes(lock, old, old); err != nil {
		t.Fatal(err)
	}
	c.send(item)
	c.want(`done 1 [true,384]`)
	c.stop()
}

// deadProcess gives the id of a process that has ended.
func deadProcess(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

// The lock of a child that is killed stays, and the next child takes it over.
func TestLockfileOfTheKilled(t *testing.T) {
	dir := tree(t, map[string]string{"m.js": `module.exports = function() { this.on('message', (m, send, finished) => { send(process.pid); if (!m.hang) finished(); }); };`})
	o := Options{Module: "./m.js", Lockfile: "lock"}
	c := run(t, dir, o)
	c.want("ready")
	c.send(work("1", `{"hang":true}`))
	c.read()
	d := run(t, dir, o)
	d.want("ready")
	d.send(work("2", `{}`))
	d.want("failed 2 " + filepath.Join(dir, "lock") + ": cannot break lock, process " + strconv.Itoa(c.cmd.Process.Pid) + " exists")
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Wait(); err == nil {
		t.Fatal("the child was killed and ended well")
	}
	c.exited = true
	d.send(work("2", `{}`))
	d.read()
	d.want(`done 2 {"finished":true}`)
	d.stop()
}

// Between the look at a lock of the dead and its removal another process may have taken it over.
func TestLockfileTakenOverByAnother(t *testing.T) {
	dir := tree(t, map[string]string{
		"first.js": `const fs = require('fs'); const write = fs.writeFileSync; fs.writeFileSync = (file, ...args) => {
			if (file.endsWith('.break')) write('lock', String(process.ppid));
			return write(file, ...args);
		};`,
		"m.js": `module.exports = (payload, callback) => callback(null, 'got the lock');`,
	})
	lock := filepath.Join(dir, "lock")
	if err := os.WriteFile(lock, []byte(strconv.Itoa(deadProcess(t))), 0o600); err != nil {
		t.Fatal(err)
	}
	c := run(t, dir, Options{Module: "m.js", Lockfile: "lock", Require: map[string]string{"first": "./first.js"}})
	c.want("ready")
	c.send(work("1", `{}`))
	c.want("failed 1 " + lock + ": cannot break lock, process " + strconv.Itoa(os.Getpid()) + " exists")
	if data, err := os.ReadFile(lock); err != nil || string(data) != strconv.Itoa(os.Getpid()) {
		t.Errorf("the other's lock is %q: %v", data, err)
	}
}

// Several children that find the same abandoned lock: at every moment at most one holds it.
func TestLockfileTakeOverRace(t *testing.T) {
	const children, rounds = 3, 15
	dir := tree(t, map[string]string{"s.js": `const fs = require('fs'); module.exports = (p, cb) => {
		fs.writeFileSync('inside', '', {flag: 'wx'});
		const until = Date.now() + 3; while (Date.now() < until);
		fs.unlinkSync('inside');
		cb(null, 'alone');
	};`})
	var all []*child
	for range children {
		c := run(t, dir, Options{Style: QWorker, Lockfile: "lock"})
		c.want("ready")
		all = append(all, c)
	}
	won := 0
	for range rounds {
		if err := os.WriteFile(filepath.Join(dir, "lock"), []byte(strconv.Itoa(deadProcess(t))), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			c.send(work("1", `{"script":"s"}`))
		}
		for _, c := range all {
			switch l := c.read(); {
			case l.Type == "done":
				won++
			case !strings.Contains(l.Message, "cannot break lock"):
				t.Fatalf("two children were inside: %s", l.brief())
			}
		}
	}
	if won < rounds {
		t.Errorf("of %d rounds only %d items got the lock", rounds, won)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "lock*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
