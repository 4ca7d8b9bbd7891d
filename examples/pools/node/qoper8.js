'use strict';

// A child of Q-Oper8, asynchronous: the callback's value is the reply.

const { childProcess } = require('qoper8');

childProcess.handler((action, callback) => {
  setTimeout(() => callback({ actionNo: action.actionNo, reversed: [...String(action.text)].reverse().join('') }), 1);
}, true);
