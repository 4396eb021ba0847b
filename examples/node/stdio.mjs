// A worker for Seriatim that it starts itself (transform.exec), with nothing but
// Node. Copy this file and edit transform(); the rest speaks the contract of
// docs/workers.md.
//
//   transform:
//     exec: {command: [node, stdio.mjs]}

import { createInterface } from 'node:readline';

// Standard output belongs to the answers.
console.log = console.info = console.debug = console.error;

// transform makes the outputs of one record. It may get a record again: after an
// error, a crash or a rebalance.
//
// record is the line that came, with key and value as a Buffer or null. Its
// headers are an array of [name, Buffer or null].
//
// Return {value}, which is a string, a Buffer or null, with key and headers if
// these shall change; an array of such for several outputs; nothing for none.
// Throw Reject if this record can never work, Retry or anything else to be asked
// again.
async function transform(record) {
  if (record.headers.some(([name, value]) => name === 'Test' && String(value) === 'yes')) return;
  if (record.value === null) return { value: null }; // a tombstone stays one
  const order = parse(record);
  if (Array.isArray(order)) return order.map((one) => ({ value: JSON.stringify(one) }));
  if (order.account === 'closed') throw new Reject('the account is closed');
  if (order.account === 'busy') throw new Retry('the bank is busy', 1);
  return {
    value: JSON.stringify({ ...order, receipt: record.idempotency_key }),
    headers: { 'content-type': 'application/json' },
  };
}

function parse(record) {
  try {
    const order = JSON.parse(record.value);
    if (order !== null && typeof order === 'object') return order;
  } catch {
    // not JSON at all
  }
  throw new Reject(`the value of ${record.key} is no JSON object or array`);
}

// ---------------------------------------------------------------------------

// Reject says that this record can never work.
class Reject extends Error {}

// Retry asks to be asked again, after that many seconds at least.
class Retry extends Error {
  constructor(message, seconds = 0) {
    super(message);
    this.seconds = seconds;
  }
}

// bytesOf reads bytes as they stand in JSON: null, text, or {"base64"}.
function bytesOf(json) {
  if (json === null) return null;
  return typeof json === 'string' ? Buffer.from(json) : Buffer.from(json.base64, 'base64');
}

// inJSON is how bytes travel in JSON. base64 is always right for a Buffer.
function inJSON(bytes) {
  if (bytes === null || typeof bytes === 'string') return bytes;
  return { base64: bytes.toString('base64') };
}

function recordOf({ headers, key, value, ...rest }) {
  const list = [];
  for (const [name, values] of Object.entries(headers)) {
    for (const one of [values].flat()) list.push([name, bytesOf(one)]);
  }
  return { ...rest, key: bytesOf(key), value: bytesOf(value), headers: list };
}

// outputJSON is one output. Headers are a value or an array of values for each
// name, which replace all that the record has of it; [] drops them.
function outputJSON({ key, value, headers = {} }) {
  if (value === undefined) throw new Error('an output has no value');
  const output = { value: inJSON(value), headers: {} };
  if (key !== undefined) output.key = inJSON(key); // else it stays as it is
  for (const [name, values] of Object.entries(headers)) output.headers[name] = [values].flat().map(inJSON);
  return output;
}

function failureJSON(err) {
  const error = String(err?.message ?? err).slice(0, 300).toWellFormed();
  if (err instanceof Reject) return { error, kind: 'reject' };
  if (err instanceof Retry) return { error, kind: 'retry', after_ms: Math.round(err.seconds * 1000) };
  console.error(err);
  return { error, kind: 'retry' };
}

async function handle(line) {
  const message = JSON.parse(line);
  let answer;
  try {
    const result = await transform(recordOf(message));
    answer = { outputs: [result ?? []].flat().map(outputJSON) };
  } catch (err) {
    answer = failureJSON(err);
  }
  send({ id: message.id, ...answer });
}

let lines = '';

// send writes what comes in one turn of the loop at once: each write to a pipe
// keeps Node waiting.
function send(message) {
  if (lines === '') {
    setImmediate(() => {
      process.stdout.write(lines);
      lines = '';
    });
  }
  lines += `${JSON.stringify(message)}\n`;
}

// The end of the input is the end of Seriatim: what runs may finish, and then
// nothing keeps this process. SIGTERM is for those that do not obey.
process.on('SIGTERM', () => process.exit(0));
createInterface({ input: process.stdin, crlfDelay: Infinity }).on('line', handle);
send({ seriatim: 1 }); // the first line: ready
