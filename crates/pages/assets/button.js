// <doorbuster-button sale="winter-drop" item="boot-42"></doorbuster-button>: the buy button on a shop's own page.
//
// The page sets `token` (the customer's access token, or a function that gives it). Events, all bubbling:
//   doorbuster-state  { state }               what the button shows now
//   doorbuster-held   { order, purchase, .. } the units are the customer's; lead them to pay
//   doorbuster-sign-in {}                     pressed by somebody without a token
//   doorbuster-end    { code }                a final no

import { Api, Clock, Sale, Wish, follow } from "./core.js";
import { Countdown, Speech, view } from "./speech.js";

const BASE = new URL(import.meta.url).origin;
const STYLE = `
:host{display:inline-block;font:inherit}
button{font:inherit;font-weight:600;min-height:48px;min-width:12em;padding:.6em 1.4em;border:0;border-radius:8px;cursor:pointer;
background:var(--doorbuster-button,#1d4ed8);color:var(--doorbuster-button-text,#fff)}
button:disabled{opacity:.55;cursor:default}
button:focus-visible{outline:3px solid currentColor;outline-offset:2px}
p{margin:.4em 0 0}[hidden]{display:none}
.away{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
`;
/** What is the same for all buttons of a page: its clock, and each sale with its watch. */
const clock = new Clock();
const sales = new Map();

/** Tells people apart on a shared browser: a wish that one of them left is not pursued for another. */
function owner(token) {
  try {
    const { iss, sub } = JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
    return `${iss} ${sub}`;
  } catch {
    return token ?? "";
  }
}

class DoorbusterButton extends HTMLElement {
  #token = null;
  #shown = { state: null };
  #timer = null;
  countdown = new Countdown(clock);

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open", delegatesFocus: true });
    const style = new CSSStyleSheet();
    style.replaceSync(STYLE);
    root.adoptedStyleSheets = [style];
    const part = (name, attributes = {}) => {
      const element = document.createElement(name);
      for (const [key, value] of Object.entries({ part: name, ...attributes })) element.setAttribute(key, value);
      root.append(element);
      return element;
    };
    this.button = part("button", { type: "button", disabled: "" });
    this.text = part("p", { role: "status", part: "state" });
    this.face = part("p", { role: "timer", part: "clock", hidden: "" });
    this.announcer = part("p", { "aria-live": "assertive", class: "away", part: "announcer" });
    this.button.addEventListener("click", () => this.press());
  }

  get token() {
    return typeof this.#token === "function" ? this.#token() : this.#token;
  }

  set token(token) {
    this.#token = token;
    this.#enter();
  }

  async connectedCallback() {
    const name = this.getAttribute("sale");
    const language = this.getAttribute("lang") ?? this.closest("[lang]")?.lang ?? navigator.language;
    this.api = new Api(BASE, () => this.token);
    const [words, answer] = await Promise.all([
      this.#read(`/button/words?lang=${encodeURIComponent(language)}&sale=${encodeURIComponent(name)}`),
      this.#read(`/v1/sales/${encodeURIComponent(name)}`),
    ]);
    this.speech = new Speech(words.words, words.language);
    this.lang ||= words.language;
    this.dir ||= words.direction;
    this.button.textContent = words.words.button;
    clock.note(Date.parse(answer.server_time), answer.sent, answer.received, 2000);
    if (!sales.has(name)) {
      const sale = new Sale(this.api, clock, answer, () => owner(this.token));
      sales.set(name, sale);
      sale.watch();
      clock.measure(this.api, 3);
    }
    this.sale = sales.get(name);
    this.wish = new Wish(this.sale, this.getAttribute("item"));
    this.sale.onChange(() => this.#render());
    this.#timer ??= setInterval(() => this.#render(), 250);
    await this.#enter();
    this.#render();
  }

  disconnectedCallback() {
    clearInterval(this.#timer);
    this.#timer = null;
  }

  async #read(path) {
    for (;;) {
      const told = await this.api.ask("GET", path);
      if (told.status === 200) return { ...told.body, sent: told.sent, received: told.received };
      if (told.status === 404) throw new Error(`doorbuster-button: ${BASE}${path} does not exist`);
      await new Promise((wake) => setTimeout(wake, 1000 + 1000 * Math.random()));
    }
  }

  /** Pass, purchases and a warm connection, all before the opening. */
  async #enter() {
    if (!this.wish || !this.token) return;
    this.sale.isSignedIn = true;
    await this.sale.mine();
    // The browser asks before it sends what the press will send; asking now keeps that out of the press.
    const path = `/v1/sales/${this.sale.answer.sale}/items/${this.wish.item}/purchases`;
    const headers = { "Doorbuster-Pass": "-", "Idempotency-Key": "-", "Content-Type": "application/json" };
    this.api.ask("OPTIONS", path, { headers });
    this.sale.takePassAhead();
    if (this.wish.wish) this.wish.pursue();
  }

  async press() {
    // Who is not known is made known by the shop, which then sets the token.
    if (!this.token) return this.#tell("sign-in", {});
    await this.wish?.press(Number(this.getAttribute("quantity") ?? 1));
    const { purchase } = this.wish;
    if (purchase?.status === "held") this.#tell("held", purchase);
    else if (this.wish.trouble?.code) this.#tell("end", this.wish.trouble);
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(`doorbuster-${name}`, { detail, bubbles: true, composed: true }));
  }

  #render() {
    const before = this.#shown.state;
    const shown = (this.#shown = view(this.wish, this.speech));
    const { button, text, face } = this;
    if (text.textContent !== shown.text) text.textContent = shown.text;
    button.disabled = !shown.enabled;
    button.hidden = !shown.button;
    face.hidden = shown.clock === null;
    this.#tick(shown);
    if (before !== shown.state) {
      this.dataset.state = shown.state;
      this.#tell("state", { state: shown.state });
      if (shown.state === "yours") follow(this.api, this.wish.purchase, (now) => this.wish.take(now));
    }
  }

  #tick(shown) {
    if (shown.clock !== null) this.face.textContent = this.speech.span(shown.clock - clock.now());
    const passed = this.countdown.step(shown.clock, shown.announces);
    if (passed) this.announcer.textContent = this.speech.announce(passed);
  }
}

customElements.define("doorbuster-button", DoorbusterButton);
