// Loads sales into a file, as many as come together with one write and one flush to disk.
//
//   transform:
//     exec: {command: [node, etl.mjs, facts.ndjson], timeout: 1m}
//   batch: {records: 1000, wait: 1s}
//
// A sale is {"amount": "12.50", "currency": "EUR", ...}. It becomes a line, and goes on
// as a fact: the same with "cents". A record may come again, with the same key: whoever reads
// the file takes the first line of each key.

import { open } from 'node:fs/promises';
import { Reject, stdio } from '../../sdk/node/index.js'; // 'seriatim' where it is installed

const rates = { EUR: 1, GBP: 1.15, USD: 0.86 };
const file = await open(process.argv[2] ?? 'facts.ndjson', 'a');

let lines = []; // that wait to be written
let written; // when they are

// load resolves when the line is on disk. All lines of a batch, and of others that come
// meanwhile, are written together.
function load(line) {
  lines.push(line);
  written ??= flushed().then(write);
  return written;
}

let last = Promise.resolve();
const flushed = () => Promise.allSettled([last, new Promise(setImmediate)]);

async function write() {
  const text = lines.join('');
  console.error(`loading ${lines.length} facts`);
  lines = [];
  written = undefined;
  last = file.appendFile(text).then(() => file.datasync());
  await last;
}

async function transform(record) {
  if (record.value === null) return { value: null }; // a tombstone stays one
  const sale = parse(record.value);
  const cents = Math.round(Number(sale.amount) * 100 * rates[sale.currency]);
  if (!Number.isSafeInteger(cents)) throw new Reject('no sale: no amount, or in no currency that we know');
  const fact = { ...sale, cents };
  await load(JSON.stringify({ key: record.idempotencyKey, ...fact }) + '\n');
  return { value: JSON.stringify(fact) };
}

function parse(value) {
  try {
    const sale = JSON.parse(value);
    if (sale !== null && typeof sale === 'object') return sale;
  } catch {
    // not JSON at all
  }
  throw new Reject('no sale: no JSON object');
}

await stdio(transform);
