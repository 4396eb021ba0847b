import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const file = fileURLToPath(new URL('stdio.mjs', import.meta.url));

let child;
let lines;
before(async () => {
  child = spawn(process.execPath, [file], { env: {}, stdio: ['pipe', 'pipe', 'pipe'] });
  lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  assert.deepEqual(JSON.parse((await lines.next()).value), { seriatim: 1 });
});
after(() => child.kill('SIGKILL'));

const record = { topic: 'in', partition: 0, offset: 1, timestamp: 0, key: 'k', headers: {}, attempt: 1, idempotency_key: 'p/t/0/1' };

// ask sends one record and returns the answer.
async function ask(id, fields) {
  child.stdin.write(`${JSON.stringify({ id, ...record, ...fields })}\n`);
  const answer = JSON.parse((await lines.next()).value);
  assert.equal(answer.id, id);
  return answer;
}

test('a value, with a header of its own', async () => {
  const { outputs: [output, ...more] } = await ask(1, { value: '{"text":"é"}' });
  assert.deepEqual(more, []);
  assert.deepEqual(Object.keys(output), ['value', 'headers'], 'the key stays as it is');
  assert.deepEqual(output.headers, { 'content-type': ['application/json'] });
  assert.deepEqual(JSON.parse(output.value), { text: 'é', receipt: 'p/t/0/1' });
});

test('bytes', async () => {
  const value = { base64: Buffer.from('{"a":1}').toString('base64') };
  assert.equal(JSON.parse((await ask(2, { value })).outputs[0].value).a, 1);
});

test('a tombstone stays one', async () => {
  assert.deepEqual((await ask(3, { value: null })).outputs, [{ value: null, headers: {} }]);
});

test('several outputs, and none', async () => {
  assert.deepEqual((await ask(4, { value: '[{"id":1},{"id":2}]' })).outputs.map((o) => o.value), ['{"id":1}', '{"id":2}']);
  assert.deepEqual((await ask(5, { value: '[]' })).outputs, []);
  assert.deepEqual((await ask(6, { value: '{}', headers: { Test: ['no', 'yes'] } })).outputs, []);
  assert.equal((await ask(7, { value: '{}', headers: { Test: [null, { base64: '/w==' }] } })).outputs.length, 1);
});

test('reject and retry', async () => {
  assert.deepEqual(await ask(8, { value: 'no JSON' }), { id: 8, error: 'the value of k is no JSON object or array', kind: 'reject' });
  assert.deepEqual(await ask(9, { value: '{"account":"busy"}' }), { id: 9, error: 'the bank is busy', kind: 'retry', after_ms: 1000 });
});

test('the end of the input ends it', async () => {
  child.stdin.end();
  const [code] = await once(child, 'exit');
  assert.equal(code, 0);
});
