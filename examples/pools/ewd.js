// stint work pages --node ./examples/pools/ewd.js
// A worker module of ewd-qoper8, as its guide has it.
module.exports = function () {
  this.on('message', function (messageObj, send, finished) {
    finished({ hello: messageObj.name });
  });
};
