'use strict';

// Runs worker modules under the master of ewd-qoper8 itself: node master.js WORK RESULT, in the directory of an installed
// ewd-qoper8. WORK is a JSON array of {module, messages}; RESULT gets, for each, the responses to each message.

const fs = require('fs');
const Module = require('module');
const path = require('path');

const require_ = Module.createRequire(path.join(process.cwd(), 'x.js'));
const { masterProcess } = require_('ewd-qoper8');
const work = JSON.parse(fs.readFileSync(process.argv[2], 'utf8'));
const results = [];

function run({ module, messages }, done) {
  const q = new masterProcess();
  q.exitOnStop = false;
  q.on('start', function () {
    this.log = false;
    this.setWorkerPoolSize(1);
    if (module) this.worker.module = module;
  });
  q.on('started', function () {
    let left = messages.length;
    const responses = messages.map((message, i) => {
      const list = [];
      this.handleMessage(JSON.parse(message), (response) => {
        list.push(JSON.stringify(response));
        if (response.finished && --left === 0) done(responses);
      });
      return list;
    });
  });
  q.start();
}

function next() {
  const one = work[results.length];
  if (!one) {
    fs.writeFileSync(process.argv[3], JSON.stringify(results));
    process.exit(0);
  }
  run(one, (responses) => {
    results.push(responses);
    next();
  });
}

next();
