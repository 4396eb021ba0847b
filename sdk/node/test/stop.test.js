import assert from 'node:assert/strict';
import { test } from 'node:test';

import { endSoon } from '../lib/stop.js';

test('a process that something keeps is gone in 10 s', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const exit = t.mock.method(process, 'exit', () => {});
  endSoon();
  t.mock.timers.tick(5_000);
  endSoon(); // a second signal gives no more time
  t.mock.timers.tick(4_999);
  assert.equal(exit.mock.callCount(), 0);
  t.mock.timers.tick(1);
  assert.equal(exit.mock.callCount(), 1);
});
