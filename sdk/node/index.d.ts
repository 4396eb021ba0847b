/** A record as it comes. Keys, values and the values of headers are any bytes, or null. */
export interface InputRecord {
  pipeline: string;
  topic: string;
  partition: number;
  /** Exact up to 2^53; idempotencyKey has it as text. */
  offset: number;
  /** Milliseconds since 1970. */
  timestamp: number;
  key: Buffer | null;
  /** null is a tombstone, which differs from an empty value. */
  value: Buffer | null;
  /** In order; a name may be repeated. */
  headers: Array<[name: string, value: Buffer | null]>;
  /** The same at every attempt at this record, and no other record has it. */
  idempotencyKey: string;
  /** W3C trace context: that of the record, or one that all attempts at it share. */
  traceparent: string;
}

export type Bytes = string | Uint8Array | null;

/** One output. Key and headers that are not named stay as they are in the record. */
export interface Output {
  value: Bytes;
  key?: Bytes;
  /** A value, or all values, by name. They replace all that the record has of that name; [] drops them. */
  headers?: { [name: string]: Bytes | Bytes[] };
}

/** What the handler knows about the attempt that it is called for. */
export interface Context {
  /** Counts from 1. */
  attempt: number;
  /** When Seriatim gives up, milliseconds since 1970 by its clock. */
  deadline: number;
  /** What an earlier attempt noted last, or ''. */
  lastNote: string;
  /** Aborted when nobody waits for the result any more. Pass it on to fetch and the like. */
  signal: AbortSignal;
  /**
   * Asks for more time, counted from now: ms milliseconds, or the time of an attempt
   * again; ten times that in all at most. In a batch it is for all of it. Resolves to false if it was not taken: the attempt is over, or `callbacks`
   * are not configured. Never rejects for that.
   */
  extend(ms?: number): Promise<boolean>;
  /**
   * Leaves a note for the next attempt, of 1 KiB at most. Resolves as extend does, and to
   * false in a batch: a note is for one record.
   */
  note(text: string): Promise<boolean>;
}

/**
 * Makes the outputs of one record; null is none. It may be called again with the same
 * record, even while it runs. Throw Reject if the record can never work; Retry, or
 * anything else, to be asked again.
 */
export type Handler = (record: InputRecord, context: Context) => Promise<Output | Output[] | null> | Output | Output[] | null;

export interface ServeOptions {
  /** Default 9000; 0 is a free one. */
  port?: number | string;
  /** Default 127.0.0.1. */
  host?: string;
  /** Records that run at once; others wait their turn. No limit by default: Seriatim has its own. */
  concurrency?: number;
}

export interface Server {
  /** Where it listens. */
  url: string;
  /** Takes no more connections; resolves when all is answered. */
  close(): Promise<void>;
}

/**
 * Answers records over HTTP (`transform.http`), batches too. Resolves when it listens.
 * On SIGTERM and SIGINT what runs may finish; the process is gone within 10 s.
 */
export declare function serve(handler: Handler, options?: ServeOptions): Promise<Server>;

/**
 * Answers records over standard input and output (`transform.exec`), batches too.
 * Resolves when the input has ended and all is answered; the process is gone within
 * 10 s then, and at once on SIGTERM. What else is written to standard output from now on
 * goes to standard error; write nothing there before.
 */
export declare function stdio(handler: Handler): Promise<void>;

/** This record can never work: it is not tried again, `on_exhausted` decides. */
export declare class Reject extends Error {
  constructor(reason?: string, options?: ErrorOptions);
}

/** Try again, after that many milliseconds at least (whole seconds over HTTP). */
export declare class Retry extends Error {
  constructor(after?: number, reason?: string, options?: ErrorOptions);
  after: number;
}

/** Keeps results by key. get gives undefined for what it does not know. */
export interface Store {
  get(key: string): unknown;
  set(key: string, result: unknown): unknown;
}

/** A store in the process, which knows the keys that were used last (10,000). It is lost with the process. */
export declare class Memory implements Store {
  constructor(size?: number);
  get(key: string): unknown;
  set(key: string, result: unknown): void;
}

/**
 * Returns a function that runs an effect once for a key and gives its result to all
 * who ask with that key, those too who ask while it runs. An effect that fails is not
 * remembered.
 */
export declare function deduplicate(store?: Store): <T>(key: string, effect: () => T | Promise<T>) => Promise<T>;
