'use strict';

// A worker module of ewd-qoper8: it counts the words of a text, and says so line by line on the way.

module.exports = function () {
  this.on('start', function (isFirst) {
    if (this.log) console.log(`worker ${process.pid} starts, the first: ${isFirst}`);
  });

  this.on('message', function (messageObj, send, finished) {
    if (messageObj.type !== 'count') {
      this.emit('unknownMessage', messageObj, send, finished);
      return;
    }
    const lines = String(messageObj.text).split('\n');
    let words = 0;
    lines.forEach((line, i) => {
      words += line.split(/\s+/).filter(Boolean).length;
      if (i < lines.length - 1) send({ line: i + 1, words });
    });
    finished({ lines: lines.length, words });
  });

  this.on('stop', function () {
    if (this.log) console.log(`worker ${process.pid} stops: ${JSON.stringify(this.getStats())}`);
  });
};
