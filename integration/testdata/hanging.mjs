// A worker that takes 750 ms, and never answers one call in a hundred. It tells at the end how many
// there were.

import { serve } from '../../sdk/node/index.js';

let calls = 0;
const { url } = await serve(async ({ value }) => {
  if (++calls % 100 === 50) return new Promise(() => {});
  await new Promise((resolve) => { setTimeout(resolve, 750); });
  return { value };
}, { port: 0 });
console.log(`listening on ${url}`);
process.on('exit', () => console.log(`${calls} calls`));
