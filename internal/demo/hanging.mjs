// A worker of the demo: it passes values on after a while. With HANGS set one call in
// ten is never answered.

import { createServer } from 'node:http';

let calls = 0;
const server = createServer({ keepAliveTimeout: 30_000 }, (req, res) => {
  const parts = [];
  req.on('data', (part) => parts.push(part)).on('end', () => {
    calls++;
    if (process.env.HANGS && calls % 10 === 0) return;
    setTimeout(() => res.end(Buffer.concat(parts)), 200 + 200 * Math.random());
  });
});
server.listen(0, '127.0.0.1', () => console.log(`http://127.0.0.1:${server.address().port}`));
process.stdin.resume().on('end', () => process.exit()); // the demo has ended
