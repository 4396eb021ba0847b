/**
 * Memory is the store of a deduplicator in the process: it knows the keys that
 * were used last. It is lost with the process.
 */
export class Memory {
  #results = new Map();
  #size;

  /** @param {number} size how many keys are remembered */
  constructor(size = 10_000) {
    this.#size = size;
  }

  get(key) {
    const result = this.#results.get(key);
    if (result !== undefined) { // used just now
      this.#results.delete(key);
      this.#results.set(key, result);
    }
    return result;
  }

  set(key, result) {
    this.#results.delete(key);
    this.#results.set(key, result);
    if (this.#results.size > this.#size) this.#results.delete(this.#results.keys().next().value);
  }
}

/**
 * deduplicate returns a function that runs an effect once for a key and gives its
 * result to all who ask with that key, those too who ask while it runs. An effect
 * that fails is not remembered.
 *
 * @param {{get(key: string): any, set(key: string, result: any): any}} store keeps
 *   the results. get returns undefined for what it does not know; both may return
 *   promises.
 */
export function deduplicate(store = new Memory()) {
  const underway = new Map();

  async function first(key, effect) {
    const known = await store.get(key);
    if (known !== undefined) return known;
    const result = (await effect()) ?? null;
    try {
      await store.set(key, result);
    } catch (error) {
      // The effect has happened. To fail here would only make it happen again.
      console.error(`the result for ${key} was not stored, so that another attempt would repeat the effect:`, error);
    }
    return result;
  }

  return function once(key, effect) {
    if (!key) return Promise.reject(new TypeError('there is no key to remember the effect by'));
    let result = underway.get(key);
    if (result === undefined) {
      result = first(key, effect).finally(() => underway.delete(key));
      underway.set(key, result);
    }
    return result;
  };
}
