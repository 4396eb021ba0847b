// The end of a worker.

const GRACE = 10_000;

let end;

/**
 * endSoon sees to it that the process is gone in 10 s, whatever it still has open.
 * If nothing keeps it, it ends by itself before.
 */
export function endSoon() {
  end ??= setTimeout(() => process.exit(), GRACE).unref();
}
