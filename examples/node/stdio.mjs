// A worker that Seriatim starts itself.
//
//   transform:
//     exec: {command: [node, stdio.mjs]}

import { stdio } from '../../sdk/node/index.js'; // 'seriatim' where it is installed
import { transform } from './orders.mjs';

await stdio(transform);
