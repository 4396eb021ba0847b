// A worker for Seriatim with nothing but Node. Copy this file and edit
// transform(); the rest speaks the contract of docs/workers.md.
//
//   PORT=9000 node worker.mjs

import { isUtf8 } from 'node:buffer';
import { createServer } from 'node:http';

// transform makes the outputs of one record. It may get a record again: after an
// error, a crash or a rebalance.
//
// record.key and record.value are a Buffer or null, record.headers is an array of
// [name, Buffer or null]. See recordOf for the rest.
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
  const receipt = await once(record.idempotencyKey, () => charge(order));
  return {
    value: JSON.stringify({ ...order, receipt }),
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

let receipts = 0;

// charge stands for a side effect that must not happen twice.
async function charge(order) {
  if (order.account === 'closed') throw new Reject('the account is closed');
  if (order.account === 'busy') throw new Retry('the bank is busy', 1);
  return ++receipts;
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

const remembered = new Map();
const REMEMBER = 10_000;

// once runs an effect once for a key, even if it is asked again while the effect
// is running, and returns its result. This memory is lost with the process: an
// effect that must survive that belongs into a database, in one transaction with
// its key, or to a service that takes the key itself.
function once(key, effect) {
  if (!key) return effect();
  let result = remembered.get(key);
  if (result === undefined) {
    result = effect();
    remembered.set(key, result);
    result.catch(() => remembered.delete(key));
    if (remembered.size > REMEMBER) remembered.delete(remembered.keys().next().value); // the oldest
  }
  return result;
}

// decode undoes the percent-encoding of keys and headers, which may be any bytes.
function decode(text) {
  return Buffer.from(text.replace(/%([0-9a-f]{2})/gi, (_, hex) => String.fromCharCode(parseInt(hex, 16))), 'latin1');
}

function recordOf(req, body) {
  const get = (name) => req.headers[`seriatim-${name}`];
  const headers = [];
  for (const [field, values] of Object.entries(req.headersDistinct)) {
    const match = /^seriatim-(h|hn)-(.*)$/s.exec(field);
    if (!match) continue;
    const name = decode(match[2]).toString();
    for (const value of values) headers.push([name, match[1] === 'hn' ? null : decode(value)]);
  }
  return {
    idempotencyKey: req.headers['idempotency-key'],
    pipeline: get('pipeline'),
    topic: get('topic'),
    partition: Number(get('partition')),
    offset: BigInt(get('offset') ?? 0),
    timestamp: Number(get('timestamp')), // ms since 1970
    attempt: Number(get('attempt') ?? 1), // counted from 1
    deadline: Number(get('deadline-ms')), // ms since 1970; nobody waits any longer
    key: get('key') === undefined ? null : decode(get('key')),
    value: get('value') === 'null' ? null : body,
    headers,
  };
}

// inJSON is how bytes travel in JSON: null, text, or {"base64"} if they are none.
function inJSON(bytes) {
  if (bytes === null || typeof bytes === 'string') return bytes;
  return isUtf8(bytes) ? bytes.toString() : { base64: bytes.toString('base64') };
}

// outputJSON is one output. Headers are a value or an array of values for each
// name, which replace all that the record has of it; [] drops them.
function outputJSON({ key, value, headers = {} }) {
  const output = { value: inJSON(value), headers: {} };
  if (key !== undefined) output.key = inJSON(key); // else it stays as it is
  for (const [name, values] of Object.entries(headers)) output.headers[name] = [values].flat().map(inJSON);
  return output;
}

function answer(res, status, headers = {}, body = undefined) {
  res.statusCode = status;
  for (const [name, value] of Object.entries(headers)) res.setHeader(name, value);
  if (stopping) res.setHeader('Connection', 'close');
  res.end(body); // with a Content-Length
}

function answerWith(res, result) {
  const outputs = [result ?? []].flat();
  const [only] = outputs;
  if (outputs.length === 0) {
    answer(res, 204);
  } else if (outputs.length > 1 || only.key !== undefined || only.headers) {
    answer(res, 200, { 'Content-Type': 'application/vnd.seriatim.outputs+json' }, JSON.stringify(outputs.map(outputJSON)));
  } else if (only.value === null) {
    answer(res, 200, { 'Seriatim-Value': 'null' }, '');
  } else {
    answer(res, 200, {}, Buffer.from(only.value)); // throws if there is none
  }
}

function answerError(res, err) {
  const message = String(err?.message ?? err).slice(0, 300).toWellFormed();
  const headers = { 'Seriatim-Error': encodeURIComponent(message) };
  if (err instanceof Reject) return answer(res, 422, headers);
  if (err instanceof Retry) return answer(res, 503, { ...headers, 'Retry-After': String(err.seconds) });
  console.error(err);
  answer(res, 500, headers);
}

async function handle(req, res) {
  if (req.method !== 'POST') return answer(res, 405, { Allow: 'POST' });
  try {
    const parts = [];
    for await (const part of req) parts.push(part);
    answerWith(res, await transform(recordOf(req, Buffer.concat(parts))));
  } catch (err) {
    if (!res.headersSent && !req.socket.destroyed) answerError(res, err);
  }
}

// Record headers travel as HTTP headers: Node's 16 KiB would be little.
const server = createServer({ maxHeaderSize: 256 * 1024, keepAliveTimeout: 30_000 }, handle);
// Seriatim gives up an idle connection after 4 s. It must be the first to do so,
// or a request may meet a connection that is just being closed: hence 30 s above.

let stopping = false;

// stop lets running transforms finish, for 10 s.
function stop() {
  if (stopping) return;
  stopping = true;
  server.close(); // and the connections that are idle
  setTimeout(() => server.closeAllConnections(), 10_000).unref();
}

process.on('SIGTERM', stop);
process.on('SIGINT', stop);

server.listen(Number(process.env.PORT ?? 9000), process.env.HOST ?? '127.0.0.1', () => {
  const { address, port, family } = server.address();
  console.log(`listening on http://${family === 'IPv6' ? `[${address}]` : address}:${port}`);
});
