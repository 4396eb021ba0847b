import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';

import * as seriatim from '../index.js';

const declarations = await readFile(new URL('../index.d.ts', import.meta.url), 'utf8');

test('what is exported is declared, and the other way round', () => {
  const declared = [...declarations.matchAll(/^export declare (?:class|function|const) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(declared.sort(), Object.keys(seriatim).sort());
});

test('what a handler gets is declared', async (t) => {
  // members are the names that an interface declares.
  const members = (name) => {
    const [, body] = new RegExp(`^export interface ${name} \\{\n(.*?)^\\}`, 'ms').exec(declarations);
    return [...body.matchAll(/^ {2}(\w+)\??[:(]/gm)].map(([, member]) => member).sort();
  };
  let got;
  const server = await seriatim.serve((record, context) => { got = { record, context }; return null; }, { port: 0 });
  t.after(() => server.close());
  await fetch(server.url, { method: 'POST', body: 'v', headers: { connection: 'close' } });
  assert.deepEqual(members('InputRecord'), Object.keys(got.record).sort());
  assert.deepEqual(members('Context'), Object.keys(got.context).sort());
  assert.deepEqual(members('Server'), Object.keys(server).sort());
});
