// What may become of a record, and how it stands in JSON. The contract is in
// docs/workers.md.

import { isUtf8 } from 'node:buffer';

/** Reject says that this record can never work: it is not tried again. */
export class Reject extends Error {
  /** @param {string} reason is shown wherever the failure is */
  constructor(reason = 'rejected', options) {
    super(reason, options);
    this.name = 'Reject';
  }
}

/** Retry asks to be asked again. Every other error does so too. */
export class Retry extends Error {
  /**
   * @param {number} after milliseconds that must pass at least
   * @param {string} reason is shown wherever the failure is
   */
  constructor(after = 0, reason = 'try again', options) {
    super(reason, options);
    this.name = 'Retry';
    this.after = Math.min(Math.max(Math.round(after) || 0, 0), 2 ** 32 - 1);
  }
}

/** recordOf reads a record as it stands in a line of JSON. */
export function recordOf(line) {
  const headers = [];
  for (const [name, values] of Object.entries(line.headers ?? {})) {
    for (const value of [values].flat()) headers.push([name, bytesOf(value)]);
  }
  return {
    pipeline: line.pipeline,
    topic: line.topic,
    partition: line.partition,
    offset: line.offset,
    timestamp: line.timestamp,
    key: bytesOf(line.key ?? null),
    value: bytesOf(line.value ?? null),
    headers,
    idempotencyKey: line.idempotency_key,
    traceparent: line.traceparent,
  };
}

function bytesOf(json) {
  if (json === null) return null;
  return typeof json === 'string' ? Buffer.from(json) : Buffer.from(json.base64, 'base64');
}

/** contextOf is what the handler gets beside a record that came as a line of JSON. */
export function contextOf(line, signal, calls) {
  return { attempt: line.attempt, deadline: line.deadline_ms, lastNote: line.note ?? '', signal, ...calls };
}

const MAX_NOTE = 1024;

/** inBatch are the calls of a record that came with others: a note would be one of all of them. */
export function inBatch(calls) {
  return {
    ...calls,
    note: async (text) => {
      noteOf(text);
      return false;
    },
  };
}

/** noteOf checks a note. */
export function noteOf(text) {
  if (typeof text !== 'string' || Buffer.byteLength(text) > MAX_NOTE) throw new TypeError(`a note must be a string of ${MAX_NOTE} bytes at most`);
  return text;
}

/** outputsOf checks what a handler returned, and makes a list of it. */
export function outputsOf(result) {
  // A return that was forgotten would else drop the record in silence.
  if (result === undefined) throw new TypeError('the handler returned nothing; it must return null if there is no output');
  const outputs = result === null ? [] : [result].flat();
  for (const output of outputs) {
    if (!isBytes(output?.value)) throw new TypeError('an output must be {value} with a string, bytes or null; null alone is no output');
    if (output.key !== undefined && !isBytes(output.key)) throw new TypeError('the key of an output must be a string, bytes or null');
    for (const [name, values] of Object.entries(output.headers ?? {})) {
      if (![values].flat().every(isBytes)) throw new TypeError(`the header ${name} of an output must be a string, bytes, null, or an array of them`);
    }
  }
  return outputs;
}

const isBytes = (value) => value === null || typeof value === 'string' || value instanceof Uint8Array;

/** answerOf is the answer to a record: what stands beside its id. */
export function answerOf({ outputs, error }) {
  if (outputs) return { outputs: outputs.map(outputJSON) };
  const answer = { error: reasonOf(error), kind: error instanceof Reject ? 'reject' : 'retry' };
  if (error instanceof Retry) answer.after_ms = error.after;
  return answer;
}

/** reasonOf is the text of an error, which is cut: it goes into logs. */
export function reasonOf(error) {
  return String(error?.message ?? error).slice(0, 300).toWellFormed();
}

/** outputJSON is one output. What it does not name stays as it was in the record. */
export function outputJSON({ value, key, headers }) {
  const output = { value: inJSON(value) };
  if (key !== undefined) output.key = inJSON(key);
  // fromEntries, because a header may be called __proto__.
  if (headers) output.headers = Object.fromEntries(Object.entries(headers).map(([name, values]) => [name, [values].flat().map(inJSON)]));
  return output;
}

function inJSON(bytes) {
  if (bytes === null || typeof bytes === 'string') return bytes;
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  return isUtf8(buffer) ? buffer.toString() : { base64: buffer.toString('base64') };
}
