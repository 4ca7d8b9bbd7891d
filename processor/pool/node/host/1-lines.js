'use strict';

// Hosts a module written for ewd-qoper8, Q-Oper8 or qworker as a child of a Stint pool. One JSON object per line comes in on
// the descriptor STINT_IN and goes out on STINT_OUT; see the package comment for how this text gets here and what holds.
//
// Who owns what: `waiting` is filled by takeLine and emptied by pump; `current` is set by begin and cleared by Item.end, and
// an item may be answered exactly as long as it is `current`; `inside` is true while a handler is on the stack.
//
// The event loop:  feed -> takeLine -> waiting -> pump -> begin -> handler -> Item.done or Item.fail -> pump

const EventEmitter = require('events');
const Module = require('module');
const fs = require('fs');
const net = require('net');
const path = require('path');
const vm = require('vm');
const { pathToFileURL } = require('url');

const TURN = 5; // ms that items may follow each other without a turn of the event loop, which the module's timers need
const GRACE = 500; // ms that a module has after `stop` for what it does not tell us about
const HELD_LINES = 1000; // items read ahead, or
const HELD_CHARS = 8 << 20; // their text: beyond it reading pauses, and the rest stays with the pool
const LOGGED = 10; // lines of log per second
const LOCK_AGE = 10000; // ms after which a lock file without a readable holder counts as abandoned
const rejection = Symbol.for('nodejs.rejection');

const options = JSON.parse(process.env.STINT_NODE_OPTIONS);
const cwd = process.cwd();
const requireFrom = Module.createRequire(path.join(cwd, 'stint'));

let input = Number(process.env.STINT_IN || 3);
let output = Number(process.env.STINT_OUT || 4);
let source = null; // the stream of lines
let host = null; // the style's side, once the module is loaded
let first = null; // what the start line said, once it is here
let ready = false; // start listeners have run
let current = null;
let inside = false;
let waiting = [];
let next = 0; // index in waiting
let held = 0; // characters in waiting
let stopped = false; // no more lines will come
let leaving = false;
let handled = 0;


// Lines out.

const nap = new Int32Array(new SharedArrayBuffer(4));

// put writes before it returns: whatever happens next, the pool has the answer. A full pipe holds the child up.
function put(line) {
  const data = Buffer.from(line + '\n');
  for (let at = 0; at < data.length;) {
    try {
      at += fs.writeSync(output, data, at);
    } catch (err) {
      if (err.code !== 'EAGAIN') process.exit(1); // the pool is gone
      Atomics.wait(nap, 0, 0, 1);
    }
  }
}

let logSecond = 0;
let logCount = 0;

function log(level, message) {
  const second = Math.floor(Date.now() / 1000);
  const hidden = second === logSecond ? 0 : logCount - LOGGED;
  if (second !== logSecond) [logSecond, logCount] = [second, 0];
  if (hidden > 0) message += ` (${hidden} more before this one were left out)`;
  if (logCount++ < LOGGED) put(JSON.stringify({ type: 'log', level, message }));
}

const textOf = (err) => String((err && err.message) || err);
const stackOf = (err) => String((err && err.stack) || err).split(/\n +at [^\n]*stint-host\.js:/)[0]; // the module's own frames
const asError = (err) => (err instanceof Error || (err && typeof err.message === 'string') ? err : new Error(String(err)));

// Item is one item in the hand of this child.
class Item {
  constructor(line) {
    this.id = line.id;
    this.name = JSON.stringify(line.id);
    this.lock = null;
  }

  // open says whether the item may still be answered, and logs an answer that is too late.
  open() {
    if (this === current) return true;
    log('warn', `item ${this.id} has been answered already: another answer is refused`);
    return false;
  }

  // done answers with a value, undefined being the empty reply.
  done(value) {
    if (!this.open()) return;
    let line = `{"type":"done","id":${this.name}}`;
    try {
      const body = JSON.stringify(value);
      if (body !== undefined) line = `{"type":"done","id":${this.name},"body":${JSON.stringify(body)}}`;
    } catch (err) {
      this.fail(new Error(`the reply cannot be written as JSON: ${textOf(err)}`));
      return;
    }
    const size = tooLong(line);
    if (size) this.fail(new Error(`the reply makes a line of ${size} bytes, the pool takes ${options.max_line}`), false);
    else this.end(line);
  }

  // fail answers with an error; with retry false the item becomes a dead letter at once.
  fail(err, retry = true) {
    if (!this.open()) return;
    try {
      host.release();
    } catch (again) {
      log('error', `the session of item ${this.id} could not be unlocked: ${stackOf(again)}`);
    }
    if (options.errors === 'reply') return this.end(this.errorReply(err));
    this.end(this.failure(err, retry));
  }

  failure(err, retry) {
    const line = { type: 'failed', id: this.id, message: textOf(err) };
    if (err && (typeof err.code === 'string' || typeof err.code === 'number')) line.code = String(err.code);
    if (!retry) line.retry = false;
    const text = JSON.stringify(line);
    if (!tooLong(text)) return text;
    return JSON.stringify({ type: 'failed', id: this.id, retry, message: 'the handler failed with a message too long to be sent' });
  }

  errorReply(err) {
    try {
      const line = `{"type":"done","id":${this.name},"body":${JSON.stringify(JSON.stringify(host.errorReply(err)))}}`;
      return tooLong(line) ? this.failure(err, false) : line;
    } catch (unwritable) {
      return this.failure(err, false);
    }
  }

  // progress sends an intermediate reply.
  progress(value) {
    if (!this.open()) return;
    const line = `{"type":"progress","id":${this.name},"body":${JSON.stringify(JSON.stringify(value))}}`;
    const size = tooLong(line);
    if (size) log('error', `an intermediate reply of item ${this.id} is dropped: it makes a line of ${size} bytes, the pool takes ${options.max_line}`);
    else put(line);
  }

  extend() {
    if (this === current) put(`{"type":"extend","id":${this.name}}`);
  }

  end(line) {
    this.unlock();
    current = null;
    handled++;
    put(line);
    host.ended(this);
    if (!inside) process.nextTick(pump); // what the module does after its answer comes first
  }

  lockAs(file) {
    if (!file) return;
    const full = path.resolve(cwd, file);
    makeLock(full);
    this.lock = full;
  }

  unlock() {
    if (this.lock) removeLock(this.lock);
    this.lock = null;
  }
}

// tooLong gives the size of a line that the pool would not take, else 0.
function tooLong(line) {
  const max = options.max_line;
  if (!max || line.length * 3 < max) return 0;
  const size = Buffer.byteLength(line) + 1;
  return size > max ? size : 0;
}

// Lines in.

let rest = []; // of a line whose end has not come yet

function feed(chunk) {
  const end = chunk.lastIndexOf(10);
  if (end < 0) {
    rest.push(Buffer.from(chunk)); // a copy: the reader uses its buffer again
    return;
  }
  const whole = chunk.subarray(0, end);
  const text = (rest.length ? Buffer.concat([...rest, whole]) : whole).toString();
  rest = end + 1 < chunk.length ? [Buffer.from(chunk.subarray(end + 1))] : [];
  for (const line of text.split('\n')) if (line) takeLine(line);
  if (source && (waiting.length - next > HELD_LINES || held > HELD_CHARS)) source.pause();
  pump();
}

function takeLine(text) {
  const line = JSON.parse(text);
  if (line.type === 'work') {
    waiting.push(line);
    line.size = text.length;
    held += text.length;
  } else if (line.type === 'start') {
    first = line.first === true;
    start();
  } else if (line.type === 'stop') {
    stopped = true;
  } else if (line.type === 'stats') {
    putStats();
  }
}

function putStats() {
  const { rss, heapTotal, heapUsed } = process.memoryUsage();
  const stats = { type: 'stats', memory: rss, heap_total: heapTotal, heap_used: heapUsed, handled };
  stats.waiting = waiting.length - next;
  stats.uptime = Math.round(process.uptime() * 1000);
  put(JSON.stringify(stats));
  if (host && host.counted) host.counted();
}

function pump() {
  const until = Date.now() + TURN;
  while (ready && !current && !inside && !leaving && next < waiting.length) {
    if (Date.now() > until) {
      setImmediate(pump);
      return;
    }
    begin(shift());
  }
  if (source && next === waiting.length && source.isPaused()) source.resume();
  if (stopped && host && !current && !inside && (next === waiting.length || !ready)) leave(0, ready);
}

function shift() {
  const line = waiting[next];
  waiting[next++] = null;
  held -= line.size;
  if (next === waiting.length) [waiting, next] = [[], 0];
  return line;
}

function begin(line) {
  const item = new Item(line);
  current = item;
  inside = true;
  try {
    const value = bodyOf(item, line);
    if (item !== current) return;
    item.lockAs((host.lockOf && host.lockOf(value)) || options.lockfile);
    host.handle(item, value);
  } catch (err) {
    failed(item, err);
  } finally {
    inside = false;
  }
}

// failed is for what a handler threw or rejected, also after its answer.
function failed(item, err) {
  log('error', `item ${item.id}: ${stackOf(err)}`);
  if (item === current) item.fail(err);
}

// bodyOf reads the body, which is JSON in all three systems. What is none will never be, so it is not tried again.
function bodyOf(item, line) {
  if (line.body64 !== undefined) return item.fail(new Error('the body is not UTF-8 text, so it is no JSON'), false);
  if (!line.body && host.takesNothing) return undefined;
  let value;
  try {
    value = JSON.parse(line.body || '');
  } catch (err) {
    return item.fail(new Error(`the body is no JSON: ${textOf(err)}`), false);
  }
  if (host.takesAnything || (value !== null && typeof value === 'object')) return value;
  return item.fail(new Error('the body is JSON, but no object'), false);
}
