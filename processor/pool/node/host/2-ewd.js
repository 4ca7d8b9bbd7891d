// ewd-qoper8, in both dialects: the worker that its modules are called with, and what they are sent.

class EwdWorker extends EventEmitter {
  constructor(old) {
    super({ captureRejections: true });
    this.moduleName = 'ewd-qoper8 Worker Process';
    this.build = old ? { no: '3.11.0', date: '7 November 2016' } : { no: '3.18.1', date: '11 February 2020' };
    this.isFirst = false;
    this.environment = {};
    this.count = 0;
    this.startTime = Date.now();
    this.suppressLog = old ? {} : { 'qoper8-getStats': true };
    this.log = options.log === true;
    Object.defineProperty(this, 'oldDialect', { value: old });
  }

  get noOfMessages() {
    return this.count;
  }

  version() {
    return `${this.moduleName} Build ${this.build.no}; ${this.build.date}`;
  }

  upTime() {
    const seconds = Math.floor((Date.now() - this.startTime) / 1000);
    const minutes = String(Math.floor(seconds / 60) % 60).padStart(2, '0');
    return `${Math.floor(seconds / 86400)} days ${Math.floor(seconds / 3600) % 24}:${minutes}:${seconds % 60}`;
  }

  getStats() {
    const used = process.memoryUsage();
    const mega = (bytes) => (bytes / 1048576).toFixed(2);
    return {
      pid: process.pid,
      [this.oldDialect ? 'upTime' : 'uptime']: this.upTime(),
      noOfMessages: this.count,
      memory: { rss: mega(used.rss), heapTotal: mega(used.heapTotal), heapUsed: mega(used.heapUsed) },
    };
  }

  dontLog(types) {
    for (const type of types) this.suppressLog[type] = true;
  }

  hasStarted() {
    markReady();
  }

  // The three below are called on the worker itself only by a module that keeps it in a variable; then nothing says which
  // item is meant, and it is the one in hand. What listeners get as `this` knows its item (see View).
  hasFinished(type, message) {
    const item = current;
    if (item && host.previous === type && item.type !== type) return late(type);
    if (item) item.done({ type, finished: true, message });
    else late(type);
  }

  returnMessage(type, message) {
    if (current) current.progress({ type, finished: false, message });
    else late(type);
  }

  sendMessage(type, message, socketId) {
    if (current) current.progress({ type, finished: false, message, socketId });
    else late(type);
  }

  extend() {
    if (current) current.extend();
  }

  exit() {
    host.exiting = true;
    if (!current) leave(0, false);
  }

  [rejection](err, event, ...args) {
    const item = args[0] && host.items.get(args[0]);
    if (item) failed(item, err);
    else uncaught(err, `a listener of ${String(event)}`);
  }
}

function late(type) {
  log('warn', `an answer of type ${type} came after its item was answered: it is refused`);
}

// View is the worker as the listeners of one item see it: all of it, but answers go to that item.
class View {
  constructor(item) {
    this.item = item;
  }

  get(worker, key) {
    const item = this.item;
    if (Object.prototype.hasOwnProperty.call(worker, key)) return worker[key];
    switch (key) {
      case 'hasFinished':
        return (type, message) => item.done({ type, finished: true, message });
      case 'returnMessage':
        return (type, message) => item.progress({ type, finished: false, message });
      case 'sendMessage':
        return (type, message, socketId) => item.progress({ type, finished: false, message, socketId });
      case 'extend':
        return () => item.extend();
      case rejection:
        return (err) => failed(item, err);
      default:
        return worker[key];
    }
  }

  set(worker, key, value) {
    worker[key] = value;
    return true;
  }
}

class Ewd {
  constructor(exported, style) {
    const old = style === 'ewd-old' || (style === 'auto' && parameters(exported) === 1);
    this.worker = new EwdWorker(old);
    this.items = new WeakMap(); // message object to item
    this.previous = undefined; // type of the item answered last
    this.exiting = false;
    this.silent = old && exported === undefined;
    if (exported !== undefined) this.install(exported);
    this.worker.on('unknownMessage', (message, send, finished) => {
      if (this.worker.listenerCount('unknownMessage') === 1) finished(noHandler(message.type)); // the module has none
    });
  }

  install(exported) {
    if (typeof exported !== 'function') throw new Error(`${options.module} exports no function: a worker module of ewd-qoper8 does`);
    if (!isClass(exported)) {
      const made = exported.call(this.worker, this.worker);
      if (made && typeof made.then === 'function') made.then(undefined, die);
      return;
    }
    this.instance = Reflect.construct(exported, [this.worker], likeWorker(exported, this.worker));
  }

  start(isFirst) {
    if (options.user_defined) this.worker.userDefined = options.user_defined;
    this.worker.count++;
    this.worker.emit('start', isFirst);
    this.worker.hasStarted();
  }

  handle(item, message) {
    const worker = this.worker;
    const type = (item.type = message.type);
    this.items.set(message, item);
    if (worker.log && type && !worker.suppressLog[type]) {
      console.log(`${new Date().toUTCString()}; worker ${process.pid} received message: ${JSON.stringify(message)}`);
    }
    worker.count++;
    if (type === 'qoper8-test') {
      return item.done({ type, finished: true, message: { responseNo: message.messageNo, contents: message.contents, count: worker.count } });
    }
    const view = new Proxy(worker, new View(item));
    const send = (results) => {
      const named = (results && results.type) || message.type;
      if (results) delete results.type;
      item.progress({ type: named, finished: false, message: results });
    };
    const finished = (results) => {
      if (!item.open()) return;
      this.release();
      item.done({ type: message.type, finished: true, message: results });
    };
    if (view.emit('message', message, send, finished)) return;
    item.done({ type, finished: true, message: this.silent ? undefined : noHandler(type) });
  }

  // ended is called when an item is out of hand.
  ended(item) {
    this.previous = item.type;
    if (this.exiting) leave(0, false);
  }

  // release gives back the session that the module has locked; the original did so by dying when a handler had failed.
  release() {
    const { db, sessionLocked } = this.worker;
    if (sessionLocked && db) db.unlock(sessionLocked);
  }

  stop() {
    this.worker.count++;
    return this.worker.rawListeners('stop').map((listener) => guarded(() => listener.call(this.worker)));
  }

  dying() {
    this.worker.emit('unexpectedError');
  }

  counted() {
    this.worker.count++;
  }

  errorReply(err) {
    return { type: 'error', finished: true, message: textOf(err) };
  }
}

const isClass = (exported) => /^class\b/.test(Function.prototype.toString.call(exported));

// parameters is how many a function declares, which tells the styles apart; a class is of ewd-qoper8, whatever it declares.
const parameters = (exported) => (typeof exported === 'function' && !isClass(exported) ? exported.length : 0);

function noHandler(type) {
  return { error: `No handler found for ${type} message` };
}

// likeWorker makes what a class is constructed as: an instance of it, on which the worker's members are found too.
function likeWorker(exported, worker) {
  function Instance() {}
  Instance.prototype = new Proxy(exported.prototype, {
    get(prototype, key) {
      const member = key in prototype ? prototype[key] : worker[key];
      return key in prototype || typeof member !== 'function' ? member : member.bind(worker);
    },
  });
  return Instance;
}
