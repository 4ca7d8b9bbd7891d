package node

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// In the original a throw loses the next item too, and ends the worker.
func TestThrowFailsItsOwnItemOnly(t *testing.T) {
	c := worker(t, Options{}, `module.exports = function() {
		let n = 0;
		this.on('message', function(m, send, finished) {
			n++;
			switch (m.type) {
			case 'throw': throw new Error('thrown é');
			case 'throw text': throw 'text';
			case 'throw nothing': throw undefined;
			case 'throw code': throw Object.assign(new Error('with code'), {code: 'EMINE'});
			case 'answered': finished(n); throw new Error('afterwards');
			}
			finished(n);
		});
	};`)
	for i, typ := range []string{"throw", "x", "throw text", "throw nothing", "throw code", "answered", "x"} {
		c.send(work(fmt.Sprint(i), `{"type":"`+typ+`"}`))
	}
	c.want(`failed 0 thrown é`)
	c.want(`done 1 {"type":"x","finished":true,"message":2}`)
	c.want(`failed 2 text`)
	c.want(`failed 3 undefined`)
	if l := c.want(`failed 4 with code`); l.Code != "EMINE" {
		t.Errorf("the code is %q", l.Code)
	}
	c.want(`done 5 {"type":"answered","finished":true,"message":6}`)
	c.want(`done 6 {"type":"x","finished":true,"message":7}`)
	c.stop()
	if !c.logged("item 5: Error: afterwards") {
		t.Errorf("what was thrown after the answer is not logged: %v", c.logs)
	}
}

// The original ignores the promises that listeners return.
func TestRejectionFailsItsOwnItem(t *testing.T) {
	c := worker(t, Options{}, `module.exports = function() {
		this.on('mine', async function(m) { await null; throw new Error('in a listener of its own: ' + m.type); });
		this.on('plain', async function() { await null; throw new Error('without the message'); });
		this.on('message', async function(m, send, finished) {
			if (m.type === 'reject') throw new Error('rejected');
			if (m.type === 'mine') { this.emit('mine', m); return; }
			if (m.type === 'plain') { this.emit('plain'); return; }
			if (m.type === 'late') { finished('early'); await new Promise((r) => setTimeout(r, 20)); throw new Error('too late'); }
			await new Promise((r) => setTimeout(r, 40));
			finished('slow');
		});
	};`)
	c.send(work("1", `{"type":"reject"}`), work("2", `{"type":"mine"}`), work("3", `{"type":"plain"}`), work("4", `{"type":"late"}`), work("5", `{"type":"slow"}`))
	c.want(`failed 1 rejected`)
	c.want(`failed 2 in a listener of its own: mine`)
	c.want(`failed 3 without the message`)
	c.want(`done 4 {"type":"late","finished":true,"message":"early"}`)
	c.want(`done 5 {"type":"slow","finished":true,"message":"slow"}`)
	c.stop()
	if !c.logged("item 4: Error: too late") {
		t.Errorf("a rejection after the answer is not logged: %v", c.logs)
	}
}

// In the original the second answer is the next item's.
func TestSecondAnswerIsNeverTheNextItems(t *testing.T) {
	for name, tt := range map[string]struct{ again, next string }{
		"finished":         {`finished('again')`, "t"},
		"send":             {`send('again')`, "t"},
		"this.hasFinished": {`this.hasFinished(m.type, 'again')`, "t"},
		"returnMessage":    {`this.returnMessage(m.type, 'again')`, "t"},
		"sendMessage":      {`this.sendMessage(m.type, 'again')`, "t"},
		"kept, other type": {`worker.hasFinished(m.type, 'again')`, "u"},
	} {
		t.Run(name, func(t *testing.T) {
			c := worker(t, Options{}, `module.exports = function(worker) {
				this.on('message', function(m, send, finished) {
					if (!m.twice) { setTimeout(finished, 50, 'mine'); return; }
					finished('once');
					setTimeout(() => { `+tt.again+`; }, 10);
				});
			};`)
			c.send(work("1", `{"type":"t","twice":true}`), work("2", `{"type":"`+tt.next+`"}`))
			c.want(`done 1 {"type":"t","finished":true,"message":"once"}`)
			c.want(`done 2 {"type":"` + tt.next + `","finished":true,"message":"mine"}`)
			c.stop()
			if len(c.logs) != 1 || c.logs[0].Level != "warn" || !strings.Contains(c.logs[0].Message, "answered") {
				t.Errorf("the second answer is not logged: %v", c.logs)
			}
		})
	}
}

// The next item begins when the handler has returned, so a second answer out of the same run cannot hit it either.
func TestSecondAnswerWithinTheHandler(t *testing.T) {
	c := worker(t, Options{}, `module.exports = function(worker) {
		let busy = false;
		this.on('message', function(m, send, finished) {
			if (busy) throw new Error('two at a time');
			busy = true;
			worker.hasFinished(m.type, 1);
			worker.hasFinished(m.type, 2);
			finished(3);
			busy = false;
		});
	};`)
	c.send(work("1", `{"type":"t"}`), work("2", `{"type":"t"}`))
	c.want(`done 1 {"type":"t","finished":true,"message":1}`)
	c.want(`done 2 {"type":"t","finished":true,"message":1}`)
	c.stop()
	if len(c.logs) != 4 {
		t.Errorf("of four second answers %d are logged: %v", len(c.logs), c.logs)
	}
}

// An answer given in a callback: what follows it in that callback comes before the next item.
func TestNextItemWaitsForTheCallback(t *testing.T) {
	c := worker(t, Options{}, `module.exports = function() {
		let busy = false;
		this.on('message', function(m, send, finished) {
			if (busy) throw new Error('two at a time');
			busy = true;
			setTimeout(() => { finished(1); busy = false; }, 1);
		});
	};`)
	c.send(work("1", `{}`), work("2", `{}`))
	c.want(`done 1 {"finished":true,"message":1}`)
	c.want(`done 2 {"finished":true,"message":1}`)
}

func TestUncaughtEndsTheChild(t *testing.T) {
	for name, tt := range map[string]struct{ do, want string }{
		"timer":     {`setTimeout(() => { throw new Error('in a timer'); }, 1)`, "in a timer"},
		"rejection": {`Promise.reject(new Error('nobody waits'))`, "nobody waits"},
		"no error":  {`setTimeout(() => { throw null; }, 1)`, "null"},
		"exit":      {`process.exit(0)`, "the process ended with code 0 before the item was answered"},
	} {
		t.Run(name, func(t *testing.T) {
			c := worker(t, Options{}, `module.exports = function() {
				this.on('unexpectedError', function() { console.log('unexpectedError'); throw new Error('again'); });
				this.on('message', function(m, send, finished) { if (m.do) { `+tt.do+`; } else finished(); });
			};`)
			c.send(work("1", `{}`), work("2", `{"do":true}`), work("3", `{}`))
			c.want(`done 1 {"finished":true}`)
			c.want(`failed 2 ` + tt.want)
			code := c.exit()
			if name == "exit" {
				return
			}
			if code != 1 || c.stdout.String() != "unexpectedError\n" || !strings.Contains(c.stderr.String(), tt.want) {
				t.Errorf("exit code %d, printed %q, standard error %q", code, c.stdout.String(), c.stderr.String())
			}
		})
	}
}

func TestUncaughtWithNothingInHand(t *testing.T) {
	c := worker(t, Options{}, `module.exports = function() { this.on('message', function(m, send, finished) { finished(); setTimeout(() => { throw new Error('later'); }, 5); }); };`)
	c.send(work("1", `{}`))
	c.want(`done 1 {"finished":true}`)
	if code := c.exit(); code != 1 || !c.logged("Error: later") {
		t.Errorf("exit code %d, log %v", code, c.logs)
	}
}

func TestErrorsAsRepliesOfEwd(t *testing.T) {
	c := worker(t, Options{Errors: Reply}, `module.exports = function() { this.on('message', function(m) { if (m.type === 'throw') throw new Error('é'); setTimeout(() => { throw new Error('in a timer'); }, 1); }); };`)
	c.send(work("1", `{"type":"throw"}`), work("2", `no JSON`), work("3", `{}`))
	c.want(`done 1 {"type":"error","finished":true,"message":"é"}`)
	if l := c.read(); l.Type != "done" || !strings.HasPrefix(l.text(), `{"type":"error","finished":true,"message":"the body is no JSON`) {
		t.Errorf("a body that is no JSON: %s", l.brief())
	}
	c.want(`done 3 {"type":"error","finished":true,"message":"in a timer"}`)
	if code := c.exit(); code != 1 {
		t.Errorf("exit code %d", code)
	}
}

// In the original a throw in start loops. Here no item is begun, no ready is said, and the pool sees exit code 1.
func TestStartThatFails(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"at load":       {`throw new Error('at load')`, "at load"},
		"in the module": {`module.exports = function() { throw new Error('in the module'); }`, "in the module"},
		"in start":      {`module.exports = function() { this.on('start', () => { throw new Error('in start'); }); }`, "in start"},
		"async module":  {`module.exports = async function() { throw new Error('async module'); }`, "async module"},
		"async start":   {`module.exports = function() { this.on('start', async () => { throw new Error('async start'); }); }`, "async start"},
		"no function":   {`module.exports = {a: 1}`, "exports no function"},
		"syntax":        {`module.exports = {`, "Unexpected end of input"},
		"missing part":  {`require('./nowhere')`, "Cannot find module './nowhere'"},
	} {
		t.Run(name, func(t *testing.T) {
			c := prepare(t, tree(t, map[string]string{"m.js": tt.text}), Options{Module: "m.js"})
			c.begin()
			c.in.WriteString(`{"type":"start","first":true}` + "\n")
			for l := c.read(); l.Type != ""; l = c.read() {
				if l.Type != "ready" || !strings.HasPrefix(name, "async") {
					t.Errorf("the child wrote %s", l.brief())
				}
			}
			if code := c.exit(); code != 1 || !c.logged(tt.want) || !strings.Contains(c.stderr.String(), tt.want) {
				t.Errorf("exit code %d, log %v", code, c.logs)
			}
		})
	}
}

func TestModuleThatIsNotThere(t *testing.T) {
	for _, module := range []string{"nowhere", "./nowhere.js", "no.where"} {
		c := prepare(t, t.TempDir(), Options{Module: module})
		c.begin()
		if code := c.exit(); code != 1 || !c.logged("cannot find the module "+module) {
			t.Errorf("exit code %d, log %v", code, c.logs)
		}
	}
}

// A terminal's Ctrl-C goes to all processes; the pool says what comes of it. SIGTERM is the pool's own last word.
func TestSignals(t *testing.T) {
	c := worker(t, Options{}, `module.exports = function() {
		this.on('message', function(m, send, finished) { if (m.type === 'hang') send(1); else finished(); });
		this.on('stop', function() { console.log('stop'); });
	};`)
	if err := c.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	c.send(work("1", `{}`), work("2", `{"type":"hang"}`))
	c.want(`done 1 {"finished":true}`)
	c.want(`progress 2 {"type":"hang","finished":false,"message":1}`)
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := c.exit(); code != 143 || c.stdout.String() != "stop\n" {
		t.Errorf("exit code %d, printed %q", code, c.stdout.String())
	}
}

// A pool that is gone takes no answers: the child ends and does not try for ever.
func TestPoolThatIsGone(t *testing.T) {
	c := worker(t, Options{}, echo)
	c.out.Close()
	c.send(work("1", `{}`))
	err := c.cmd.Wait()
	c.exited = true
	if code := c.cmd.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d, %v", code, err)
	}
}

// Whatever a module does in a loop, the log stays short.
func TestLogIsLimited(t *testing.T) {
	const n = 500
	c := worker(t, Options{}, `module.exports = function() { this.on('message', function(m, send, finished) { finished(); finished(); }); };`)
	for i := range n {
		c.send(work(fmt.Sprint(i), `{}`))
		c.want(fmt.Sprintf(`done %d {"finished":true}`, i))
	}
	c.stop()
	if len(c.logs) == 0 || len(c.logs) > 50 {
		t.Errorf("%d second answers made %d lines of log", n, len(c.logs))
	}
}

func TestExtend(t *testing.T) {
	c := worker(t, Options{}, `module.exports = function() { this.on('message', function(m, send, finished) { this.extend(); finished(); }); };`)
	c.send(work("1", `{}`))
	c.want("extend 1")
	c.want(`done 1 {"finished":true}`)
}

// The log has the stack of what a handler threw, as far as it is the module's.
func TestStackOfAFailure(t *testing.T) {
	c := worker(t, Options{}, `module.exports = function() { this.on('message', function(m, send, finished) { deep(); }); };
		function deep() { throw new TypeError('thrown'); }`)
	c.send(work("1", `{}`))
	c.want("failed 1 thrown")
	if len(c.logs) != 1 || !strings.Contains(c.logs[0].Message, "item 1: TypeError: thrown\n") || !strings.Contains(c.logs[0].Message, "at deep (") || strings.Contains(c.logs[0].Message, "stint-host.js") {
		t.Errorf("the log is %v", c.logs)
	}
}
