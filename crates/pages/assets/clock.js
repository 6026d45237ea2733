// The server's clock in a browser.

export const SECOND = 1000;

export const sleep = (ms) => new Promise((wake) => setTimeout(wake, Math.max(0, ms)));

/** The server's clock, as an offset to the browser's monotonic one: what somebody does to the wall clock changes nothing. */
export class Clock {
  #low = -Infinity;
  #high = Infinity;
  #wall = 0;

  /** The server said `time`, at most `age` ms ago, in an answer to what was sent at `sent` and had come by `received`. */
  note(time, sent, received, age = 0) {
    const low = time - received;
    const high = time + age - sent;
    // Two measurements that exclude each other: the machine slept, or the server's clock was set. The later one is right.
    const fits = low <= this.#high && high >= this.#low;
    this.#low = fits ? Math.max(low, this.#low) : low;
    this.#high = fits ? Math.min(high, this.#high) : high;
    this.#wall = Date.now() - performance.now();
  }

  /** Until something was measured the wall clock has to do. */
  now() {
    const offset = (this.#low + this.#high) / 2;
    return Number.isFinite(offset) ? performance.now() + offset : Date.now();
  }

  /** By how much it may be wrong, in ms. */
  get error() {
    return (this.#high - this.#low) / 2;
  }

  /** Whether this machine slept or was set since the last measurement. */
  get isDoubtful() {
    return Math.abs(Date.now() - performance.now() - this.#wall) > SECOND;
  }

  async measure(api, rounds) {
    if (this.isDoubtful) this.#low = -Infinity, this.#high = Infinity;
    for (let round = 0; round < rounds; round += 1) {
      await sleep(50 + 200 * Math.random());
      const told = await api.ask("GET", "/v1/time", { isPublic: true });
      if (told.status === 200) this.note(told.body.unix_ms, told.sent, told.received);
    }
  }
}
