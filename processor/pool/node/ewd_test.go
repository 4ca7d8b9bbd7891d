package node

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// echo is a worker module that answers with what it was sent.
const echo = `module.exports = function() { this.on('message', function(m, send, finished) { finished(m); }); };`

// worker starts a child with one module m.js and waits until it is ready.
func worker(t *testing.T, o Options, text string) *child {
	t.Helper()
	o.Module = "./m.js"
	c := run(t, tree(t, map[string]string{"m.js": text}), o)
	c.want("ready")
	return c
}

func TestEwdBothDialectsGiveTheWorker(t *testing.T) {
	for name, text := range map[string]string{
		"2016, this": `module.exports = function(worker) { worker.on('message', function(m) { this.hasFinished(m.type, {got: m.x}); }); };`,
		"2016, kept": `module.exports = function(worker) { worker.on('message', function(m) { worker.hasFinished(m.type, {got: m.x}); }); };`,
		"3.x":        `module.exports = function() { this.on('message', function(m, send, finished) { finished({got: m.x}); }); };`,
		"async":      `module.exports = function() { this.on('message', async function(m, send, finished) { await null; setTimeout(finished, 1, {got: m.x}); }); };`,
		"class":      `module.exports = class { constructor(worker) { worker.on('message', this.handle); } handle(m, send, finished) { finished({got: m.x}); } };`,
		"class this": `module.exports = class { constructor() { this.on('message', (m, send, finished) => this.handle(m, finished)); } handle(m, finished) { finished({got: m.x}); } };`,
		"class, two": `module.exports = class { constructor(worker, more) { worker.on('message', (m, send, finished) => finished({got: m.x})); } };`,
		"once":       `module.exports = function() { const again = () => this.once('message', (m, send, finished) => { again(); finished({got: m.x}); }); again(); };`,
		"own events": `module.exports = function() { this.on('mine', function(m, finished) { finished({got: m.x}); }); this.on('message', function(m, send, finished) { this.emit('mine', m, finished); }); };`,
		"sessions":   `module.exports = function() { this.on('message', function(m, send, finished) { this.left = m.x; this.read = () => this.left; finished({got: this.read()}); }); };`,
	} {
		t.Run(name, func(t *testing.T) {
			c := worker(t, Options{}, text)
			c.send(work("1", `{"type":"a","x":1}`), work("2", `{"type":"b","x":"é"}`))
			c.want(`done 1 {"type":"a","finished":true,"message":{"got":1}}`)
			c.want(`done 2 {"type":"b","finished":true,"message":{"got":"é"}}`)
			c.stop()
		})
	}
}

func TestEwdAnswers(t *testing.T) {
	c := worker(t, Options{}, `module.exports = function() {
		this.on('message', function(m, send, finished) {
			switch (m.type) {
			case 'nothing': return finished();
			case 'bare': return this.hasFinished(m.type);
			case 'returned': this.returnMessage('other', {n: 1}); return this.hasFinished(m.type, {n: 2});
			case 'socket': this.sendMessage('other', {n: 1}, 'socket7'); return finished({n: 2});
			case 'typed': send({type: 'replaced', n: 1}); return finished({type: 'kept', n: 2});
			case 'many': for (let n = 0; n < 3; n++) send({n}); return finished([1, null, 'x']);
			case 'own': return this.hasFinished('another', {n: 1});
			}
		});
	};`)
	for _, step := range []struct {
		typ  string
		want []string
	}{
		{"nothing", []string{`done 1 {"type":"nothing","finished":true}`}},
		{"bare", []string{`done 1 {"type":"bare","finished":true}`}},
		{"returned", []string{`progress 1 {"type":"other","finished":false,"message":{"n":1}}`, `done 1 {"type":"returned","finished":true,"message":{"n":2}}`}},
		{"socket", []string{`progress 1 {"type":"other","finished":false,"message":{"n":1},"socketId":"socket7"}`, `done 1 {"type":"socket","finished":true,"message":{"n":2}}`}},
		{"typed", []string{`progress 1 {"type":"replaced","finished":false,"message":{"n":1}}`, `done 1 {"type":"typed","finished":true,"message":{"type":"kept","n":2}}`}},
		{"many", []string{
			`progress 1 {"type":"many","finished":false,"message":{"n":0}}`, `progress 1 {"type":"many","finished":false,"message":{"n":1}}`,
			`progress 1 {"type":"many","finished":false,"message":{"n":2}}`, `done 1 {"type":"many","finished":true,"message":[1,null,"x"]}`,
		}},
		{"own", []string{`done 1 {"type":"another","finished":true,"message":{"n":1}}`}},
	} {
		c.send(work("1", `{"type":"`+step.typ+`"}`))
		for _, want := range step.want {
			c.want(want)
		}
	}
	c.stop()
}

func TestEwdTypes(t *testing.T) {
	t.Run("no handler", func(t *testing.T) {
		c := worker(t, Options{}, `module.exports = function() {};`)
		c.send(work("1", `{"type":"T"}`))
		c.want(`done 1 {"type":"T","finished":true,"message":{"error":"No handler found for T message"}}`)
	})
	for _, style := range []Style{EWD, Auto} {
		t.Run("no module, "+string(style), func(t *testing.T) {
			c := run(t, t.TempDir(), Options{Style: style})
			c.want("ready")
			c.send(work("1", `{"type":"T"}`))
			c.want(`done 1 {"type":"T","finished":true,"message":{"error":"No handler found for T message"}}`)
		})
	}
	t.Run("no module, older", func(t *testing.T) {
		c := run(t, t.TempDir(), Options{Style: EWDOld})
		c.want("ready")
		c.send(work("1", `{"type":"T"}`))
		c.want(`done 1 {"type":"T","finished":true}`)
	})
	t.Run("unknown", func(t *testing.T) {
		c := worker(t, Options{}, `module.exports = function() { this.on('message', function(m, send, finished) { this.emit('unknownMessage', m, send, finished); }); };`)
		c.send(work("1", `{"type":"T"}`))
		c.want(`done 1 {"type":"T","finished":true,"message":{"error":"No handler found for T message"}}`)
	})
	t.Run("unknown, handled", func(t *testing.T) {
		c := worker(t, Options{}, `module.exports = function() {
			this.on('message', function(m, send, finished) { this.emit('unknownMessage', m, send, finished); });
			this.on('unknownMessage', function(m, send, finished) { setTimeout(finished, 5, {mine: m.type}); });
		};`)
		c.send(work("1", `{"type":"T"}`), work("2", `{"type":"U"}`))
		c.want(`done 1 {"type":"T","finished":true,"message":{"mine":"T"}}`)
		c.want(`done 2 {"type":"U","finished":true,"message":{"mine":"U"}}`)
	})
	t.Run("the built-in one", func(t *testing.T) {
		c := worker(t, Options{}, echo)
		c.send(work("1", `{"type":"qoper8-test","messageNo":7,"contents":{"a":"é"}}`))
		c.want(`done 1 {"type":"qoper8-test","finished":true,"message":{"responseNo":7,"contents":{"a":"é"},"count":2}}`)
	})
	t.Run("control words from a sender control nothing", func(t *testing.T) {
		c := worker(t, Options{}, echo)
		c.send(work("1", `{"type":"qoper8-exit"}`), work("2", `{"type":"qoper8-start"}`))
		c.want(`done 1 {"type":"qoper8-exit","finished":true,"message":{"type":"qoper8-exit"}}`)
		c.want(`done 2 {"type":"qoper8-start","finished":true,"message":{"type":"qoper8-start"}}`)
	})
}

// members is a module that answers with all that a module may look at.
const members = `
const EventEmitter = require('events');
let started = 'never', countAtStart, readyAtStart;
module.exports = function() {
	this.on('start', function(isFirst) { started = isFirst; countAtStart = this.count; });
	this.on('message', function(m, send, finished) {
		finished({
			started, countAtStart, count: this.count, noOfMessages: this.noOfMessages, isFirst: this.isFirst, log: this.log, build: this.build,
			userDefined: this.userDefined, environment: this.environment, version: this.version(), upTime: this.upTime(),
			startTime: Date.now() - this.startTime, moduleName: this.moduleName, stats: this.getStats(), pid: process.pid,
			emitter: this instanceof EventEmitter, suppressed: this.suppressLog, started2: typeof this.hasStarted,
		});
	});
};`

func TestEwdMembers(t *testing.T) {
	for _, style := range []Style{EWD, EWDOld} {
		t.Run(string(style), func(t *testing.T) {
			c := worker(t, Options{Style: style, UserDefined: json.RawMessage(`{"db":{"name":"é"}}`)}, members)
			c.send(work("1", `{"type":"x"}`), work("2", `{"type":"x"}`))
			c.read()
			var reply struct{ Message map[string]any }
			if err := json.Unmarshal([]byte(c.read().text()), &reply); err != nil {
				t.Fatal(err)
			}
			checkMembers(t, reply.Message, style)
			c.stop()
		})
	}
}

func checkMembers(t *testing.T, m map[string]any, style Style) {
	t.Helper()
	for key, want := range map[string]any{
		"started": true, "countAtStart": 1.0, "count": 3.0, "noOfMessages": 3.0, "isFirst": false, "log": false,
		"moduleName": "ewd-qoper8 Worker Process", "emitter": true, "started2": "function",
	} {
		if m[key] != want {
			t.Errorf("%s is %v, expected was %v", key, m[key], want)
		}
	}
	if s, _ := json.Marshal([]any{m["userDefined"], m["environment"]}); string(s) != `[{"db":{"name":"é"}},{}]` {
		t.Errorf("userDefined and environment are %s", s)
	}
	if ms, ok := m["startTime"].(float64); !ok || ms < 0 || ms > 60_000 {
		t.Errorf("startTime lies %v ms back", m["startTime"])
	}
	if s, _ := m["version"].(string); !regexp.MustCompile(`^ewd-qoper8 Worker Process Build [\d.]+; \d+ \w+ \d+$`).MatchString(s) {
		t.Errorf("version() is %q", s)
	}
	stats, _ := m["stats"].(map[string]any)
	name := map[Style]string{EWD: "uptime", EWDOld: "upTime"}[style]
	for _, up := range []any{m["upTime"], stats[name]} {
		if s, _ := up.(string); !regexp.MustCompile(`^0 days 0:0\d:\d+$`).MatchString(s) {
			t.Errorf("the time since the start is %q", up)
		}
	}
	if stats["pid"] != m["pid"] || stats["noOfMessages"] != 3.0 || len(stats) != 4 {
		t.Errorf("getStats() gives %v", stats)
	}
	memory, _ := stats["memory"].(map[string]any)
	for _, key := range []string{"rss", "heapTotal", "heapUsed"} {
		if s, _ := memory[key].(string); !regexp.MustCompile(`^\d+\.\d\d$`).MatchString(s) {
			t.Errorf("memory.%s is %q", key, memory[key])
		}
	}
}

func TestEwdStartAndStop(t *testing.T) {
	c := prepare(t, tree(t, map[string]string{"m.js": `module.exports = function() {
		const has = this.hasStarted;
		this.hasStarted = function() { console.log('has started'); has.call(this); };
		this.on('start', function(isFirst) { console.log('start', isFirst, this.count); });
		this.on('message', function(m, send, finished) { setTimeout(finished, 20, 1); });
		this.on('stop', function() { console.log('stop', this.count); throw new Error('in vain'); });
		this.on('stop', async function() { await new Promise((r) => setTimeout(r, 700)); console.log('stopped slowly'); });
	};`}), Options{Module: "m.js"})
	c.begin()
	c.send(line{Type: "start", First: false}, work("1", `{"type":"x"}`), work("2", `{"type":"x"}`), line{Type: "stop"})
	c.want("ready")
	c.want(`done 1 {"type":"x","finished":true,"message":1}`)
	c.want(`done 2 {"type":"x","finished":true,"message":1}`)
	if code := c.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	want := "start false 1\nhas started\nstop 4\nstopped slowly\n"
	if got := c.stdout.String(); got != want {
		t.Errorf("printed was\n%s\nexpected was\n%s", got, want)
	}
	if !c.logged("in vain") {
		t.Error("the stop listener's failure is not logged")
	}
}

func TestEwdEndOfInputIsStop(t *testing.T) {
	c := worker(t, Options{}, `module.exports = function() {
		this.on('message', function(m, send, finished) { setTimeout(finished, 20, 1); });
		this.on('stop', function() { console.log('stop'); });
	};`)
	c.send(work("1", `{"type":"x"}`))
	c.in.Close()
	c.want(`done 1 {"type":"x","finished":true,"message":1}`)
	if code := c.exit(); code != 0 || c.stdout.String() != "stop\n" {
		t.Errorf("exit code %d, printed %q", code, c.stdout.String())
	}
}

func TestEwdExitLeavesAfterTheItem(t *testing.T) {
	c := worker(t, Options{}, `module.exports = function() {
		this.on('message', function(m, send, finished) { this.exit(); setTimeout(finished, 700, 'last'); });
		this.on('stop', function() { console.log('no stop event'); });
	};`)
	c.send(work("1", `{"type":"x"}`), work("2", `{"type":"x"}`))
	c.want(`done 1 {"type":"x","finished":true,"message":"last"}`)
	if code := c.exit(); code != 0 || c.stdout.String() != "" {
		t.Errorf("exit code %d, printed %q", code, c.stdout.String())
	}
}

func TestEwdLogIsQuietForCertainTypes(t *testing.T) {
	c := worker(t, Options{Log: true}, `module.exports = function() {
		this.on('start', function() { this.dontLog(['quiet']); this.suppressLog.hushed = true; });
		this.on('message', function(m, send, finished) { finished(this.log); });
	};`)
	for _, typ := range []string{"quiet", "loud", "hushed"} {
		c.send(work("1", `{"type":"`+typ+`"}`))
		c.want(`done 1 {"type":"` + typ + `","finished":true,"message":true}`)
	}
	c.stop()
	if got := c.stdout.String(); strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, `received message: {"type":"loud"}`+"\n") {
		t.Errorf("printed was %q", got)
	}
}

func TestEwdUnlocksTheSession(t *testing.T) {
	c := worker(t, Options{}, `module.exports = function() {
		this.on('start', function() { this.db = { unlock: (s) => { console.log('unlocked', s); } }; });
		this.on('message', function(m, send, finished) {
			if (m.lock) this.sessionLocked = m.lock;
			if (m.fail) throw new Error('no');
			if (m.bare) return this.hasFinished(m.type);
			finished();
			console.log('answered');
		});
	};`)
	c.send(work("1", `{"type":"x"}`), work("2", `{"type":"x","lock":"s2"}`), work("3", `{"type":"x","bare":true}`), work("4", `{"type":"x","lock":"s4","fail":true}`))
	c.want(`done 1 {"type":"x","finished":true}`)
	c.want(`done 2 {"type":"x","finished":true}`)
	c.want(`done 3 {"type":"x","finished":true}`)
	c.want(`failed 4 no`)
	c.stop()
	if got, want := c.stdout.String(), "answered\nunlocked s2\nanswered\nunlocked s4\n"; got != want {
		t.Errorf("printed was %q, expected was %q", got, want)
	}
}

func TestEwdModuleNames(t *testing.T) {
	handler := func(name string) string {
		return `function() { this.on('message', function(m, send, finished) { finished('` + name + `'); }); };`
	}
	dir := tree(t, map[string]string{
		"node_modules/pkg/index.js":       "exports.sub = " + handler("pkg.sub"),
		"node_modules/pkg/lib/deep.js":    "exports.sub = " + handler("pkg/lib/deep.sub") + "\nexports.other = 1",
		"node_modules/dotted.js/index.js": "module.exports = " + handler("dotted.js"),
		"plain.js":                        "module.exports = " + handler("plain"),
		"my.dir/my.module.js":             "module.exports = " + handler("my.module") + "module.exports.sub = " + handler("my.module sub"),
		"esm.mjs":                         "export default " + handler("esm"),
		"await.mjs":                       "await null; export default " + handler("await"),
		"transpiled.js":                   "exports.__esModule = true; exports.default = " + handler("transpiled"),
	})
	for _, tt := range []struct{ module, want string }{
		{"pkg.sub", "pkg.sub"},
		{"pkg/lib/deep.sub", "pkg/lib/deep.sub"},
		{"dotted.js", "dotted.js"},
		{"plain", "plain"},
		{"plain.js", "plain"},
		{"./plain.js", "plain"},
		{"./my.dir/my.module", "my.module"},
		{"./my.dir/my.module.js", "my.module"},
		{"my.dir/my.module.sub", "my.module sub"},
		{filepath.Join(dir, "my.dir/my.module"), "my.module"},
		{"esm.mjs", "esm"},
		{"await.mjs", "await"},
		{"transpiled", "transpiled"},
	} {
		t.Run(tt.module, func(t *testing.T) {
			c := run(t, dir, Options{Module: tt.module})
			c.want("ready")
			c.send(work("1", `{"type":"x"}`))
			c.want(`done 1 {"type":"x","finished":true,"message":"` + tt.want + `"}`)
			c.stop()
		})
	}
}

func TestEwdSeesAnOrdinaryProcess(t *testing.T) {
	c := worker(t, Options{NodeArgs: []string{"--max-old-space-size=200"}}, `module.exports = function() {
		this.on('message', function(m, send, finished) {
			finished([process.argv.slice(2), process.execArgv, Object.keys(process.env).filter((k) => /^STINT_NODE/.test(k)),
				['require', 'module', 'exports', '__filename', '__dirname', 'fs', 'path'].filter((k) => k in globalThis),
				typeof process, typeof console, typeof Buffer, require.main === module]);
		});
	};`)
	c.send(work("1", `{"type":"x"}`))
	c.want(`done 1 {"type":"x","finished":true,"message":[["./m.js"],["--max-old-space-size=200"],[],[],"object","object","function",false]}`)
}

func TestEwdMayForkItself(t *testing.T) {
	dir := tree(t, map[string]string{
		"m.js": `module.exports = function() { this.on('message', function(m, send, finished) {
			require('child_process').fork('./f.js').on('message', finished);
		}); };`,
		"f.js": `process.send({forked: true, variables: Object.keys(process.env).filter((k) => /^STINT_NODE/.test(k)).length});`,
	})
	c := run(t, dir, Options{Module: "./m.js"})
	c.want("ready")
	c.send(work("1", `{"type":"x"}`))
	c.want(`done 1 {"type":"x","finished":true,"message":{"forked":true,"variables":0}}`)
}

func TestReadOnlyDirectory(t *testing.T) {
	dir := tree(t, map[string]string{"m.js": echo})
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	c := prepare(t, dir, Options{Module: "m.js"})
	c.cmd.Env = append(c.cmd.Env, "TMPDIR=/nowhere")
	c.begin()
	c.send(line{Type: "start"})
	c.want("ready")
	c.stop()
}
