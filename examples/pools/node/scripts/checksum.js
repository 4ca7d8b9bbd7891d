'use strict';

// A script of qworker: an item names it, {"script":"checksum","payload":{"text":"..."}}.

const { createHash } = require('crypto');

module.exports = function (payload, callback) {
  if (!payload || typeof payload.text !== 'string') {
    callback(new Error('the payload has no text'));
    return;
  }
  callback(null, { sha256: createHash('sha256').update(payload.text).digest('hex') });
};
