// A worker of the plans with workers of their own. It leaves to the conductor, whom
// it asks over HTTP, what becomes of a record, so that there is one judge of all
// calls. It is started with serve or stdio, and the address of the conductor.

import { Reject, Retry, serve, stdio } from '../../sdk/node/index.js';

const [how, judge] = process.argv.slice(2);

async function ask(record, { attempt, signal }) {
  const identity = record.headers.find(([name]) => name === 'w.id')?.[1];
  const res = await fetch(judge, {
    method: 'POST',
    body: record.value ?? '',
    // Half of the calls go on when nobody waits any more, and answer too late.
    signal: record.offset % 2 ? signal : undefined,
    headers: {
      'Idempotency-Key': record.idempotencyKey,
      'Seriatim-Topic': record.topic,
      'Seriatim-Partition': record.partition,
      'Seriatim-Offset': record.offset,
      'Seriatim-Timestamp': record.timestamp,
      'Seriatim-Attempt': attempt,
      'Seriatim-H-w.id': identity,
      ...(record.value === null && { 'Seriatim-Value': 'null' }),
      'Worker-Pid': process.pid,
    },
  });
  const body = Buffer.from(await res.arrayBuffer());
  if (res.status === 204) return null;
  if (res.status === 422) throw new Reject(String(body));
  if (res.status !== 200) throw new Retry(0, String(body));
  if (res.headers.get('seriatim-value') === 'null') return { value: null };
  if (res.headers.get('content-type') !== 'application/x-ndjson') return { value: body };
  return String(body).trimEnd().split('\n').map((value) => ({ value }));
}

if (how === 'serve') {
  console.log(`listening on ${(await serve(ask, { port: process.env.PORT })).url}`);
} else {
  // One in twenty writes repeats its last answer.
  const write = process.stdout.write.bind(process.stdout);
  process.stdout.write = (text) => {
    const last = text.slice(text.lastIndexOf('\n', text.length - 2) + 1);
    return write(Math.random() < 0.05 && last.includes('"id"') ? text + last : text);
  };
  await stdio(ask);
}
