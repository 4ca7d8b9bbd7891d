package node

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestLinesTenThousandItemsInOneWrite(t *testing.T) {
	const n = 10_000
	for name, text := range map[string]string{
		"synchronous":  echo,
		"asynchronous": `module.exports = function() { this.on('message', async (m, send, finished) => { await null; finished(m); }); };`,
		"immediate":    `module.exports = function() { this.on('message', (m, send, finished) => { setImmediate(finished, m); }); };`,
	} {
		t.Run(name, func(t *testing.T) {
			c := worker(t, Options{}, text)
			lines := make([]line, n)
			for i := range lines {
				lines[i] = work(fmt.Sprint(i), fmt.Sprintf(`{"type":"t","n":%d}`, i))
			}
			go c.send(append(lines, line{Type: "stop"})...)
			for i := range n {
				c.want(fmt.Sprintf(`done %d {"type":"t","finished":true,"message":{"type":"t","n":%d}}`, i, i))
			}
			if code := c.exit(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

func TestLinesHugeBodies(t *testing.T) {
	c := worker(t, Options{}, echo)
	for _, size := range []int{65_000, 65_536, 200_000, 20 << 20} {
		body := `{"type":"t","text":"` + strings.Repeat("aé€😀", size/10) + `"}`
		go c.send(work("1", body), work("2", `{"type":"small"}`))
		c.want(`done 1 {"type":"t","finished":true,"message":` + body + `}`)
		c.want(`done 2 {"type":"small","finished":true,"message":{"type":"small"}}`)
	}
	c.stop()
}

// A child that is slower than the pool writes leaves the rest in the pipe, and goes on reading afterwards.
func TestLinesReadingPauses(t *testing.T) {
	for name, tt := range map[string]struct{ items, size, atMost int }{
		"large": {100, 1 << 20, 20},
		"small": {6000, 10, 4000},
	} {
		t.Run(name, func(t *testing.T) {
			c := worker(t, Options{}, `module.exports = function() { this.on('message', (m, send, finished) => { if (m.text) finished(); else setTimeout(finished, 500); }); };`)
			c.send(work("first", `{}`))
			body := `{"text":"` + strings.Repeat("x", tt.size) + `"}`
			sent := make(chan int, tt.items)
			go func() {
				for i := range tt.items {
					c.send(work(fmt.Sprint(i), body))
					sent <- i
				}
			}()
			c.want(`done first {"finished":true}`)
			if n := len(sent); n > tt.atMost {
				t.Errorf("%d items were taken from the pipe at once", n)
			}
			for i := range tt.items {
				c.want(fmt.Sprintf(`done %d {"finished":true}`, i))
			}
			c.stop()
		})
	}
}

// Synchronous handlers in a row leave turns of the event loop to the module's timers.
func TestLinesLeaveTurnsOfTheEventLoop(t *testing.T) {
	const n = 100
	c := worker(t, Options{}, `module.exports = function() {
		let ticks = 0;
		this.on('start', () => { setInterval(() => ticks++, 1).unref(); });
		this.on('message', (m, send, finished) => { const until = Date.now() + 2; while (Date.now() < until); finished(ticks); });
	};`)
	lines := make([]line, n)
	for i := range lines {
		lines[i] = work(fmt.Sprint(i), `{}`)
	}
	c.send(lines...)
	var reply struct{ Message int }
	for range n {
		if err := json.Unmarshal([]byte(c.read().text()), &reply); err != nil {
			t.Fatal(err)
		}
	}
	if reply.Message < 10 {
		t.Errorf("in %d items of 2 ms a timer of 1 ms fired %d times", n, reply.Message)
	}
}

// What is no JSON, or no object, will never be: the item is not tried again, and the child lives.
func TestLinesBodiesThatAreNoObjects(t *testing.T) {
	text := "/w=="
	for name, c := range map[string]*child{
		"ewd":     worker(t, Options{}, echo),
		"qoper8":  action(t, Options{}, `(a) => 1`),
		"qworker": scripts(t, Options{}, nil),
	} {
		for _, body := range []string{``, `{`, `text`, `7`, `"x"`, `null`, `true`} {
			c.send(work("1", body))
			l := c.read()
			if l.Type != "failed" || l.Retry == nil || *l.Retry || !strings.HasPrefix(l.Message, "the body is ") {
				t.Errorf("%s, body %q: %s", name, body, l.brief())
			}
		}
		c.send(line{Type: "work", ID: "1", Body64: &text})
		c.want("failed 1 the body is not UTF-8 text, so it is no JSON (rejected)")
		c.send(line{Type: "work", ID: "1"})
		if l := c.read(); l.Type != "failed" {
			t.Errorf("%s, no body: %s", name, l.brief())
		}
		c.stop()
	}
}

func TestLinesUnknownOnesAreIgnored(t *testing.T) {
	c := worker(t, Options{}, echo)
	if _, err := c.in.WriteString("\n{\"type\":\"of another time\"}\n\n"); err != nil {
		t.Fatal(err)
	}
	c.stop()
}

func TestLinesStats(t *testing.T) {
	c := worker(t, Options{}, `module.exports = function() { this.on('message', (m, send, finished) => { if (!m.wait) finished(this.count); else setTimeout(finished, 30, this.count); }); };`)
	c.send(work("1", `{}`))
	c.want(`done 1 {"finished":true,"message":2}`)
	c.send(work("2", `{"wait":true}`), line{Type: "stats"}, work("3", `{}`))
	if l := c.want("stats"); l.Memory < 1<<20 || l.Handled != 1 {
		t.Errorf("memory %d, handled %d", l.Memory, l.Handled)
	}
	c.want(`done 2 {"finished":true,"message":4}`)
	c.want(`done 3 {"finished":true,"message":5}`)
	c.stop()
}

func TestLinesReplyTooLong(t *testing.T) {
	c := worker(t, Options{MaxLine: 1000}, `module.exports = function() { this.on('message', (m, send, finished) => {
		if (m.send) send('é'.repeat(m.send));
		if (m.fail) throw new Error('é'.repeat(m.fail));
		finished('é'.repeat(m.n));
	}); };`)
	c.send(work("1", `{"n":600}`), work("2", `{"n":400}`), work("3", `{"n":0,"send":600}`), work("4", `{"fail":600}`), work("5", `{"n":0}`))
	c.want("failed 1 the reply makes a line of 1271 bytes, the pool takes 1000 (rejected)")
	c.want(`done 2 {"finished":true,"message":"` + strings.Repeat("é", 400) + `"}`)
	c.want(`done 3 {"finished":true,"message":""}`)
	c.want(`failed 4 the handler failed with a message too long to be sent`)
	c.want(`done 5 {"finished":true,"message":""}`)
	if !c.logged("an intermediate reply of item 3 is dropped") {
		t.Errorf("the reply that was dropped is not logged: %v", c.logs)
	}
}

func TestLinesReplyThatIsNoJSON(t *testing.T) {
	c := worker(t, Options{}, `module.exports = function() { this.on('message', (m, send, finished) => {
		if (m.type === 'circle') { const o = {}; o.o = o; finished(o); } else finished(m.type === 'big' ? 1n : '\ud800');
	}); };`)
	c.send(work("1", `{"type":"circle"}`), work("2", `{"type":"big"}`), work("3", `{"type":"half"}`))
	for range 2 {
		if l := c.read(); l.Type != "failed" || !strings.HasPrefix(l.Message, "the reply cannot be written as JSON: ") {
			t.Errorf("a reply that cannot be JSON: %s", l.brief())
		}
	}
	c.want(`done 3 {"type":"half","finished":true,"message":"\ud800"}`)
	c.stop()
}

// What a module and its children print never gets into the lines, also when these use standard input and output.
func TestLinesOverStandardInputAndOutput(t *testing.T) {
	c := prepare(t, tree(t, map[string]string{"m.js": `
		const fs = require('fs'), cp = require('child_process');
		console.log('at load');
		module.exports = function() { this.on('message', (m, send, finished) => {
			console.log('console.log'); process.stdout.write('process.stdout\n'); fs.writeSync(1, 'descriptor 1\n');
			cp.execFileSync('echo', ['a child'], {stdio: 'inherit'});
			finished(fs.readFileSync(0, 'utf8'));
		}); };`}), Options{Module: "m.js"})
	c.cmd.Env = append(c.cmd.Env, "STINT_IN=0", "STINT_OUT=1")
	c.cmd.Stdout = nil
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c.cmd.Stdin, c.cmd.Stdout = theirIn, theirOut
	c.start(in, out)
	theirIn.Close()
	theirOut.Close()
	c.send(line{Type: "start"}, work("1", `{"type":"t"}`))
	c.want("ready")
	c.want(`done 1 {"type":"t","finished":true,"message":""}`)
	c.stop()
	if runtime.GOOS == "linux" {
		if got, want := c.stderr.String(), "at load\nconsole.log\nprocess.stdout\ndescriptor 1\na child\n"; got != want {
			t.Errorf("printed was %q, expected was %q", got, want)
		}
	}
}

// A process that a module leaves behind has neither end of the lines, so the pool sees the child's end at once.
func TestLinesAreNotInherited(t *testing.T) {
	c := worker(t, Options{}, `module.exports = function() { this.on('message', (m, send, finished) => {
		const child = require('child_process').spawn('sleep', ['30'], {stdio: 'ignore', detached: true});
		child.unref();
		finished(child.pid);
	}); };`)
	c.send(work("1", `{}`))
	var reply struct{ Message int }
	if err := json.Unmarshal([]byte(c.read().text()), &reply); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if p, err := os.FindProcess(reply.Message); err == nil {
			_ = p.Kill()
		}
	}()
	began := time.Now()
	c.stop()
	if waited := time.Since(began); waited > 5*time.Second {
		t.Errorf("the end of the lines came after %v", waited)
	}
}

// The order of what is written is the order of what happened, also when the child dies in the middle of it.
func TestLinesAnswersAreOutBeforeTheNextItem(t *testing.T) {
	c := worker(t, Options{}, `module.exports = function() { this.on('message', (m, send, finished) => {
		if (m.kill) process.kill(process.pid, 'SIGKILL');
		if (m.hang) for (;;);
		finished(m.n);
	}); };`)
	c.send(work("1", `{"n":1}`), work("2", `{"n":2}`), work("3", `{"hang":true}`))
	c.want(`done 1 {"finished":true,"message":1}`)
	c.want(`done 2 {"finished":true,"message":2}`)
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	c.exit()

	d := worker(t, Options{}, `module.exports = function() { this.on('message', (m, send, finished) => {
		if (m.kill) process.kill(process.pid, 'SIGKILL');
		finished(m.n);
	}); };`)
	d.send(work("1", `{"n":1}`), work("2", `{"n":2}`), work("3", `{"kill":true}`), work("4", `{"n":4}`))
	d.want(`done 1 {"finished":true,"message":1}`)
	d.want(`done 2 {"finished":true,"message":2}`)
	if code := d.exit(); code != -1 {
		t.Errorf("exit code %d", code)
	}
}

func TestCommand(t *testing.T) {
	needNode(t)
	for name, o := range map[string]Options{
		`style is "perl"`:     {Style: "perl"},
		`errors is "never"`:   {Errors: "never"},
		"module is missing":   {Style: QOper8},
		"user_defined is not": {UserDefined: json.RawMessage("{")},
		"user_defined smaller": {
			UserDefined: json.RawMessage(`"` + strings.Repeat("x", maxVariable) + `"`),
		},
		"require has":         {Require: map[string]string{"x": ""}},
		"the longest line":    {MaxLine: -1},
		"name it or install":  {Node: "no-such-program-here"},
		"executable file not": {Node: "no-such-program-here"},
	} {
		if _, _, err := Command(o); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("the error is %v, expected was one with %q", err, name)
		}
	}
	argv, env, err := Command(Options{Node: "node", NodeArgs: []string{"--stack-size=500"}, Module: "./m.js"})
	if err != nil {
		t.Fatal(err)
	}
	if len(argv) != 6 || argv[1] != "--stack-size=500" || argv[5] != "./m.js" || len(strings.Join(argv, " ")) > 300 {
		t.Errorf("the command line is %q", argv)
	}
	for _, v := range env {
		if len(v) >= maxVariable || strings.ContainsRune(v, 0) {
			t.Errorf("a variable of %d bytes does not fit", len(v))
		}
	}
}

// The bootstrap is checked by Node.js itself, part by part: a mistake shows with its own line.
func TestHostParses(t *testing.T) {
	needNode(t)
	names, err := os.ReadDir("host")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		if out, err := exec.Command("node", "--check", "host/"+name.Name()).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name.Name(), err, out)
		}
	}
}
