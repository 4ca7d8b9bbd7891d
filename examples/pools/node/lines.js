'use strict';

// A child of a pool with nothing but the lines protocol: it answers with the text in upper case.

const fs = require('fs');
const readline = require('readline');

const input = fs.createReadStream(null, { fd: Number(process.env.STINT_IN) });
const say = (line) => fs.writeSync(Number(process.env.STINT_OUT), JSON.stringify(line) + '\n');

readline.createInterface({ input, crlfDelay: Infinity }).on('line', (text) => {
  const line = JSON.parse(text);
  if (line.type === 'start') say({ type: 'ready' });
  if (line.type === 'work' && line.body === undefined) say({ type: 'failed', id: line.id, message: 'the body is no text', retry: false });
  if (line.type === 'work' && line.body !== undefined) say({ type: 'done', id: line.id, body: line.body.toUpperCase() });
  if (line.type === 'stop') process.exit(0);
});
