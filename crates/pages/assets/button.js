// <doorbuster-button sale="winter-drop" item="boot-42"></doorbuster-button>: the buy button on a shop's own page.
//
// The page sets `token` on one button of a sale: the customer's access token, or a function that gives it. Events, all bubbling:
//   doorbuster-state   { state }                      what the button shows now
//   doorbuster-held    { order, purchase, fresh, .. } the units are the customer's: lead them to pay. `fresh`: won on this page
//   doorbuster-end     { code }                       the press has ended in a no
//   doorbuster-check   { url }                        the sale asks for letters first: the browser goes to its page, unless prevented
//   doorbuster-sign-in {}                             pressed by somebody without a token, or with one that is not believed any more

import { Clock, SECOND, sleep } from "./clock.js";
import { Api, Sale, Wish, follow } from "./core.js";
import { Countdown, Speech, view } from "./speech.js";

const BASE = new URL(import.meta.url).origin;
const STYLE = `
:host{display:inline-block;font:inherit}
:host([hidden]){display:none}
button{font:inherit;font-weight:600;min-height:48px;min-width:12em;padding:.6em 1.4em;border:1px solid transparent;
border-radius:var(--doorbuster-radius,8px);cursor:pointer;
background:var(--doorbuster-button,#1d4ed8);color:var(--doorbuster-button-text,#fff)}
button:empty{visibility:hidden}
button:disabled{opacity:.55;cursor:default}
button:focus-visible{outline:2px solid #fff;outline-offset:0;box-shadow:0 0 0 5px var(--doorbuster-focus,#000)}
p{margin:.4em 0 0}[hidden]{display:none}
.away{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
`;
const clock = new Clock();
/** So long before the opening a button asks once more whether it may: some browsers forget within minutes. */
const WARM_MS = [8 * SECOND, 38 * SECOND];
const open = new Api(BASE);

/** Answers of everybody; asks until there is one. */
async function read(path, missing) {
  for (;;) {
    const told = await open.ask("GET", path, { isPublic: true });
    if (told.status === 200) return told;
    if (told.status === 404) throw new Error(missing);
    await sleep(SECOND + SECOND * Math.random());
  }
}

/** Tells people apart on a shared browser: a wish that one of them left is not pursued for another. */
function owner(token) {
  try {
    const { iss, sub } = JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
    return `${iss} ${sub}`;
  } catch {
    return token ?? "";
  }
}

/** A sale with all of its buttons: one customer, one watch, one stream for each purchase. */
class Counter {
  buttons = new Set();
  token = null;
  /** Whether it is known who the customer is. */
  isIn = false;
  #followed = new Set();

  constructor(name) {
    this.api = new Api(BASE, () => this.customer);
    this.ready = this.#begin(name);
  }

  get customer() {
    return (typeof this.token === "function" ? this.token() : this.token) || null;
  }

  async #begin(name) {
    const path = `/v1/sales/${encodeURIComponent(name)}`;
    const { body, sent, received } = await read(path, `there is no sale ${JSON.stringify(name)} at ${BASE}`);
    clock.note(Date.parse(body.server_time), sent, received, 2 * SECOND);
    const sale = (this.sale = new Sale(this.api, clock, body, () => owner(this.customer)));
    // Letters are for a page of ours, and then it gives a no.
    sale.prove = async () => (await import(`${BASE}/human.js`)).prove(sale);
    clock.measure(open, 3);
    document.addEventListener("visibilitychange", () => document.hidden || !this.buttons.size || sale.look());
    // What another tab has won or ended is ours too.
    addEventListener("storage", ({ key, newValue }) => {
      if (!key?.startsWith("doorbuster:") || !this.customer) return;
      // Should the tab that has pressed be killed, this one goes on in its place.
      if (newValue?.includes('"key"')) for (const button of this.buttons) button.enter();
      else sale.mine();
    });
    this.enter();
  }

  /** Pass, purchases and a warm connection for whoever the token names, all before the opening. */
  async enter() {
    const { sale } = this;
    if (!sale) return;
    this.isIn = false;
    if (!this.customer) {
      Object.assign(sale, { isSignedIn: false, purchases: [] });
      return sale.changed();
    }
    sale.isSignedIn = true;
    const told = await sale.mine();
    if (told.status === 0) await this.#explain();
    else sale.takePassAhead();
    this.isIn = true;
    for (const button of this.buttons) button.enter();
  }

  /** A browser does not tell a page that was not let in from a network that is gone; the engine does. */
  async #explain() {
    const { sale } = this.sale.answer;
    const told = await open.ask("GET", `/button/access?sale=${encodeURIComponent(sale)}`, { isPublic: true });
    if (told.body.let_in !== false) return;
    this.sale.refusal = "origin_refused";
    console.error(
      `doorbuster-button: the sale ${JSON.stringify(sale)} has not let in ${location.origin}, so nothing can be bought on this page. ` +
        `Put origins = ["${location.origin}"] into a file and run: doorbuster sale showcase ${sale} FILE`,
    );
  }

  follow(purchase) {
    if (this.#followed.has(purchase.purchase)) return;
    this.#followed.add(purchase.purchase);
    follow(this.api, purchase, (now) => this.sale.take(now));
  }
}

const counters = new Map();

function counterOf(name) {
  if (!counters.has(name)) {
    const counter = new Counter(name);
    counters.set(name, counter);
    // Another try may find it.
    counter.ready.catch(() => counters.delete(name));
  }
  return counters.get(name);
}

class DoorbusterButton extends HTMLElement {
  static observedAttributes = ["sale", "item"];
  #token = null;
  #counter = null;
  #wish = null;
  #speech = null;
  #state = null;
  #told = null;
  #countdown = new Countdown(clock);
  #isPressed = false;
  #warmAt = Infinity;
  /** Ends what the element does while it is on the page; null while it is not. */
  #leave = null;

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open", delegatesFocus: true });
    // Not an element of its own: a shop's policy may forbid those.
    const style = new CSSStyleSheet();
    style.replaceSync(STYLE);
    root.adoptedStyleSheets = [style];
    const part = (name, attributes) => {
      const element = document.createElement(name);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      root.append(element);
      return element;
    };
    this.button = part("button", { part: "button", type: "button", disabled: "" });
    this.face = part("p", { part: "clock", role: "timer", hidden: "" });
    this.text = part("p", { part: "state", role: "status" });
    this.announcer = part("p", { part: "announcer", class: "away", "aria-live": "assertive" });
    this.button.addEventListener("click", () => this.press());
  }

  get token() {
    return this.#counter ? this.#counter.customer : this.#token;
  }

  set token(token) {
    // It is the customer of all buttons of the sale.
    this.#token = this.#counter ? null : token;
    if (!this.#counter) return;
    this.#counter.token = token;
    this.#counter.enter();
  }

  connectedCallback() {
    // Set before this script had come.
    if (Object.hasOwn(this, "token")) {
      this.#token = this.token;
      delete this.token;
    }
    this.#begin();
  }

  disconnectedCallback() {
    this.#leave?.();
    this.#leave = null;
  }

  attributeChangedCallback(_, before, now) {
    if (!this.#leave || before === now) return;
    this.disconnectedCallback();
    this.#begin();
  }

  async #begin() {
    const ends = [];
    const leave = (this.#leave = () => ends.forEach((end) => end()));
    const isOver = () => this.#leave !== leave;
    // Attributes that are set one after the other belong together.
    await null;
    if (isOver()) return;
    const [name, item] = [this.getAttribute("sale"), this.getAttribute("item")];
    try {
      if (!name || !item) throw new Error("the attributes sale and item are missing");
      const counter = (this.#counter = counterOf(name));
      if (this.#token) this.token = this.#token;
      const language = this.getAttribute("lang") ?? this.closest("[lang]")?.lang ?? navigator.language;
      const [words] = await Promise.all([
        read(`/button/words?lang=${encodeURIComponent(language)}&sale=${encodeURIComponent(name)}`),
        counter.ready,
      ]);
      if (isOver()) return;
      if (!counter.sale.item(item)) throw new Error(`the sale ${JSON.stringify(name)} has no item ${JSON.stringify(item)}`);
      this.#show(counter.sale, item, words.body);
      counter.buttons.add(this);
      const timer = setInterval(() => this.#render(), 250);
      ends.push(counter.sale.onChange(() => this.#render()), () => counter.buttons.delete(this), () => clearInterval(timer));
      counter.sale.watch();
      if (counter.isIn) this.enter();
      this.#render();
    } catch (error) {
      if (isOver()) return;
      this.dataset.state = "wrong";
      console.error(`doorbuster-button: ${error.message}`, this);
    }
  }

  #show(sale, item, { words, language, direction }) {
    if (this.#wish?.sale !== sale || this.#wish.item !== item) this.#wish = new Wish(sale, item);
    this.#speech = new Speech(words, language);
    this.#state = null;
    this.lang ||= language;
    this.dir ||= direction;
    this.button.textContent = words.button;
    // There may be a button for every item.
    this.button.setAttribute("aria-label", `${words.button}: ${sale.item(item).title}`);
  }

  /** Before the opening, and when somebody has come in. */
  enter() {
    if (!this.#wish || !this.#counter.customer || this.#counter.sale.refusal) return;
    this.#warm();
    if (this.#wish.wish) this.#pursue((wish) => wish.pursue());
  }

  /** The browser asks before it sends what a press will send. Asking now, with the same headers, keeps that out of the press. */
  #warm() {
    const { sale, api } = this.#counter;
    const headers = { "Doorbuster-Pass": "-", "Idempotency-Key": "-", "Content-Type": "application/json" };
    api.ask("OPTIONS", `/v1/sales/${sale.answer.sale}/items/${this.#wish.item}/purchases`, { headers });
    // Some browsers forget within minutes. The last moment is each page's own, so that a crowd is no wall.
    const close = WARM_MS[0] + (WARM_MS[1] - WARM_MS[0]) * Math.random();
    const last = Date.parse(sale.answer.opens_at) - close;
    this.#warmAt = last > clock.now() + 60 * SECOND ? last : Infinity;
  }

  /** What a click does. */
  async press() {
    if (!this.#wish) return;
    // Who is not known is made known by the shop, which then sets the token.
    if (!this.#counter.customer) return this.#tell("sign-in", {});
    await this.#pursue((wish) => wish.press(Number(this.getAttribute("quantity") ?? 1)));
  }

  async #pursue(work) {
    const wish = this.#wish;
    if (this.#isPressed) return;
    this.#isPressed = true;
    await work(wish);
    this.#isPressed = false;
    if (wish.refusal === "challenge_required") this.#leadToCheck();
    else if (wish.refusal) this.#tell("end", { code: wish.refusal });
    else if (wish.state === "signed_out") this.#tell("sign-in", {});
  }

  /** The customer is handed over as the shop does it, in the fragment, which no server sees. */
  #leadToCheck() {
    const url = `${BASE}/sales/${this.#counter.sale.answer.sale}#token=${encodeURIComponent(this.#counter.customer)}`;
    if (this.#tell("check", { url })) location.assign(url);
  }

  #tell(name, detail) {
    return this.dispatchEvent(new CustomEvent(`doorbuster-${name}`, { detail, bubbles: true, composed: true, cancelable: true }));
  }

  #render() {
    const { button, text, face } = this;
    const shown = view(this.#wish, this.#speech);
    if (text.textContent !== shown.text) text.textContent = shown.text;
    button.disabled = !shown.enabled;
    button.hidden = !shown.button;
    face.hidden = shown.clock === null;
    this.#tick(shown);
    if (clock.now() > this.#warmAt) this.#warm();
    if (this.#state !== shown.state) {
      this.dataset.state = this.#state = shown.state;
      this.#tell("state", { state: shown.state });
    }
    const { purchase } = this.#wish;
    if (shown.state === "yours" && this.#told !== purchase.purchase) {
      this.#told = purchase.purchase;
      this.#counter.follow(purchase);
      this.#tell("held", { ...purchase, fresh: this.#isPressed });
    }
  }

  #tick({ clock: end, announces }) {
    const face = end === null ? "" : this.#speech.span(end - clock.now());
    if (this.face.textContent !== face) this.face.textContent = face;
    const passed = this.#countdown.step(end, announces);
    if (passed) this.announcer.textContent = this.#speech.announce(passed);
  }
}

customElements.get("doorbuster-button") ?? customElements.define("doorbuster-button", DoorbusterButton);
