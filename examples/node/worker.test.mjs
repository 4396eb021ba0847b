import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { Agent, request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const file = fileURLToPath(new URL('worker.mjs', import.meta.url));

// start runs a worker and returns its process and its address.
async function start(path = file, stderr = 'inherit') {
  const child = spawn(process.execPath, [path], { env: { ...process.env, PORT: '0' }, stdio: ['ignore', 'pipe', stderr] });
  for await (const line of createInterface({ input: child.stdout })) {
    const match = /^listening on (http:\S+)$/.exec(line);
    if (match) return { child, url: match[1] };
  }
  throw new Error('the worker ended without listening');
}

function send(url, headers, body, options = {}) {
  const req = request(url, { method: 'POST', headers, ...options });
  req.end(body);
  return req;
}

// post sends one record and returns the reply.
async function post(url, headers, body, options) {
  const [res] = await once(send(url, headers, body, options), 'response');
  const parts = [];
  for await (const part of res) parts.push(part);
  return { status: res.statusCode, headers: res.headers, body: Buffer.concat(parts) };
}

const outputsType = 'application/vnd.seriatim.outputs+json';
let worker;
before(async () => { worker = await start(); });
after(() => worker.child.kill('SIGKILL'));

const order = (fields) => JSON.stringify({ id: 1, ...fields });

test('a value, with a header of its own', async () => {
  const reply = await post(worker.url, { 'Idempotency-Key': '"a"' }, order({ text: 'é' }));
  assert.equal(reply.status, 200);
  assert.equal(reply.headers['content-type'], outputsType);
  const [output, ...more] = JSON.parse(reply.body);
  assert.deepEqual(more, []);
  assert.deepEqual(Object.keys(output), ['value', 'headers'], 'the key stays as it is');
  assert.deepEqual(output.headers, { 'content-type': ['application/json'] });
  const value = JSON.parse(output.value);
  assert.equal(value.text, 'é');
  assert.equal(typeof value.receipt, 'number');
});

test('a tombstone stays one', async () => {
  const reply = await post(worker.url, { 'Seriatim-Value': 'null' });
  assert.equal(reply.status, 200);
  assert.equal(reply.headers['seriatim-value'], 'null');
  assert.equal(reply.body.length, 0);
});

test('several outputs', async () => {
  const reply = await post(worker.url, {}, JSON.stringify([{ id: 1 }, { id: 2 }]));
  assert.equal(reply.headers['content-type'], outputsType);
  assert.deepEqual(JSON.parse(reply.body).map((o) => o.value), ['{"id":1}', '{"id":2}']);
});

test('no output', async () => {
  assert.equal((await post(worker.url, {}, '[]')).status, 204);
  assert.equal((await post(worker.url, { 'Seriatim-H-%54est': '%79es' }, order())).status, 204);
  assert.equal((await post(worker.url, { 'Seriatim-H-test': 'yes', 'Seriatim-Hn-%54est': 'null' }, order())).status, 200, 'other headers');
});

test('reject', async () => {
  const reply = await post(worker.url, { 'Seriatim-Key': 'a%20b%C3%A9' }, 'no JSON');
  assert.equal(reply.status, 422);
  assert.equal(decodeURIComponent(reply.headers['seriatim-error']), 'the value of a bé is no JSON object or array');
});

test('an empty value is no tombstone', async () => {
  assert.equal((await post(worker.url, {}, '')).status, 422);
  assert.equal((await post(worker.url, {}, 'null')).status, 422);
});

test('retry, later', async () => {
  const reply = await post(worker.url, {}, order({ account: 'busy' }));
  assert.equal(reply.status, 503);
  assert.equal(reply.headers['retry-after'], '1');
  assert.equal(decodeURIComponent(reply.headers['seriatim-error']), 'the bank is busy');
});

test('only POST', async () => {
  assert.equal((await post(worker.url, {}, undefined, { method: 'GET' })).status, 405);
});

test('a side effect happens once for a key, and again after it failed', async () => {
  const receipt = async (key, fields) => {
    const reply = await post(worker.url, { 'Idempotency-Key': key }, order(fields));
    return reply.status === 200 ? JSON.parse(JSON.parse(reply.body)[0].value).receipt : reply.status;
  };
  const first = await receipt('"x"');
  assert.equal(await receipt('"x"'), first);
  assert.equal(await receipt('"y"'), first + 1);
  assert.equal(await receipt('"z"', { account: 'busy' }), 503);
  assert.equal(await receipt('"z"'), first + 2);
});

test('many record headers are no problem', async () => {
  const reply = await post(worker.url, { 'Seriatim-H-large': 'x'.repeat(100_000) }, order());
  assert.equal(reply.status, 200);
});

test('connections are kept', async () => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const ports = new Set();
  for (let i = 0; i < 3; i++) {
    const req = send(worker.url, {}, order(), { agent });
    req.on('socket', (socket) => socket.once('connect', () => ports.add(socket.localPort)));
    const [res] = await once(req, 'response');
    assert.equal(res.headers['keep-alive'], 'timeout=30');
    res.resume();
    await once(res, 'close');
  }
  agent.destroy();
  assert.equal(ports.size, 1);
});

test('SIGTERM finishes what runs, then ends', async () => {
  const { child, url } = await start();
  const exit = once(child, 'exit');
  // One connection is idle, another has sent half of its request.
  await post(url, {}, order(), { agent: new Agent({ keepAlive: true }) });
  const req = request(url, { method: 'POST', headers: { 'Content-Length': 8, Expect: '100-continue' } });
  req.flushHeaders();
  await once(req, 'continue'); // it has been read so far
  child.kill('SIGTERM');
  for (let open = true; open;) { // until nobody listens any more
    open = await post(url, {}, order()).then(() => true, () => false);
  }
  req.end('{"id":1}');
  const [res] = await once(req, 'response');
  assert.equal(res.statusCode, 200);
  assert.equal(res.headers.connection, 'close');
  res.resume();
  assert.deepEqual(await exit, [0, null]);
});

// copy starts the worker with another transform, and memory for two keys.
async function copy(t, transform, stderr) {
  const source = await readFile(file, 'utf8');
  const edited = source.replace(/^async function transform\(record\) \{.*?^\}$/ms, () => `async function transform(record) {\n${transform}\n}`);
  const forgetful = edited.replace(/^const REMEMBER = .*$/m, 'const REMEMBER = 2;');
  assert.ok(edited !== source && forgetful !== edited, 'nothing was replaced');
  const dir = await mkdtemp(join(tmpdir(), 'worker-'));
  t.after(() => rm(dir, { recursive: true }));
  await writeFile(join(dir, 'worker.mjs'), forgetful);
  const { child, url } = await start(join(dir, 'worker.mjs'), stderr);
  t.after(() => child.kill('SIGKILL'));
  return url;
}

test('a copy gets all of a record, and bytes go both ways', async (t) => {
  const url = await copy(t, `
    const { key, value, headers, ...rest } = record;
    const about = JSON.stringify(rest, (_, v) => typeof v === 'bigint' ? String(v) : v);
    return { key, value, headers: { about, seen: headers.map(([name, v]) => name + '=' + v), bytes: headers.map(([, v]) => v), gone: [] } };`);
  const bytes = Buffer.from([0, 255, 37, 13, 10]);
  const reply = await post(url, {
    'Idempotency-Key': '"orders/id/3/9007199254740993"', 'Seriatim-Pipeline': 'orders', 'Seriatim-Topic': 'in', 'Seriatim-Partition': '3',
    'Seriatim-Offset': '9007199254740993', 'Seriatim-Timestamp': '1700000000123', 'Seriatim-Attempt': '2', 'Seriatim-Deadline-Ms': '1700000010123',
    'Seriatim-Key': '%00%FF%25%0D%0A', 'Seriatim-H-%41%2f%c3%a9': ['%20', '%ff'], 'Seriatim-Hn-n': 'null', 'Seriatim-H-': '',
  }, bytes);
  const [{ key, value, headers }] = JSON.parse(reply.body);
  assert.deepEqual(key, { base64: bytes.toString('base64') });
  assert.deepEqual(value, { base64: bytes.toString('base64') });
  assert.deepEqual(headers.seen, ['A/é= ', 'A/é=\ufffd', 'n=null', '=']);
  assert.deepEqual(headers.bytes, [' ', { base64: '/w==' }, null, '']);
  assert.deepEqual(headers.gone, []);
  assert.deepEqual(JSON.parse(headers.about[0]), {
    idempotencyKey: '"orders/id/3/9007199254740993"', pipeline: 'orders', topic: 'in', partition: 3,
    offset: '9007199254740993', timestamp: 1700000000123, attempt: 2, deadline: 1700000010123,
  });
});

test('a transform that returns no value is a mistake, not an empty value', async (t) => {
  for (const result of ['{}', '{ headers: {} }', '{ value: 1 }', '[{ value: "" }, {}]']) {
    assert.equal((await post(await copy(t, `return ${result};`, 'ignore'), {}, 'v')).status, 500, result);
  }
});

test('the memory of side effects is bounded: the oldest is forgotten', async (t) => {
  const url = await copy(t, 'return { value: String(await once(record.idempotencyKey, async () => ++receipts)) };');
  const seen = [];
  for (const key of ['a', 'a', 'b', 'a', 'c', 'c', 'b', 'a']) {
    seen.push(String((await post(url, { 'Idempotency-Key': key }, 'v')).body));
  }
  assert.deepEqual(seen, ['1', '1', '2', '1', '3', '3', '2', '4']);
});
