import { once } from 'node:events';
import { request } from 'node:http';

export const outputsType = 'application/vnd.seriatim.outputs+json';

export function send(url, headers, body, options = {}) {
  const req = request(url, { method: 'POST', headers, ...options });
  req.end(body);
  return req;
}

// post sends a request and returns the reply.
export async function post(url, headers, body, options) {
  const [res] = await once(send(url, headers, body, options), 'response');
  const parts = [];
  for await (const part of res) parts.push(part);
  return { status: res.statusCode, headers: res.headers, body: Buffer.concat(parts).toString() };
}
