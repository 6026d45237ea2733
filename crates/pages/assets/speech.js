// How things are said: money, dates and spans by locale, and what a screen reader is told aloud.

import { SECOND } from "./core.js";
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

  /** `60 seconds`, with the plural that the language wants. */
  unit(value, unit) {
    return new Intl.NumberFormat(this.language, { style: "unit", unit, unitDisplay: "long" }).format(value);
  }
}

/** Tells the moment when an announced number of seconds is reached; silent about those that were over when it began. */
export class Countdown {
  #last = null;

  /** The announced number that was passed since the last call, or null. */
  passed(ms) {
    const seconds = Math.ceil(ms / SECOND);
    const before = this.#last;
    this.#last = seconds;
    return before === null ? null : (ANNOUNCED.find((mark) => seconds <= mark && mark < before) ?? null);
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
    enabled: state === "open" || state === "signed_out" || again,
    clock: state === "not_yet" ? opens : state === "your_turn" ? sale.slot : state === "yours" ? Date.parse(purchase.pay_by) : null,
    announces: { not_yet: "opening", yours: "paying" }[state],
  };
}
