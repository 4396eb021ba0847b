// A worker for tests that does what a record says: {"do": "…"}. It is started with
// serve or stdio.

import { EventEmitter } from 'node:events';

import { Reject, Retry, serve, stdio } from '../index.js';

const soon = (do_) => setTimeout(do_, 5);
const never = () => new Promise(() => {});
const released = new Promise((resolve) => { process.on('SIGUSR2', resolve); });

const acts = {
  echo: (record) => ({ value: record.value }),
  see: (record, { attempt, deadline, lastNote }) => ({ value: JSON.stringify({ ...record, headers: record.headers.map(([name, value]) => [name, value && String(value)]), key: record.key && String(record.key), value: record.value && record.value.length, attempt, deadline, lastNote }) }),
  none: () => null,
  reject: () => { throw new Reject('no such customer'); },
  retry: () => { throw new Retry(1500, 'busy'); },
  throw: () => { throw new Error('thrown'); },
  // What goes wrong outside the promise of the handler.
  timer: () => { soon(() => { throw new Error('in a timer'); }); return never(); },
  detached: () => { (async () => { await null; throw new Error('detached'); })(); return never(); },
  event: () => { soon(() => new EventEmitter().emit('error', new Error('an event'))); return never(); },
  late: () => { setTimeout(() => { throw new Error('too late'); }, 30); return { value: 'done' }; },
  string: () => { soon(() => { throw 'no error at all'; }); return never(); }, // eslint-disable-line no-throw-literal
  // What takes time.
  released: async () => { await released; return { value: 'released' }; },
  aborted: (_, { signal }) => new Promise((resolve) => { signal.addEventListener('abort', () => resolve({ value: signal.reason.message })); }),
  notes: async (_, { note }) => { await note('before the end'); process.kill(process.pid, 'SIGKILL'); return never(); },
  extend: async (_, { signal, extend, note }) => {
    const taken = [await extend(60_000), await extend(), await note('half done')];
    return { value: JSON.stringify({ taken, aborted: signal.aborted }) };
  },
  // What a worker had better not do.
  log: (record) => { console.log('on the console'); process.stdout.write('on stdout\n'); return { value: record.value }; },
};

process.on('SIGHUP', () => { throw new Error('of no record'); });

// Whatever it is named in: a value that is not JSON is echoed.
function act(record, context) {
  let order;
  try {
    order = JSON.parse(record.value);
  } catch {
    return acts.echo(record);
  }
  return acts[order.do](record, context);
}

if (process.argv[2] === 'serve') console.log(`listening on ${(await serve(act, { port: 0 })).url}`);
else await stdio(act);
