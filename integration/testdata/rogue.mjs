// A worker of which one record in ten goes wrong at the first attempt, in ways that
// would end a process: outside the promise that it waits for.

import { stdio } from '../../sdk/node/index.js';

const rogue = [
  () => { setTimeout(() => { throw new Error('rogue: in a timer'); }, 1); },
  () => { Promise.reject(new Error('rogue: a rejection')); },
  () => { process.nextTick(() => { throw new Error('rogue: in the next tick'); }); },
];

await stdio(async ({ value, offset }, { attempt }) => {
  if (attempt === 1 && offset % 10 === 5) {
    rogue[offset % rogue.length]();
    return new Promise(() => {}); // no answer of its own
  }
  await new Promise((resolve) => { setTimeout(resolve, 5); });
  return { value };
});
