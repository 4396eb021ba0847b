// Workers that Seriatim starts itself: lines of JSON over standard input and output.

import { answerOf, contextOf, inBatch, noteOf, recordOf } from './outcome.js';
import { runner } from './run.js';
import { endSoon } from './stop.js';

/**
 * stdio answers records that come over the standard input. It resolves when the
 * input has ended and all is answered. Standard output belongs to it: what else is
 * written there, by console.log too, goes to standard error.
 *
 * The end of the input is the end of Seriatim: what runs may finish, and the
 * process is gone within 10 s. SIGTERM ends it at once.
 */
export async function stdio(handler) {
  const run = runner(handler);
  const { send, flush } = writer(process.stdout.write.bind(process.stdout));
  process.stdout.write = process.stderr.write.bind(process.stderr);
  process.stdout.on('error', () => process.exit()); // nobody reads any more
  process.on('SIGTERM', () => {
    flush();
    process.exit();
  });
  send({ seriatim: 1 }); // the first line: ready

  const running = new Set();
  for await (const line of linesOf(process.stdin)) {
    const answering = answer(JSON.parse(line), run, send, flush).finally(() => running.delete(answering));
    running.add(answering);
  }
  endSoon();
  await Promise.all(running);
  flush();
}

async function answer(line, run, send, flush) {
  const { id } = line;
  const { signal, more, clear } = deadline((line.batch?.[0] ?? line).deadline_ms);
  const report = (what) => {
    send({ id, ...what });
    flush(); // a note is for those who die of what they do next
    return true;
  };
  const calls = {
    extend: async (ms = undefined) => report({ extend: more(ms) }),
    note: async (text) => report({ note: noteOf(text) }),
  };
  const one = async (record, calls) => answerOf(await run(recordOf(record), contextOf(record, signal, calls)));
  if (line.batch) {
    const answers = line.batch.map(async (record) => ({ id: record.id, ...await one(record, inBatch(calls)) }));
    send({ id, answers: await Promise.all(answers) });
  } else {
    send({ id, ...await one(line, calls) });
  }
  clear();
}

const MAX_TIMER = 2 ** 31 - 1; // what setTimeout takes

// deadline returns a signal that is aborted at a time, in milliseconds since 1970.
function deadline(at) {
  const controller = new AbortController();
  const length = at - Date.now();
  let timer;
  const arm = () => {
    clearTimeout(timer);
    const abort = () => controller.abort(new Error('Seriatim waits no more'));
    timer = setTimeout(abort, Math.min(Math.max(at - Date.now(), 0), MAX_TIMER));
  };
  arm();
  return {
    signal: controller.signal,
    // more puts the deadline off, by the time of the attempt again if nothing is said,
    // and returns for how long.
    more(ms = length) {
      const time = Math.max(Math.round(ms), 1);
      at = Math.max(at, Date.now() + time);
      arm();
      return time;
    },
    clear: () => clearTimeout(timer),
  };
}

// linesOf splits a stream at line feeds. Blank lines do not count.
async function* linesOf(stream) {
  let parts = [];
  for await (const chunk of stream) {
    let from = 0;
    for (let to; (to = chunk.indexOf(10, from)) >= 0; from = to + 1) {
      const line = Buffer.concat([...parts, chunk.subarray(from, to)]).toString();
      parts = [];
      if (line.trim() !== '') yield line;
    }
    if (from < chunk.length) parts.push(chunk.subarray(from));
  }
}

// writer writes what comes in one turn of the loop at once: each write to a pipe
// keeps Node waiting.
function writer(write) {
  let text = '';
  const flush = () => {
    if (text !== '') write(text);
    text = '';
  };
  const send = (message) => {
    if (text === '') setImmediate(flush);
    text += `${JSON.stringify(message)}\n`;
  };
  return { send, flush };
}
