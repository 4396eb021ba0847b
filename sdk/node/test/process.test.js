// What happens to a whole process: signals, the end of the input, errors of nobody.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { post } from './post.js';

const file = fileURLToPath(new URL('worker.js', import.meta.url));

// linesOf ends lines at line feeds alone, which node:readline does not.
async function* linesOf(stream) {
  let rest = '';
  for await (const text of stream.setEncoding('utf8')) {
    const lines = (rest + text).split('\n');
    rest = lines.pop();
    yield* lines;
  }
}

// launch starts a worker. text() is what it has written to standard error.
function launch(t, how) {
  const child = spawn(process.execPath, [file, how], { env: {}, stdio: ['pipe', 'pipe', 'pipe'] });
  t.after(() => child.kill('SIGKILL'));
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (data) => { errors += data; });
  const lines = linesOf(child.stdout);
  return { child, next: async () => (await lines.next()).value, ended: once(child, 'close'), text: () => errors };
}

async function serving(t) {
  const worker = launch(t, 'serve');
  return { ...worker, url: (await worker.next()).replace('listening on ', '') };
}

async function piped(t) {
  const worker = launch(t, 'stdio');
  assert.equal(await worker.next(), '{"seriatim":1}', 'the first line');
  return {
    ...worker,
    send: (id, value, more) => worker.child.stdin.write(`${JSON.stringify({ id, key: 'k', value, headers: {}, attempt: 1, deadline_ms: Date.now() + 60_000, ...more })}\n`),
    answer: async () => JSON.parse(await worker.next()),
  };
}

const order = (what) => JSON.stringify({ do: what });

for (const [what, reason] of [['timer', 'in a timer'], ['detached', 'detached'], ['event', 'an event'], ['string', 'no error at all'], ['throw', 'thrown']]) {
  test(`what goes wrong (${what}) is the failure of one record`, async (t) => {
    const http = await serving(t);
    const other = post(http.url, {}, order('released'));
    const { status, headers } = await post(http.url, {}, order(what));
    assert.deepEqual([status, decodeURIComponent(headers['seriatim-error'])], [500, reason]);
    http.child.kill('SIGUSR2');
    assert.equal((await other).body, 'released');

    const lines = await piped(t);
    lines.send(1, order('released'));
    lines.send(2, order(what));
    assert.deepEqual(await lines.answer(), { id: 2, error: reason, kind: 'retry' });
    lines.child.kill('SIGUSR2');
    assert.deepEqual(await lines.answer(), { id: 1, outputs: [{ value: 'released' }] });
    assert.match(lines.text() + http.text(), new RegExp(reason));
  });
}

test('what goes wrong when the record was answered is only told', async (t) => {
  const { url, child, text } = await serving(t);
  assert.equal((await post(url, {}, order('late'))).body, 'done');
  while (!text().includes('after its record was answered: Error: too late')) await once(child.stderr, 'data');
  assert.equal((await post(url, {}, 'v')).body, 'v');
});

test('what belongs to no record ends the process', async (t) => {
  const { child, ended, text } = await serving(t);
  child.kill('SIGHUP');
  assert.deepEqual(await ended, [1, null]);
  assert.match(text(), /of no record/);
});

test('SIGTERM lets finish what runs, then the process ends', async (t) => {
  const { child, url, ended } = await serving(t);
  // One connection is idle, another has sent half of its request.
  await post(url, {}, 'v', { agent: new Agent({ keepAlive: true }) });
  const req = request(url, { method: 'POST', headers: { 'Content-Length': 4, Expect: '100-continue' } });
  req.flushHeaders();
  await once(req, 'continue'); // it has been read so far
  child.kill('SIGTERM');
  for (let open = true; open;) { // until nobody listens any more
    open = await post(url, {}, 'v').then(() => true, () => false);
  }
  req.end('half');
  const [res] = await once(req, 'response');
  assert.equal(res.statusCode, 200);
  assert.equal(res.headers.connection, 'close');
  res.resume();
  assert.deepEqual(await ended, [0, null]);
});

test('lines: values, several outputs, failures', async (t) => {
  const { send, answer } = await piped(t);
  send(1, 'v');
  assert.deepEqual(await answer(), { id: 1, outputs: [{ value: 'v' }] });
  send(2, { base64: '/w==' });
  assert.deepEqual(await answer(), { id: 2, outputs: [{ value: { base64: '/w==' } }] });
  send(3, order('none'));
  assert.deepEqual(await answer(), { id: 3, outputs: [] });
  send(4, order('reject'));
  assert.deepEqual(await answer(), { id: 4, error: 'no such customer', kind: 'reject' });
  send(5, order('retry'));
  assert.deepEqual(await answer(), { id: 5, error: 'busy', kind: 'retry', after_ms: 1500 });
});

test('lines: all of a record arrives', async (t) => {
  const { send, answer } = await piped(t);
  const line = {
    pipeline: 'p', topic: 'in', partition: 3, offset: 42, timestamp: 7, key: null, headers: { a: ['1', null], ['__proto__']: 'x' },
    attempt: 2, deadline_ms: Date.now() + 1e9, idempotency_key: 'p/t/3/42', traceparent: '00-a-b-01', note: 'half done', new_some_day: true,
  };
  send(1, order('see'), line);
  assert.deepEqual(JSON.parse((await answer()).outputs[0].value), {
    pipeline: 'p', topic: 'in', partition: 3, offset: 42, timestamp: 7, key: null, value: 12, headers: [['a', '1'], ['a', null], ['__proto__', 'x']],
    idempotencyKey: 'p/t/3/42', traceparent: '00-a-b-01', attempt: 2, deadline: line.deadline_ms, lastNote: 'half done',
  });
});

test('lines: pieces of any size, and many at once', async (t) => {
  const { child, send, answer, next } = await piped(t);
  const line = Buffer.from(`${JSON.stringify({ id: 1, value: 'é\u2028', headers: {} })}\n`);
  for (const byte of line) {
    child.stdin.write(Buffer.from([byte]));
    await new Promise((resolve) => { setImmediate(resolve); });
  }
  assert.deepEqual(await answer(), { id: 1, outputs: [{ value: 'é\u2028' }] });
  const large = 'x'.repeat(1 << 20);
  send(2, large);
  assert.equal((await answer()).outputs[0].value.length, large.length);
  for (let id = 1; id <= 1000; id++) send(id, String(id));
  const ids = [];
  for (let i = 0; i < 1000; i++) ids.push(JSON.parse(await next()).id);
  assert.deepEqual(ids, Array.from({ length: 1000 }, (_, i) => i + 1));
});

test('lines: standard output belongs to the answers', async (t) => {
  const { child, send, answer, text } = await piped(t);
  send(1, order('log'));
  assert.deepEqual(await answer(), { id: 1, outputs: [{ value: order('log') }] });
  while (text() !== 'on the console\non stdout\n') await once(child.stderr, 'data');
});

test('lines: a batch has one line, with the answers by id', async (t) => {
  const { send, answer } = await piped(t);
  send(7, undefined, { batch: [{ id: 1, value: 'a', deadline_ms: Date.now() + 60_000 }, { id: 2, value: order('reject') }, { id: 3, value: order('timer') }] });
  assert.deepEqual(await answer(), { id: 7, answers: [
    { id: 1, outputs: [{ value: 'a' }] },
    { id: 2, error: 'no such customer', kind: 'reject' },
    { id: 3, error: 'in a timer', kind: 'retry' },
  ] });
});

test('lines: the deadline aborts, and more time puts it off', async (t) => {
  const { send, answer } = await piped(t);
  send(1, order('aborted'), { deadline_ms: Date.now() + 20 });
  assert.deepEqual(await answer(), { id: 1, outputs: [{ value: 'Seriatim waits no more' }] });
  send(2, order('aborted'), { deadline_ms: 0 });
  assert.deepEqual(await answer(), { id: 2, outputs: [{ value: 'Seriatim waits no more' }] }, 'it was over when it came');
  send(3, order('extend'), { deadline_ms: Date.now() + 5_000 });
  assert.deepEqual(await answer(), { id: 3, extend: 60_000 });
  const { extend, ...rest } = await answer();
  assert.deepEqual(rest, { id: 3 });
  assert.ok(extend > 1_000 && extend <= 5_000, `the time of an attempt again, not ${extend}`);
  assert.deepEqual(await answer(), { id: 3, note: 'half done' });
  assert.deepEqual(await answer(), { id: 3, outputs: [{ value: '{"taken":[true,true,true],"aborted":false}' }] });
});

test('lines: a note gets out before the process dies', async (t) => {
  const { send, answer } = await piped(t);
  send(1, order('notes'));
  assert.deepEqual(await answer(), { id: 1, note: 'before the end' });
});

test('lines: the end of the input lets finish what runs, then the process ends', async (t) => {
  const { child, send, answer, ended } = await piped(t);
  send(1, order('released'));
  send(2, 'v');
  assert.equal((await answer()).id, 2);
  child.stdin.end();
  child.kill('SIGUSR2');
  assert.deepEqual(await answer(), { id: 1, outputs: [{ value: 'released' }] });
  assert.deepEqual(await ended, [0, null]);
});

test('lines: SIGTERM and a reader that has gone end the process at once', async (t) => {
  const { child, send, ended } = await piped(t);
  send(1, order('released'));
  child.kill('SIGTERM');
  assert.deepEqual(await ended, [0, null]);

  const orphan = await piped(t);
  orphan.child.stdout.destroy();
  orphan.send(1, 'v');
  assert.deepEqual(await orphan.ended, [0, null]);
});
