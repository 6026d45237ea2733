// How things are said: money, dates and spans by locale, and what a screen reader is told aloud.

import { SECOND } from "./clock.js";
/** Seconds before an end at which it is announced, and no others. */
const ANNOUNCED = [60, 30, 10, 0];

export class Speech {
  constructor(words, language) {
    Object.assign(this, { words, language });
  }

  say(word, values = {}) {
    return (this.words[word] ?? word).replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
  }

  money({ amount, currency }) {
    const format = new Intl.NumberFormat(this.language, { style: "currency", currency });
    return format.format(amount / 10 ** format.resolvedOptions().maximumFractionDigits);
  }

  date(text) {
    return new Date(text).toLocaleString(this.language, { dateStyle: "medium", timeStyle: "short" });
  }

  time(text) {
    return new Date(text).toLocaleTimeString(this.language, { timeStyle: "medium" });
  }

  /** A clock's face: days in words, the rest as 1:02:03. */
  span(ms) {
    const seconds = Math.max(0, Math.ceil(ms / SECOND));
    const digits = (value) => value.toLocaleString(this.language, { minimumIntegerDigits: 2, useGrouping: false });
    const [days, hours, minutes] = [seconds / 86400, (seconds / 3600) % 24, (seconds / 60) % 60].map(Math.floor);
    const face = [...(hours || days ? [hours] : []), minutes, seconds % 60].map(digits).join(":");
    return days ? `${this.unit(days, "day")}, ${face}` : face;
  }

  announce({ word, seconds }) {
    return this.say(seconds ? `announce_${word}` : `announce_${word}_over`, { time: this.unit(seconds, "second") });
  }

  /** `60 seconds`, with the plural that the language wants. */
  unit(value, unit) {
    return new Intl.NumberFormat(this.language, { style: "unit", unit, unitDisplay: "long" }).format(value);
  }
}

/** Counts down to an end, and says what is to be announced; silent about what was over when it began. */
export class Countdown {
  #end = null;
  #word = null;
  #seconds = null;

  constructor(clock) {
    this.clock = clock;
  }

  /** It counts down to `end` (or to nothing) now, for `word`: the word and the seconds to announce, or null. */
  step(end, word) {
    const now = this.clock.now();
    // What was counted down to may end by changing what is shown.
    const last = this.#end !== null && end !== this.#end && now >= this.#end ? this.#passed(0) : null;
    if (end !== this.#end) [this.#end, this.#seconds] = [end, null];
    this.#word = word;
    const passed = end === null ? null : this.#passed(end - now);
    return last ?? passed;
  }

  #passed(ms) {
    const seconds = Math.ceil(ms / SECOND);
    const before = this.#seconds;
    this.#seconds = seconds;
    const mark = before === null ? undefined : ANNOUNCED.findLast((mark) => seconds <= mark && mark < before);
    return mark === undefined || !this.#word ? null : { word: this.#word, seconds: mark };
  }
}

/** What a wish's state looks like: its text, its button, its clock. The same on our page and on a shop's. */
export function view(wish, speech) {
  const { sale, state, purchase } = wish;
  const opens = Date.parse(sale.answer.opens_at);
  const free = sale.phase === "open" && sale.item(wish.item).available === "yes";
  const text = (word, values) => speech.say(`state_${word}`, values);
  const again = free && ((state === "paid" && wish.room > 0) || state === "ended");
  return {
    state,
    text:
      state === "yours"
        ? text("yours", { time: speech.time(purchase.pay_by) })
        : state === "ended"
          ? text(`ended_${purchase.release_reason ?? "expired"}`)
          : text(state),
    // While it is not yet time the button stays where it is, so that nothing moves under the finger at the opening.
    button: !["yours", "paid", "ended", "closed"].includes(state) || again,
    enabled: ["open", "check_page", "signed_out"].includes(state) || again || (state === "fewer" && free) || (state === "offline" && free && !wish.wish),
    clock: state === "not_yet" ? opens : state === "your_turn" ? sale.slot : state === "yours" ? Date.parse(purchase.pay_by) : state === "blocked" && sale.blockEnd < Infinity ? sale.blockEnd : null,
    announces: { not_yet: "opening", yours: "paying" }[state],
  };
}
