package node

import (
	"strings"
	"testing"
)

// action starts a child with a module of Q-Oper8, in which handler is what it registers.
func action(t *testing.T, o Options, handler string) *child {
	t.Helper()
	return worker(t, o, `const childProcess = require('qoper8').childProcess; childProcess.handler(`+handler+`);`)
}

func TestQOper8Synchronous(t *testing.T) {
	c := action(t, Options{}, `function(action) { return {got: action.x, actionNo: action.actionNo, type: typeof action.actionNo}; }`)
	c.send(work("8k", `{"x":"é"}`), work("8l", `{"actionNo":"mine"}`))
	c.want(`done 8k {"got":"é","actionNo":"8k","type":"string"}`)
	c.want(`done 8l {"actionNo":"8l","type":"string"}`)
	c.stop()
}

func TestQOper8AnyResult(t *testing.T) {
	c := action(t, Options{}, `(action) => action.list ? action.list[0] : undefined`)
	for body, want := range map[string]string{
		`{}`: "no body", `{"list":[null]}`: "null", `{"list":[0]}`: "0", `{"list":[false]}`: "false", `{"list":[""]}`: `""`,
		`{"list":["text"]}`: `"text"`, `{"list":[[1,{"a":2}]]}`: `[1,{"a":2}]`,
	} {
		c.send(work("1", body))
		c.want("done 1 " + want)
	}
	c.stop()
}

// In the original the whole batch of an asynchronous child runs at once.
func TestQOper8AsynchronousOneAtATime(t *testing.T) {
	const handler = `(function() { let busy = 0; return function(action, callback) {
		busy++;
		setTimeout(() => callback({n: action.n, busy: busy--}), 5 - action.n);
	}; })()`
	c := action(t, Options{}, handler+`, true`)
	c.send(work("1", `{"n":1}`), work("2", `{"n":2}`), work("3", `{"n":3}`))
	c.want(`done 1 {"n":1,"busy":1}`)
	c.want(`done 2 {"n":2,"busy":1}`)
	c.want(`done 3 {"n":3,"busy":1}`)
	c.stop()
}

func TestQOper8AsynchronousByName(t *testing.T) {
	c := action(t, Options{Style: QOper8Async}, `(action, callback) => callback('called')`)
	c.send(work("1", `{}`))
	c.want(`done 1 "called"`)
}

func TestQOper8HandlerIsRegisteredLater(t *testing.T) {
	dir := tree(t, map[string]string{
		"node_modules/qoper8/index.js": `throw new Error('the stub is wanted, not this');`,
		"lib/inner.js":                 `module.exports = require('qoper8');`,
		"m.js":                         `const q = require('./lib/inner'); setTimeout(() => q.childProcess.handler(() => 'late'), 50);`,
	})
	c := run(t, dir, Options{Module: "./m.js"})
	c.send(work("1", `{}`))
	c.want("ready")
	c.want(`done 1 "late"`)
	c.stop()
}

func TestQOper8NeverRegistered(t *testing.T) {
	c := run(t, tree(t, map[string]string{"m.js": `require('qoper8'); setInterval(() => {}, 1000)`}), Options{Module: "m.js", Style: QOper8})
	c.stop()
}

func TestQOper8HasNoMaster(t *testing.T) {
	c := run(t, tree(t, map[string]string{"m.js": `require('qoper8').masterProcess.start()`}), Options{Module: "m.js"})
	if code := c.exit(); code != 1 || !c.logged("send to the queue") {
		t.Errorf("exit code %d, log %v", code, c.logs)
	}
}

// console.log in a child of the original corrupts its protocol.
func TestQOper8PrintsFreely(t *testing.T) {
	c := action(t, Options{}, `(action) => {
		console.log('{"type":"done","id":"1"}');
		process.stdout.write('no end of line');
		return 1;
	}`)
	c.send(work("1", `{}`))
	c.want(`done 1 1`)
	c.stop()
	if got := c.stdout.String(); got != "{\"type\":\"done\",\"id\":\"1\"}\nno end of line" {
		t.Errorf("printed was %q", got)
	}
}

// In the original a throw is never noticed, and an action that is called back twice kills the master.
func TestQOper8Faults(t *testing.T) {
	c := action(t, Options{}, `function(action, callback) {
		switch (action.do) {
		case 'throw': throw new TypeError('no such thing');
		case 'twice': callback(1); callback(2); return;
		case 'late': callback(1); setTimeout(callback, 10, 2); return;
		case 'wait': setTimeout(callback, 40, 'mine'); return;
		case 'reject': return Promise.reject(new Error('rejected'));
		case 'long': return callback('é'.repeat(100000));
		}
		callback(0);
	}, true`)
	c.send(
		work("1", `{"do":"throw"}`), work("2", `{"do":"twice"}`), work("3", `{}`), work("4", `{"do":"late"}`), work("5", `{"do":"wait"}`),
		work("6", `{"do":"reject"}`), work("7", `{"do":"long","filler":"`+strings.Repeat("ü", 300_000)+`"}`), work("8", `{}`),
	)
	c.want("failed 1 no such thing")
	c.want("done 2 1")
	c.want("done 3 0")
	c.want("done 4 1")
	c.want(`done 5 "mine"`)
	c.want("failed 6 rejected")
	c.want(`done 7 "` + strings.Repeat("é", 100_000) + `"`)
	c.want("done 8 0")
	c.stop()
	if !c.logged("item 2 has been answered already") || !c.logged("item 4 has been answered already") {
		t.Errorf("a second answer is not logged: %v", c.logs)
	}
}

func TestQOper8PromiseOfASynchronousHandler(t *testing.T) {
	c := action(t, Options{}, `async (action) => { if (action.fail) throw new Error('no'); return 'awaited'; }`)
	c.send(work("1", `{}`), work("2", `{"fail":true}`), work("3", `{}`))
	c.want(`done 1 "awaited"`)
	c.want(`failed 2 no`)
	c.want(`done 3 "awaited"`)
}

func TestQOper8ErrorsAsReplies(t *testing.T) {
	c := action(t, Options{Errors: Reply}, `() => { throw new Error('é'); }`)
	c.send(work("1", `{}`))
	c.want(`done 1 {"error":"é"}`)
}
