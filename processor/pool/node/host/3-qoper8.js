// Q-Oper8: what require('qoper8') gives, and the one function that a module registers with it.

const registered = { handler: null, isAsync: false, asked: false };

// qoper8 is what require('qoper8') gives.
const qoper8 = {
  childProcess: {
    handler(handler, isAsync) {
      if (typeof handler !== 'function') throw new TypeError('childProcess.handler needs a function');
      [registered.handler, registered.isAsync] = [handler, isAsync === true];
      start();
    },
  },
  get masterProcess() {
    throw new Error('there is no masterProcess in a child of a Stint pool: send to the queue');
  },
};

class QOper8 {
  constructor(style) {
    this.always = style === 'qoper8-async';
  }

  // The module may register its handler later, when its database is connected for example.
  waits() {
    return !registered.handler;
  }

  start() {
    markReady();
  }

  handle(item, action) {
    action.actionNo = item.id;
    const done = (result) => item.done(result);
    if (this.always || registered.isAsync) return watch(item, registered.handler(action, done));
    const result = registered.handler(action);
    if (result && typeof result.then === 'function') return void result.then(done, (err) => failed(item, err));
    done(result);
  }

  ended() {}

  release() {}

  stop() {
    return [];
  }

  dying() {}

  errorReply(err) {
    return { error: textOf(err) };
  }
}

// watch makes the rejection of a promise that a handler returned the failure of its item.
function watch(item, returned) {
  if (returned && typeof returned.then === 'function') returned.then(undefined, (err) => failed(item, err));
}
