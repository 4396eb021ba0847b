// The transform of both examples: it charges an order, or each of an array of them.

import { setTimeout as sleep } from 'node:timers/promises';
import { deduplicate, Reject, Retry } from '../../sdk/node/index.js'; // 'seriatim' where it is installed

let receipts = 0;

// charge stands for a side effect that must not happen twice.
async function charge(order) {
  if (order.account === 'closed') throw new Reject('the account is closed');
  if (order.account === 'busy') throw new Retry(1000, 'the bank is busy');
  return ++receipts;
}

// once remembers in this process only. A store in a database survives it: see Store
// in index.d.ts.
const once = deduplicate();

export async function transform(record, { lastNote, note, extend }) {
  if (record.headers.some(([name, value]) => name === 'Test' && String(value) === 'yes')) return null; // no output
  if (record.value === null) return { value: null }; // a tombstone stays one
  const order = parse(record);
  if (Array.isArray(order)) return order.map((one) => ({ value: JSON.stringify(one) }));
  if (order.account === 'slow') {
    await note('the bank was asked'); // the next attempt might look for the answer first
    await extend(order.seconds * 1000 + 10_000);
    await sleep(order.seconds * 1000);
    order.noted = lastNote;
  }
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
  throw new Reject('the value is no JSON object or array');
}
