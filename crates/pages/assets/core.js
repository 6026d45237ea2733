// What the page and the button share: the server's clock, requests, one sale, and one wish to buy.
// Nothing here touches the document, so that a shop's page can use it as well as ours.

import { SECOND, sleep } from "./clock.js";

/** Where all have one slot, the opening, the page waits this much longer at random, so that they are no wall. Slots of their own are spread already. */
const JITTER_MS = 300;
const RETRY_MS_MAX = 15 * SECOND;
/** Answers that promise nothing: the same key is sent again. */
const ASK_AGAIN = ["outcome_unknown", "rate_limited", "overloaded", "paused", "storage_full", "internal", "interrupted"];
const NEEDS_PASS = ["pass_expired", "pass_spent", "pass_invalid", "pass_foreign"];

/** A short wait that ends at once when the network comes back. */
const pause = (ms) =>
  new Promise((wake) => {
    const end = () => {
      removeEventListener("online", end);
      clearTimeout(timer);
      wake();
    };
    const timer = setTimeout(end, ms);
    addEventListener("online", end);
  });

/** The n-th wait between two tries, a random part of a growing time. */
const backOff = (round) => Math.min(SECOND * 2 ** Math.min(round, 5), RETRY_MS_MAX) * (0.5 + Math.random());

/** Requests to the engine. `base` is empty on its own pages, where the session's cookie speaks for the customer. */
export class Api {
  /** What has to be over before the first request, a sign-in say. */
  ready = null;

  constructor(base = "", token = () => null) {
    Object.assign(this, { base, token });
  }

  /**
   * Always answers: a status of 0 means that nobody knows whether the request arrived. What is public is asked for in nobody's name: an
   * edge may then answer it, and a shop's page may send it without asking first.
   */
  async ask(method, path, { headers = {}, body, wait = 8, isPublic = false, cache } = {}) {
    if (!isPublic) await this.ready;
    const token = isPublic ? null : this.token();
    const sent = performance.now();
    try {
      const response = await fetch(this.base + path, {
        method,
        headers: {
          ...headers,
          ...(token ? { Authorization: `Bearer ${token}` } : {}),
          ...(body ? { "Content-Type": "application/json" } : {}),
        },
        body: body && JSON.stringify(body),
        cache,
        credentials: this.base || isPublic ? "omit" : "same-origin",
        signal: AbortSignal.timeout(wait * SECOND),
      });
      const said = parsed(await response.text());
      const after = Number(response.headers.get("Retry-After")) * SECOND || 0;
      return { status: response.status, body: said, after, sent, received: performance.now() };
    } catch {
      return { status: 0, body: {}, after: 0, sent, received: performance.now() };
    }
  }
}

/** Asks until there is an answer; for what may be asked twice. */
export async function insist(ask) {
  for (let round = 0; ; round += 1) {
    const told = await ask();
    if (told.status > 0 && told.status < 500 && told.status !== 429) return told;
    await pause(Math.max(backOff(round), told.after * (1 + 0.5 * Math.random())));
  }
}

/** Whatever stands between may answer in words of its own. */
const parsed = (text) => {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
};

/** What has to outlive the tab; a browser that keeps nothing still buys, by `mine`. */
export const store = {
  get(key) {
    try {
      return JSON.parse(localStorage.getItem(`doorbuster:${key}`));
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      if (value === null) localStorage.removeItem(`doorbuster:${key}`);
      else localStorage.setItem(`doorbuster:${key}`, JSON.stringify(value));
    } catch {
      // The wish then lives as long as the page.
    }
  },
};

/** One tab at a time, where the browser can say so; the key makes it safe where it cannot. */
const alone = (name, work) => (navigator.locks ? navigator.locks.request(`doorbuster:${name}`, work) : work());

const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** A sale as anybody sees it, the customer's pass for it, and what is theirs in it. */
export class Sale {
  purchases = [];
  isSignedIn = false;
  isReachable = true;
  /** The code of why nothing can be bought from this page. */
  refusal = null;
  /** Until when whoever is signed in is blocked, on the server's clock. */
  blockEnd = 0;
  /** Does what a sale with a human check asks for, and gives what was said to whoever then took the pass. */
  prove = null;
  /** The state of a human check that is under way. */
  checking = null;
  #pass = null;
  #asking = null;
  #listeners = new Set();
  #isWatched = false;

  constructor(api, clock, answer, who = () => "") {
    Object.assign(this, { api, clock, answer, who });
  }

  /** Gives what ends it. */
  onChange(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  changed() {
    for (const listener of this.#listeners) listener();
  }

  /** By the clock where it knows better than the last answer. */
  get phase() {
    const { phase, opens_at, closes_at } = this.answer;
    const now = this.clock.now();
    if (phase === "settled" || now >= Date.parse(closes_at)) return "closed";
    return phase === "planned" && now >= Date.parse(opens_at) ? "open" : phase;
  }

  item(name) {
    return this.answer.items.find((item) => item.item === name);
  }

  /** `cache` as `fetch` has it: the browser keeps an answer for a second. */
  async look(cache) {
    const told = await this.api.ask("GET", `/v1/sales/${this.answer.sale}`, { isPublic: true, cache });
    this.reached(told.status > 0);
    if (told.status === 200) {
      this.answer = told.body;
      // An edge may have kept the answer for a second.
      this.clock.note(Date.parse(told.body.server_time), told.sent, told.received, 2 * SECOND);
      this.changed();
    }
    return told.status;
  }

  reached(isReachable) {
    this.isReachable = isReachable;
    this.changed();
  }

  /** Polls for as long as anybody listens, slower while nobody looks. */
  async watch() {
    if (this.#isWatched) return;
    this.#isWatched = true;
    addEventListener("offline", () => this.reached(false));
    while (this.#listeners.size) {
      const hidden = globalThis.document?.hidden ? 5 : 1;
      await pause(this.answer.next_poll_ms * hidden * (0.8 + 0.4 * Math.random()));
      if (this.clock.isDoubtful) await this.clock.measure(this.api, 2);
      await this.look();
    }
    this.#isWatched = false;
  }

  /** Pass and purchases of whoever is signed in; the server knows them even if this browser has forgotten everything. */
  async mine() {
    const told = await this.api.ask("GET", `/v1/sales/${this.answer.sale}/mine`);
    if (told.status === 200) {
      this.#pass = told.body.pass ?? null;
      this.purchases = told.body.purchases;
    }
    if (told.status === 200 || told.status === 401) this.isSignedIn = told.status === 200;
    this.changed();
    return told;
  }

  /** What changed keeps its place: news of an older purchase may come after a newer one. */
  take(purchase) {
    const at = this.purchases.findIndex((known) => known.purchase === purchase.purchase);
    this.purchases.splice(Math.max(at, 0), at < 0 ? 0 : 1, purchase);
    this.changed();
  }

  /** The pass, taken once for everybody who asks meanwhile: `{pass}` or the refusal. */
  pass(fresh = false) {
    if (this.refusal) return { status: 403, body: { code: this.refusal } };
    if (this.#pass && !fresh && Date.parse(this.#pass.expires_at) > this.clock.now()) return { pass: this.#pass };
    this.#asking ??= this.#take().then((told) => {
      this.#asking = null;
      if (told.status === 201) this.#pass = told.body;
      return told.status === 201 ? { pass: told.body } : told;
    });
    return this.#asking;
  }

  async #take() {
    const told = await this.api.ask("POST", `/v1/sales/${this.answer.sale}/passes`);
    if (told.body.code === "blocked") this.block(told.body.retry_at);
    if (told.body.code !== "challenge_required" || !this.prove) return told;
    // What it needs may not have come.
    return this.prove().catch(() => ({ status: 0, body: {}, after: 0 }));
  }

  /** A block that has no end lasts as long as the page. */
  block(retry_at) {
    this.blockEnd = Date.parse(retry_at) || Infinity;
    this.changed();
  }

  check(state) {
    this.checking = state;
    this.changed();
  }

  /** Takes the pass before the crowd presses, spread over the time until the opening; what a person has to do for it is asked at once. */
  async takePassAhead() {
    if (!this.isSignedIn || this.#pass || this.phase === "closed") return;
    const now = this.clock.now();
    const from = Date.parse(this.answer.passes_open_at);
    const room = /answer|static/.test(this.answer.human_check)
      ? SECOND
      : Math.max(0, Math.min(Date.parse(this.answer.opens_at) - Math.max(now, from) - 5 * SECOND, 60 * SECOND));
    await pause(Math.max(0, from - now) + room * Math.random());
    // Whoever comes too many is told when to come again.
    await insist(async () => {
      const told = await this.pass();
      return told.pass ? { status: 201 } : told;
    });
    this.changed();
  }

  get slot() {
    return this.#pass && Date.parse(this.answer.opened_at ?? this.answer.opens_at) + this.#pass.slot_offset_ms;
  }
}

/** One wish for one item. Its key is made at the press and kept until it is known what became of it. */
export class Wish {
  /** What is happening to the wish, beyond what the sale says; null while nobody has pressed. */
  trouble = null;
  /** The code of the last press's final no. */
  refusal = null;
  #kept = null;
  #running = false;

  constructor(sale, item) {
    Object.assign(this, { sale, item });
  }

  get #name() {
    return `${this.sale.who()}:${this.sale.answer.sale}:${this.item}`;
  }

  /** What was last wished for in this browser: `{key, quantity}`, or `{done}` with the purchase that came of it. */
  get #last() {
    return store.get(this.#name) ?? this.#kept;
  }

  get wish() {
    const last = this.#last;
    return last?.key ? last : null;
  }

  #keep(wish) {
    this.#kept = wish;
    store.set(this.#name, wish);
  }

  /** The newest purchase of the item that is the customer's. */
  get purchase() {
    return this.sale.purchases.find((purchase) => purchase.item === this.item);
  }

  /** A purchase that has changed; what was final before may not be so any more. */
  take(purchase) {
    this.trouble = null;
    this.sale.take(purchase);
  }

  /** How many of the item, and of the sale, are theirs; what may still be wished for. */
  get room() {
    const live = this.sale.purchases.filter((purchase) => purchase.status !== "released");
    const count = (purchases) => purchases.reduce((sum, purchase) => sum + purchase.quantity, 0);
    const { limit_per_customer } = this.sale.item(this.item);
    return Math.min(
      limit_per_customer - count(live.filter((purchase) => purchase.item === this.item)),
      this.sale.answer.limit_per_customer - count(live),
    );
  }

  /** One of: not_yet open your_turn deciding yours paid ended may_return gone paused overloaded offline closed signed_out limit fewer not_eligible blocked check_device check_letters check_page trouble */
  get state() {
    const { sale } = this;
    if (this.trouble?.state === "deciding" && sale.checking) return sale.checking;
    if (this.trouble) return this.trouble.state;
    if (this.wish) return "deciding";
    const { purchase } = this;
    if (purchase?.status === "held") return "yours";
    if (purchase?.status === "confirmed") return "paid";
    if (sale.phase === "closed") return "closed";
    if (sale.answer.paused) return "paused";
    if (sale.blockEnd > sale.clock.now()) return "blocked";
    if (purchase && purchase.status === "released") return "ended";
    if (sale.phase === "planned") return "not_yet";
    if (!sale.isReachable) return "offline";
    if (sale.isSignedIn && this.room < 1) return "limit";
    const { available } = sale.item(this.item);
    if (available !== "yes") return available === "may_return" ? "may_return" : "gone";
    return sale.isSignedIn ? "open" : "signed_out";
  }

  /** Pressing again, here or in another tab, is the same wish. */
  async press(quantity = 1) {
    this.refusal = null;
    this.#tell("deciding");
    // The wish is kept under the name of whoever is coming in.
    await this.sale.api.ready;
    const { done } = this.#last ?? {};
    if (done && !this.sale.purchases.some(({ purchase }) => purchase === done)) {
      // Another tab has bought, and whoever pressed here has not seen it yet.
      this.#keep(null);
      this.#tell(null);
      return insist(() => this.sale.mine());
    }
    if (!this.wish) this.#keep({ key: newKey(), quantity });
    await this.pursue();
  }

  /** Goes after a wish that was kept, until it is known what became of it. */
  async pursue() {
    if (this.#running) return;
    this.#running = true;
    try {
      this.#tell("deciding");
      await alone(this.#name, () => this.#ask());
    } finally {
      this.#running = false;
      this.sale.changed();
    }
  }

  #tell(state, code) {
    this.trouble = state && { state, code };
    this.sale.changed();
  }

  #end(state, code) {
    this.#keep(null);
    this.#tell(state, code);
  }

  async #ask() {
    for (let failures = 0; ; failures += 1) {
      const { wish } = this;
      // Another tab was faster: what became of it is in the purchases.
      if (!wish) {
        await insist(() => this.sale.mine());
        return this.#tell(null);
      }
      const had = await this.sale.pass(failures > 0 && NEEDS_PASS.includes(this.trouble?.code));
      const told = had.pass ? await this.#buy(had.pass, wish) : had;
      if (told.status === 200 || told.status === 201) {
        this.#keep({ done: told.body.purchase });
        return this.take(told.body);
      }
      if (told.status === 401) return this.#tell("signed_out", told.body.code);
      if (!(await this.#mayAskAgain(told, failures))) return;
    }
  }

  async #buy(pass, wish) {
    const jitter = pass.slot_offset_ms ? 0 : JITTER_MS * Math.random();
    const wait = this.sale.slot + jitter - this.sale.clock.now();
    if (wait > SECOND / 2) this.#tell("your_turn");
    await sleep(wait);
    this.#tell("deciding");
    const told = await this.sale.api.ask("POST", `/v1/sales/${this.sale.answer.sale}/items/${this.item}/purchases`, {
      headers: { "Doorbuster-Pass": pass.pass, "Idempotency-Key": wish.key },
      body: { quantity: wish.quantity },
      wait: 15,
    });
    return told.status === 202 ? this.#undecided(told.body.location) : told;
  }

  /** Asks at the place that the answer `pending` gave. */
  async #undecided(location) {
    for (let round = 0; ; round += 1) {
      await pause(Math.min(500 * 1.5 ** round, 5 * SECOND) * (0.75 + 0.5 * Math.random()));
      const told = await this.sale.api.ask("GET", location);
      if (told.status !== 202 && told.status !== 0) return told;
      if (told.status === 202) location = told.body.location;
    }
  }

  /** Waits as long as the answer wants; false when the answer is final. */
  async #mayAskAgain({ status, body, after }, failures) {
    const { code, retry_at } = body;
    if (code === "not_open" || code === "before_slot") {
      this.#tell("your_turn", code);
      // The opening may be late, and then so is everybody's slot.
      await this.sale.look();
      const rest = retry_at ? Date.parse(retry_at) - this.sale.clock.now() : SECOND;
      await pause(Math.max(rest, SECOND / 4) + JITTER_MS * Math.random());
      return true;
    }
    if (NEEDS_PASS.includes(code) && failures < 5) {
      this.#tell("deciding", code);
    } else if (status === 0) {
      this.#tell("offline");
    } else if (ASK_AGAIN.includes(code) || status === 429 || status >= 500) {
      this.#tell(code === "paused" ? "paused" : "overloaded", code);
    } else {
      await this.#final(code, retry_at);
      return false;
    }
    await pause(Math.max(backOff(failures), after * (1 + 0.5 * Math.random())));
    return true;
  }

  /** A refusal binds nothing: the wish is over, and another press is another wish. */
  async #final(code = "", retry_at) {
    this.refusal = code;
    if (code === "blocked") this.sale.block(retry_at);
    if (code === "sold_out" || code === "stock_insufficient") {
      // Looked at first, so that nothing looks free that is not.
      await this.sale.look("reload");
      this.#end(code === "sold_out" ? null : "fewer", code);
    } else if (code === "closed") {
      this.#end("closed", code);
    } else if (code.startsWith("limit_")) {
      // What is theirs says so, and it may change.
      await this.sale.mine();
      this.#end(this.room < 1 ? null : "fewer", code);
    } else if (/^grants_|^unpaid_/.test(code)) {
      this.#end("limit", code);
    } else {
      // An answer before this one may have been lost, and then what was wished for is theirs.
      await this.sale.mine();
      const isTold = code === "blocked" || this.purchase?.status === "held";
      this.#end(isTold ? null : code === "not_eligible" ? code : code === "challenge_required" ? "check_page" : "trouble", code);
    }
  }
}

/** Follows one purchase until it has ended: told by the server where a stream can be had, asked for where not. */
export async function follow(api, purchase, tell) {
  const isOver = (now) => now.status === "released" || now.status === "confirmed";
  for (let round = 0; !isOver(purchase); round += 1) {
    const ticket = await api.ask("POST", `/v1/purchases/${purchase.purchase}/stream-tickets`);
    if (ticket.status === 201) {
      await new Promise((end) => {
        const events = new EventSource(api.base + ticket.body.location);
        const leave = () => {
          events.close();
          end();
        };
        events.addEventListener("purchase", (event) => {
          purchase = JSON.parse(event.data);
          tell(purchase);
          if (isOver(purchase)) leave();
        });
        // A ticket opens one stream: another try needs another ticket.
        events.onerror = leave;
      });
    }
    if (isOver(purchase)) return;
    await pause(backOff(round));
    const told = await api.ask("GET", `/v1/purchases/${purchase.purchase}`);
    if (told.status === 200) {
      purchase = told.body;
      tell(purchase);
    }
  }
}
