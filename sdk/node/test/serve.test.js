import assert from 'node:assert/strict';
import { once } from 'node:events';
import { Agent, createServer, request } from 'node:http';
import { test } from 'node:test';

import { Reject, Retry, serve } from '../index.js';
import { outputsType, post, send } from './post.js';

// start serves a handler for the length of a test, and returns where.
async function start(t, handler, options) {
  const server = await serve(handler, { port: 0, ...options });
  t.after(() => server.close());
  return server.url;
}

test('all of a record arrives, and bytes go both ways', async (t) => {
  let seen;
  const bytes = Buffer.from([0, 255, 37, 13, 10]);
  const url = await start(t, (record, context) => {
    seen = { record, context };
    return { key: record.key, value: record.value, headers: { all: record.headers.map(([, v]) => v), é: 'é', gone: [], ['__proto__']: 'p' } };
  });
  const reply = await post(url, {
    'Idempotency-Key': '"orders/id/3/42"', 'Seriatim-Pipeline': 'orders', 'Seriatim-Topic': 'in', 'Seriatim-Partition': '3', 'Seriatim-Offset': '42',
    'Seriatim-Timestamp': '1700000000123', 'Seriatim-Attempt': '2', 'Seriatim-Deadline-Ms': '1700000010123', 'Seriatim-Note': 'salary%20%C3%A9',
    'Seriatim-Key': '%00%FF%25%0D%0A', 'Seriatim-H-%41%2f%c3%a9': ['%20', '%ff'], 'Seriatim-Hn-n': 'null', 'Seriatim-H-': '', traceparent: '00-a-b-01',
  }, bytes);
  const { key, value, headers, ...rest } = seen.record;
  assert.deepEqual([key, value], [bytes, bytes]);
  assert.deepEqual(headers, [['A/é', Buffer.from(' ')], ['A/é', Buffer.from([255])], ['n', null], ['', Buffer.alloc(0)]]);
  assert.deepEqual(rest, { pipeline: 'orders', topic: 'in', partition: 3, offset: 42, timestamp: 1700000000123, idempotencyKey: 'orders/id/3/42', traceparent: '00-a-b-01' });
  const { attempt, deadline, lastNote, signal, note, extend } = seen.context;
  assert.deepEqual({ attempt, deadline, lastNote }, { attempt: 2, deadline: 1700000010123, lastNote: 'salary é' });
  assert.equal(signal.aborted, false);
  assert.deepEqual([await note('x'), await extend()], [false, false], 'nobody listens to notes');
  assert.equal(reply.status, 200);
  assert.equal(reply.headers['content-type'], outputsType);
  const base64 = bytes.toString('base64');
  assert.equal(reply.body, JSON.stringify([{ value: { base64 }, key: { base64 }, headers: { all: [' ', { base64: '/w==' }, null, ''], é: ['é'], gone: [], ['__proto__']: ['p'] } }]));
});

test('a null key and a null value are not empty ones', async (t) => {
  const url = await start(t, ({ key, value }) => ({ value: JSON.stringify([key && String(key), value && String(value)]) }));
  assert.equal((await post(url, { 'Seriatim-Value': 'null' }, '')).body, '[null,null]');
  assert.equal((await post(url, { 'Seriatim-Key': '' }, '')).body, '["",""]');
});

// What a handler returns, and the reply that makes of it.
const results = {
  'a value alone is the body': [{ value: 'é' }, 200, 'é'],
  'bytes, from the middle of others': [{ value: new Uint8Array([0, 65, 66, 67]).subarray(1, 3) }, 200, 'AB'],
  'an empty value': [{ value: '' }, 200, ''],
  'a tombstone': [{ value: null }, 200, '', { 'seriatim-value': 'null' }],
  'a null key': [{ value: 'v', key: null }, 200, '[{"value":"v","key":null}]', { 'content-type': outputsType }],
  'several outputs': [[{ value: 'a' }, { value: null, key: 'k' }], 200, '[{"value":"a"},{"value":null,"key":"k"}]', { 'content-type': outputsType }],
  'a list of one': [[{ value: 'a' }], 200, 'a'],
  'no output': [null, 204, ''],
  'an empty list is none too': [[], 204, ''],
  'a return that was forgotten is a mistake': [undefined, 500, ''],
  'no value': [{}, 500, ''],
  'headers without a value': [{ headers: {} }, 500, ''],
  'a number': [{ value: 1 }, 500, ''],
  'an object as the value': [{ value: {} }, 500, ''],
  'a string alone': ['v', 500, ''],
  'an output of several without a value': [[{ value: '' }, {}], 500, ''],
  'null among several': [[{ value: '' }, null], 500, ''],
  'a number as the key': [{ value: '', key: 7 }, 500, ''],
  'a number as a header': [{ value: '', headers: { n: [7] } }, 500, ''],
  'a reject': [() => { throw new Reject('no such é'); }, 422, '', { 'seriatim-error': 'no%20such%20%C3%A9' }],
  'a retry': [() => { throw new Retry(); }, 503, '', { 'retry-after': undefined, 'seriatim-error': 'try%20again' }],
  'a retry later, in whole seconds': [() => { throw new Retry(1001, 'busy'); }, 503, '', { 'retry-after': '2', 'seriatim-error': 'busy' }],
  'a retry of no time at all': [() => { throw new Retry(NaN); }, 503, '', { 'retry-after': undefined }],
  'a retry in for ever': [() => { throw new Retry(Infinity); }, 503, '', { 'retry-after': '4294968' }],
  'any other error': [() => { throw new Error('a\r\nb'); }, 500, '', { 'seriatim-error': 'a%0D%0Ab' }],
  'a rejection': [() => Promise.reject(new Error('later')), 500, '', { 'seriatim-error': 'later' }],
  'half a character': [() => { throw new Error(`${'x'.repeat(299)}😀`); }, 500, '', { 'seriatim-error': `${'x'.repeat(299)}%EF%BF%BD` }],
  'what is no error': [() => { throw undefined; }, 500, '', { 'seriatim-error': 'undefined' }], // eslint-disable-line no-throw-literal
};
for (const [name, [result, status, body, headers = {}]] of Object.entries(results)) {
  test(name, async (t) => {
    t.mock.method(console, 'error', () => {});
    const reply = await post(await start(t, typeof result === 'function' ? result : () => result), {}, 'v');
    assert.equal(reply.status, status);
    assert.equal(reply.body, body);
    for (const [header, value] of Object.entries(headers)) assert.equal(reply.headers[header], value, header);
    assert.equal(console.error.mock.callCount(), status === 500 ? 1 : 0, 'only mistakes are logged');
  });
}

test('only POST', async (t) => {
  const url = await start(t, () => assert.fail('was called'));
  assert.equal((await post(url, {}, undefined, { method: 'GET' })).status, 405);
});

test('a body that says it is huge is refused', async (t) => {
  const url = await start(t, () => assert.fail('was called'));
  const req = send(url, { 'Content-Length': 10 * 2 ** 30 });
  req.on('error', () => {}); // it could not send all
  const [res] = await once(req, 'response');
  assert.equal(res.statusCode, 413);
  req.destroy();
});

test('a body that never ends is cut off', async (t) => {
  const url = await start(t, () => assert.fail('was called'));
  const req = request(url, { method: 'POST' });
  const piece = Buffer.alloc(1 << 20);
  let sent = 0;
  let status = 413; // the reply may be lost with the connection
  req.on('response', (res) => { status = res.statusCode; }).on('error', () => {}); // it cannot send all
  const closed = new Promise((resolve) => { req.on('close', resolve); });
  const more = () => {
    while (!req.destroyed && sent++ < 1000 && req.write(piece));
  };
  req.on('drain', more);
  more();
  await closed;
  assert.equal(status, 413);
  assert.ok(sent > 100 && sent < 400, `after ${sent} MiB`);
});

test('record headers may be many and large', async (t) => {
  const url = await start(t, ({ headers }) => ({ value: `${headers.length} ${headers.at(-1)[1].length}` }));
  const many = Object.fromEntries(Array.from({ length: 3000 }, (_, i) => [`Seriatim-H-${i}`, 'x']));
  assert.equal((await post(url, { ...many, 'Seriatim-H-large': 'x'.repeat(100_000) }, 'v')).body, '3001 100000');
});

test('connections are kept for longer than Seriatim keeps them', async (t) => {
  const url = await start(t, () => ({ value: '' }));
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  t.after(() => agent.destroy());
  const ports = new Set();
  for (let i = 0; i < 3; i++) {
    const req = send(url, {}, 'v', { agent });
    req.on('socket', (socket) => socket.once('connect', () => ports.add(socket.localPort)));
    const [res] = await once(req, 'response');
    assert.equal(res.headers['keep-alive'], 'timeout=30');
    res.resume();
    await once(res, 'close');
  }
  assert.equal(ports.size, 1);
});

test('who closes the connection waits no more: the signal is aborted, and another has its turn', async (t) => {
  const aborted = [];
  const url = await start(t, ({ value }, { signal }) => {
    if (String(value) !== 'hang') return { value };
    signal.addEventListener('abort', () => aborted.push(signal.reason.message));
    first.emit('underway');
    return new Promise(() => {}); // in spite of it
  }, { concurrency: 1 });
  const first = send(url, {}, 'hang');
  first.on('error', () => {});
  await once(first, 'underway');
  const second = post(url, {}, 'next'); // waits for its turn
  const third = send(url, {}, 'given up'); // is given up before it has its turn
  third.on('error', () => {});
  await once(third, 'finish');
  third.destroy();
  first.destroy();
  assert.equal((await second).body, 'next');
  assert.deepEqual(aborted, ['Seriatim waits no more']);
});

test('no more than concurrency run at once', async (t) => {
  let running = 0;
  let most = 0;
  const url = await start(t, async ({ value }) => {
    most = Math.max(most, ++running);
    await new Promise((resolve) => { setTimeout(resolve, 5); });
    running--;
    if (String(value) === '3') throw new Retry();
    return { value };
  }, { concurrency: 2 });
  const replies = await Promise.all(Array.from({ length: 10 }, (_, i) => post(url, {}, String(i))));
  assert.deepEqual(replies.map((reply) => reply.body), ['0', '1', '2', '', '4', '5', '6', '7', '8', '9']);
  assert.equal(most, 2);
});

test('mistakes of the caller', async (t) => {
  await assert.rejects(serve(undefined, { port: 0 }), /handler must be a function/);
  await assert.rejects(serve(() => null, { port: 0, concurrency: 0 }), /concurrency is 0/);
  await assert.rejects(serve(() => null, { port: 0, concurrency: NaN }), /concurrency is NaN/);
  const { port } = new URL(await start(t, () => null));
  await assert.rejects(serve(() => null, { port }), { code: 'EADDRINUSE' });
});

test('more time, and notes', async (t) => {
  const calls = [];
  const listener = createServer(async (req, res) => {
    const parts = [];
    for await (const part of req) parts.push(part);
    calls.push(`${req.method} ${req.url} ${Buffer.concat(parts)}`);
    res.statusCode = req.url.startsWith('/late/') ? 409 : req.method === 'PUT' ? 204 : 200;
    res.end(req.method === 'PUT' ? undefined : '{"deadline_ms":30000}');
  }).listen(0, '127.0.0.1');
  await once(listener, 'listening');
  t.after(() => { listener.closeAllConnections(); listener.close(); });
  const url = await start(t, async (_, { extend, note }) => (
    { value: String([await extend(), await extend(30_000.4), await note('salary service called: é')]) }
  ));
  const base = `http://127.0.0.1:${listener.address().port}`;
  assert.equal((await post(url, { 'Seriatim-Attempt-Url': `${base}/attempts/t` }, 'v')).body, 'true,true,true');
  assert.deepEqual(calls.splice(0), ['POST /attempts/t/extend ', 'POST /attempts/t/extend {"ms":30000}', 'PUT /attempts/t/note salary service called: é']);
  assert.equal((await post(url, { 'Seriatim-Attempt-Url': `${base}/late/t` }, 'v')).body, 'false,false,false');
  assert.equal((await post(url, { 'Seriatim-Attempt-Url': 'http://127.0.0.1:1/t' }, 'v')).body, 'false,false,false', 'nobody there');
  assert.equal((await post(url, {}, 'v')).body, 'false,false,false', 'not configured');
});

test('a note that is too long fails the record', async (t) => {
  t.mock.method(console, 'error', () => {});
  const url = await start(t, async ({ value }, { note }) => {
    await note(String(value));
    return null;
  });
  assert.equal((await post(url, {}, 'é'.repeat(512))).status, 204);
  const { status, headers } = await post(url, {}, 'é'.repeat(513));
  assert.equal(status, 500);
  assert.match(decodeURIComponent(headers['seriatim-error']), /1024 bytes at most/);
});

test('each record of a batch has its own answer', async (t) => {
  const seen = [];
  const url = await start(t, async (record, { attempt, deadline, lastNote, note }) => {
    assert.equal(await note('of one record'), false, 'it would be of all');
    seen.push([record.offset, record.idempotencyKey, attempt, deadline, lastNote]);
    if (record.value === null) return null;
    if (String(record.key) === 'reject') throw new Reject('no');
    if (String(record.key) === 'retry') throw new Retry(50, 'busy');
    return { value: record.value };
  }, { concurrency: 2 });
  const lines = [
    { id: 1, offset: 5, key: 'k', value: { base64: '/w==' }, headers: { a: ['1', null] }, attempt: 3, deadline_ms: 9, idempotency_key: 'p/t/0/5', note: 'n' },
    { id: 2, offset: 7, key: null, value: null, headers: {}, attempt: 1, deadline_ms: 9, idempotency_key: 'p/t/0/7' },
    { id: 3, offset: 8, key: 'reject', value: '', headers: {}, attempt: 1, deadline_ms: 9, idempotency_key: 'p/t/0/8' },
    { id: 4, offset: 9, key: 'retry', value: '', headers: {}, attempt: 1, deadline_ms: 9, idempotency_key: 'p/t/0/9' },
  ];
  const body = lines.map((line) => `${JSON.stringify(line)}\n`).join('');
  const noted = createServer(() => assert.fail('something was noted')).listen(0, '127.0.0.1');
  await once(noted, 'listening');
  t.after(() => noted.close());
  const reply = await post(url, { 'Seriatim-Attempt-Url': `http://127.0.0.1:${noted.address().port}/`, 'Content-Type': 'application/x-ndjson', 'Seriatim-Batch': '4' }, body);
  assert.equal(reply.status, 200);
  assert.equal(reply.headers['content-type'], 'application/x-ndjson');
  assert.deepEqual(reply.body.trim().split('\n').map((line) => JSON.parse(line)), [
    { id: 1, outputs: [{ value: { base64: '/w==' } }] },
    { id: 2, outputs: [] },
    { id: 3, error: 'no', kind: 'reject' },
    { id: 4, error: 'busy', kind: 'retry', after_ms: 50 },
  ]);
  assert.deepEqual(seen, [[5, 'p/t/0/5', 3, 9, 'n'], [7, 'p/t/0/7', 1, 9, ''], [8, 'p/t/0/8', 1, 9, ''], [9, 'p/t/0/9', 1, 9, '']]);
  assert.equal((await post(url, { 'Seriatim-Batch': '1' }, '{"id":1')).status, 400, 'no JSON');
});
