// A worker that takes its time and says so, works in stages, and dies between them. With
// the argument "lines" it speaks over standard input and output.
import { setTimeout as sleep } from 'node:timers/promises';
import { serve, stdio } from '../../sdk/node/index.js';

async function transform(record, { attempt, lastNote, note, extend }) {
  const value = record.value.toString();
  if (value.endsWith('/0/7')) { // longer than the timeout
    for (let i = 0; i < 10; i++) {
      await sleep(500);
      await extend();
    }
    return { value: `${value} attempt ${attempt}` };
  }
  if (value.endsWith('/1/5')) {
    if (!lastNote) {
      if (!await note('salary service called')) throw new Error('the note came too late');
      process.exit(7);
    }
    return { value: `${value} after ${lastNote}` };
  }
  return { value };
}

if (process.argv[2] === 'lines') {
  await stdio(transform);
} else {
  const { url } = await serve(transform, { port: process.env.PORT });
  console.log(`listening on ${url}`);
}
