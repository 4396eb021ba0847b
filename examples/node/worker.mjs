// A worker that Seriatim asks over HTTP.
//
//   PORT=9000 node worker.mjs
//
//   transform:
//     http: {urls: [http://127.0.0.1:9000/]}

import { serve } from '../../sdk/node/index.js'; // 'seriatim' where it is installed
import { transform } from './orders.mjs';

const { url } = await serve(transform, { port: process.env.PORT ?? 9000, host: process.env.HOST });
console.log(`listening on ${url}`);
