// Workers over HTTP.

import { createServer } from 'node:http';

import { answerOf, contextOf, inBatch, noteOf, outputJSON, reasonOf, recordOf, Reject, Retry } from './outcome.js';
import { runner } from './run.js';
import { endSoon } from './stop.js';

const MAX_BODY = 128 * 1024 * 1024; // of a request
const CALL_TIMEOUT = 5_000; // of extend and note

/**
 * serve answers records over HTTP. It resolves to {url, close} when it listens, and
 * rejects if it cannot.
 *
 * On SIGTERM and SIGINT, and with close, it takes no more connections and lets
 * finish what runs. After a signal the process is gone within 10 s.
 */
export async function serve(handler, { port = 9000, host = '127.0.0.1', concurrency } = {}) {
  const run = runner(handler, concurrency);
  let stopping = false;
  const server = createServer({
    // Record headers travel as HTTP headers: Node's 16 KiB would be little.
    maxHeaderSize: 256 * 1024,
    // Seriatim gives up an idle connection after 4 s. It must be the first to do so,
    // or a request may meet a connection that is just being closed.
    keepAliveTimeout: 30_000,
  }, async (req, res) => {
    const controller = new AbortController();
    res.on('close', () => {
      if (!res.writableFinished) controller.abort(new Error('Seriatim waits no more')); // it closed the connection
    });
    const [status, headers, body] = await replyTo(req, run, controller.signal);
    res.statusCode = status;
    for (const [name, value] of Object.entries(headers)) res.setHeader(name, value);
    if (stopping) res.setHeader('Connection', 'close');
    res.end(body);
  });
  server.maxHeadersCount = 0; // their size is the limit: what is above 2000 would be left out in silence
  await new Promise((resolve, reject) => {
    server.once('error', reject).listen(Number(port), host, resolve);
  });

  const signals = ['SIGTERM', 'SIGINT'];
  const close = () => {
    stopping = true;
    for (const signal of signals) process.off(signal, stop);
    return new Promise((resolve) => {
      server.close(() => resolve()); // and the connections that are idle
    });
  };
  const stop = () => {
    endSoon();
    close();
  };
  for (const signal of signals) process.on(signal, stop);
  const { address, port: bound, family } = server.address();
  return { url: `http://${family === 'IPv6' ? `[${address}]` : address}:${bound}`, close };
}

// A reply is [status, headers, body].
async function replyTo(req, run, signal) {
  if (req.method !== 'POST') return [405, { Allow: 'POST' }];
  try {
    const body = await bodyOf(req);
    if (!body) return failure(413, `the body has more than ${MAX_BODY} bytes`, { Connection: 'close' });
    const calls = callsOf(req.headers['seriatim-attempt-url']);
    if ('seriatim-batch' in req.headers) return await batchReply(body, run, signal, inBatch(calls));
    return reply(await run(recordFrom(req, body), contextFrom(req, signal, calls)));
  } catch (error) { // it is no request of Seriatim
    return failure(400, error);
  }
}

// bodyOf returns nothing if the body is too large.
async function bodyOf(req) {
  if (Number(req.headers['content-length']) > MAX_BODY) return undefined;
  const parts = [];
  let size = 0;
  for await (const part of req) {
    size += part.length;
    if (size > MAX_BODY) return undefined;
    parts.push(part);
  }
  return Buffer.concat(parts);
}

// decode undoes the percent-encoding of keys and headers, which may be any bytes.
function decode(text) {
  return Buffer.from(text.replace(/%([0-9a-f]{2})/gi, (_, hex) => String.fromCharCode(parseInt(hex, 16))), 'latin1');
}

function recordFrom({ headers, rawHeaders }, body) {
  const get = (name) => headers[`seriatim-${name}`];
  const list = [];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const match = /^seriatim-(h|hn)-(.*)$/s.exec(rawHeaders[i].toLowerCase());
    if (match) list.push([decode(match[2]).toString(), match[1] === 'hn' ? null : decode(rawHeaders[i + 1])]);
  }
  return {
    pipeline: get('pipeline'),
    topic: get('topic'),
    partition: Number(get('partition')),
    offset: Number(get('offset')),
    timestamp: Number(get('timestamp')),
    key: get('key') === undefined ? null : decode(get('key')),
    value: get('value') === 'null' ? null : body,
    headers: list,
    idempotencyKey: headers['idempotency-key']?.replace(/^"(.*)"$/, '$1'),
    traceparent: headers.traceparent,
  };
}

function contextFrom({ headers }, signal, calls) {
  const get = (name) => headers[`seriatim-${name}`];
  return {
    attempt: Number(get('attempt') ?? 1),
    deadline: Number(get('deadline-ms')),
    lastNote: decode(get('note') ?? '').toString(),
    signal,
    ...calls,
  };
}

// callsOf are the calls that a handler may make while it runs. They tell whether
// they were taken: without an address, and when the attempt is over, they are not.
function callsOf(url) {
  const call = async (method, path, body) => {
    if (!url) return false;
    try {
      const res = await fetch(`${url}/${path}`, { method, body, redirect: 'error', signal: AbortSignal.timeout(CALL_TIMEOUT) });
      await res.arrayBuffer(); // or the connection would not be used again
      return res.ok;
    } catch {
      return false;
    }
  };
  return {
    extend: async (ms) => call('POST', 'extend', ms === undefined ? undefined : JSON.stringify({ ms: Math.round(ms) })),
    note: async (text) => call('PUT', 'note', noteOf(text)),
  };
}

function reply({ outputs, error }) {
  if (error instanceof Reject) return failure(422, error);
  if (error instanceof Retry) return failure(503, error, error.after > 0 && { 'Retry-After': Math.ceil(error.after / 1000) });
  if (!outputs) return failure(500, error);
  const [only] = outputs;
  if (outputs.length === 0) return [204, {}];
  if (outputs.length > 1 || only.key !== undefined || only.headers) {
    return [200, { 'Content-Type': 'application/vnd.seriatim.outputs+json' }, JSON.stringify(outputs.map(outputJSON))];
  }
  return only.value === null ? [200, { 'Seriatim-Value': 'null' }] : [200, {}, only.value];
}

function failure(status, error, headers) {
  return [status, { 'Seriatim-Error': encodeURIComponent(reasonOf(error)), ...headers }];
}

// batchReply answers each record of a batch for itself, by its id.
async function batchReply(body, run, signal, calls) {
  const lines = body.toString().split('\n').filter((line) => line.trim() !== '').map((line) => JSON.parse(line));
  const answers = await Promise.all(lines.map(async (line) => (
    `${JSON.stringify({ id: line.id, ...answerOf(await run(recordOf(line), contextOf(line, signal, calls))) })}\n`
  )));
  return [200, { 'Content-Type': 'application/x-ndjson' }, answers.join('')];
}
