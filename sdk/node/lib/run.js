// Running the handler for one record, so that whatever goes wrong in it is the
// failure of that record alone.

import { AsyncLocalStorage } from 'node:async_hooks';

import { outputsOf, Reject, Retry } from './outcome.js';

const running = new AsyncLocalStorage(); // how to fail the record whose handler is running

let watching = false;

// What was thrown in a callback, and what a promise was rejected with that nobody
// waits for, belongs to the record whose handler began it. What belongs to none
// ends the process, as it would without this.
function watch() {
  if (watching) return;
  watching = true;
  for (const event of ['uncaughtException', 'unhandledRejection']) {
    process.on(event, (error) => {
      const fail = running.getStore();
      if (fail) return fail(error);
      if (process.listenerCount(event) > 1) return; // somebody else deals with it
      console.error(error);
      process.exit(1);
    });
  }
}

/**
 * runner returns a function that calls the handler with a record and its context,
 * and resolves to {outputs} or {error}. It never rejects.
 *
 * At most `concurrency` records run at once, others wait for their turn. One whose
 * signal is aborted runs no more, or counts no more if it runs on.
 */
export function runner(handler, concurrency = Infinity) {
  if (typeof handler !== 'function') throw new TypeError('the handler must be a function');
  if (!(concurrency >= 1)) throw new TypeError(`concurrency is ${concurrency}; it must be 1 or more`);
  watch();
  const waiting = [];
  let free = concurrency;

  async function turn(signal) {
    if (free === 0) await new Promise((resolve) => waiting.push(resolve));
    else free--;
    let held = true;
    const release = () => {
      if (!held) return;
      held = false;
      signal.removeEventListener('abort', release);
      if (waiting.length > 0) waiting.shift()();
      else free++;
    };
    signal.addEventListener('abort', release);
    if (signal.aborted) release();
    return release;
  }

  return async function run(record, context) {
    const { signal } = context;
    const release = await turn(signal);
    try {
      signal.throwIfAborted();
      return { outputs: outputsOf(await contained(() => handler(record, context))) };
    } catch (error) {
      const expected = error instanceof Reject || error instanceof Retry || signal.aborted;
      if (!expected) console.error(error);
      return { error };
    } finally {
      release();
    }
  };
}

// contained calls a function, and rejects with what goes wrong outside its promise
// too. Once it is over, such things are only told.
async function contained(call) {
  let fail;
  const failed = new Promise((_, reject) => { fail = reject; });
  try {
    return await Promise.race([failed, running.run((error) => fail(error), async () => call())]);
  } finally {
    fail = (error) => console.error('after its record was answered:', error);
  }
}
