import assert from 'node:assert/strict';
import { test } from 'node:test';

import { deduplicate, Memory } from '../index.js';

// counter is an effect that returns how often it has happened.
function counter() {
  let count = 0;
  return async () => ++count;
}

test('an effect happens once for a key', async () => {
  const once = deduplicate();
  const effect = counter();
  assert.deepEqual([await once('a', effect), await once('a', effect), await once('b', effect), await once('a', effect)], [1, 1, 2, 1]);
});

test('who asks while it runs gets its result', async () => {
  const once = deduplicate();
  let done;
  let calls = 0;
  const effect = () => {
    calls++;
    return new Promise((resolve) => { done = resolve; });
  };
  const asked = [once('a', effect), once('a', effect)];
  while (!done) await null;
  const third = once('a', effect);
  done('once');
  assert.deepEqual(await Promise.all([...asked, third]), ['once', 'once', 'once']);
  assert.equal(calls, 1);
});

test('an effect that fails is not remembered, and fails for all who wait', async () => {
  const once = deduplicate();
  const fail = () => { throw new Error('down'); };
  const both = await Promise.allSettled([once('a', fail), once('a', counter())]);
  assert.deepEqual(both.map(({ reason }) => reason.message), ['down', 'down']);
  assert.equal(await once('a', counter()), 1);
});

test('an effect without a result happens once too', async () => {
  const once = deduplicate();
  let calls = 0;
  assert.deepEqual([await once('a', () => { calls++; }), await once('a', () => { calls++; })], [null, null]);
  assert.equal(calls, 1);
});

test('a store of your own', async () => {
  const results = new Map([['known', { receipt: 7 }]]);
  const store = { get: async (key) => results.get(key), set: async (key, result) => { results.set(key, result); } };
  const effect = counter();
  assert.deepEqual(await deduplicate(store)('known', effect), { receipt: 7 });
  assert.equal(await deduplicate(store)('a', effect), 1);
  assert.equal(await deduplicate(store)('a', effect), 1, 'another process');
  assert.equal(results.get('a'), 1);
});

test('without the store the effect does not happen; when it cannot be stored it has', async (t) => {
  const down = async () => { throw new Error('the store is down'); };
  const effect = counter();
  await assert.rejects(deduplicate({ get: down, set: down })('a', effect), /the store is down/);
  const error = t.mock.method(console, 'error', () => {});
  assert.equal(await deduplicate({ get: () => undefined, set: down })('a', effect), 1);
  assert.equal(error.mock.callCount(), 1);
});

test('there must be a key', async () => {
  await assert.rejects(deduplicate()(undefined, counter()), /no key/);
});

test('the memory is bounded, and forgets what was used longest ago', async () => {
  const once = deduplicate(new Memory(2));
  const effect = counter();
  const seen = [];
  for (const key of ['a', 'b', 'a', 'c', 'a', 'b']) seen.push(await once(key, effect));
  assert.deepEqual(seen, [1, 2, 1, 3, 1, 4]);
});
