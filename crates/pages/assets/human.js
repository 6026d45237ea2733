// The human check, loaded only by whoever is asked for one: computes a proof of work, or asks a person for the letters in a picture.
// It shows itself on our own pages only. A shop's page takes the proof, which needs nobody to see it.

const LETTERS_MAX = 20;
/** Derivations at the same time; a browser does them beside the page. */
const AT_ONCE = Math.min(navigator.hardwareConcurrency || 2, 4);
const RETRY_MS = 3000;

/** Comes with the check, so that the pages of other sales do not carry it. */
const STYLE = `
#check{max-width:34rem}
#check>*{margin-block-end:.75rem}
#check img{display:block;max-width:100%;height:auto;border:1px solid var(--line);border-radius:.5rem;background:#fff}
#check label{margin-block-end:.35rem}
#check .line>*{margin:0}
#check .line .quiet{flex:1 1 11rem}
#check [type=submit]{flex:1 0 auto;max-width:100%}
#check .problem{margin-block-start:.5rem}
#check input{font:inherit;flex:1 1 9rem;min-width:0;min-height:3rem;padding:.6rem;border:1px solid var(--soft);border-radius:.5rem;
background:var(--paper);color:var(--ink);letter-spacing:.15em;text-transform:uppercase}
`;

const sleep = (ms) => new Promise((wake) => setTimeout(wake, Math.max(0, ms)));
const bytesOf = (hex) => Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
const hexOf = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

async function derive(password, salt, iterations) {
  const key = await crypto.subtle.importKey("raw", password, "PBKDF2", false, ["deriveBits"]);
  return new Uint8Array(await crypto.subtle.deriveBits({ name: "PBKDF2", hash: "SHA-256", salt, iterations }, key, 256));
}

/** Tries counters until the derived key begins as it must: proof of work by ALTCHA, version 2. */
async function solve({ parameters: { cost, keyPrefix, nonce, salt } }) {
  const front = bytesOf(nonce);
  const attempt = async (counter) => {
    const password = new Uint8Array(front.length + 4);
    password.set(front);
    new DataView(password.buffer).setUint32(front.length, counter);
    return hexOf(await derive(password, bytesOf(salt), cost));
  };
  for (let from = 0; ; from += AT_ONCE) {
    const keys = await Promise.all(Array.from({ length: AT_ONCE }, (_, step) => attempt(from + step)));
    const found = keys.findIndex((key) => key.startsWith(keyPrefix));
    if (found >= 0) return { counter: from + found, derivedKey: keys[found] };
  }
}

const plain = (letters) => letters.replace(/[\s-]/g, "").toUpperCase();

/** Whether the letters are wrong, as far as can be told here: the set has a sealed answer for every picture. */
async function areWrong(api, { set, index }, letters) {
  if (!set || !crypto.subtle) return false;
  const { status, body } = await api.ask("GET", set, { isPublic: true });
  const entry = status === 200 && body.entries[index];
  if (!entry) return false;
  const decoded = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
  const hash = await derive(new TextEncoder().encode(plain(letters)), decoded(entry.salt), body.rounds);
  return hexOf(hash) !== hexOf(decoded(entry.hash));
}

/** The check on the page: a picture, its sound, a field, and the ways around. */
class Asking {
  #decide = null;
  #challenge = null;
  #sound = null;

  constructor(words) {
    const make = (name, properties = {}, parts = []) => {
      const element = Object.assign(document.createElement(name), properties);
      element.append(...parts);
      return element;
    };
    const quiet = (text, act) => {
      const button = make("button", { type: "button", className: "quiet", textContent: text });
      button.addEventListener("click", act);
      return button;
    };
    this.words = words;
    this.picture = make("img", { alt: words.picture, width: 260, height: 110 });
    this.field = make("input", { id: "check-letters", autocomplete: "off", spellcheck: false, maxLength: LETTERS_MAX, required: true, dir: "ltr" });
    this.field.setAttribute("autocapitalize", "characters");
    this.field.setAttribute("aria-describedby", "check-problem");
    this.problem = make("p", { id: "check-problem", className: "problem" });
    this.problem.setAttribute("role", "alert");
    this.go = make("button", { type: "submit", textContent: words.go });
    const label = make("label", { htmlFor: "check-letters", textContent: words.letters });
    const form = make("form", { noValidate: true }, [label, make("div", { className: "line" }, [this.field, this.go]), this.problem]);
    this.others = [
      quiet(words.listen, () => this.#listen()),
      quiet(words.another, () => this.#choose({ another: true })),
      quiet(words.device, () => this.#choose({ device: true })),
    ];
    const title = make("h2", { id: "check-title", textContent: words.title });
    const parts = [title, make("p", { textContent: words.why }), this.picture, form, make("div", { className: "line" }, this.others)];
    this.section = make("section", { id: "check", className: "note" }, parts);
    this.section.setAttribute("aria-labelledby", "check-title");
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (plain(this.field.value)) this.#choose({ letters: this.field.value });
      else this.say(words.empty);
    });
    const style = new CSSStyleSheet();
    style.replaceSync(STYLE);
    document.adoptedStyleSheets = [style];
    document.querySelector(".items").before(this.section);
  }

  #listen() {
    this.#sound?.pause();
    this.#sound = new Audio(this.#challenge.audio);
    this.#sound.play().catch(() => this.say(this.words.silent));
    this.field.focus();
  }

  #choose(choice) {
    if (!this.#decide) return;
    this.#sound?.pause();
    this.#decide(choice);
    this.#decide = null;
    this.enable(false);
  }

  enable(can) {
    for (const button of [this.go, ...this.others]) button.disabled = !can;
    // The field keeps the focus, and so it is never disabled.
    this.field.readOnly = !can;
  }

  say(text) {
    this.problem.textContent = text;
  }

  /** What the person chooses: `letters`, `another` picture, or that the `device` does it. */
  ask(challenge) {
    if (this.#challenge !== challenge) {
      this.#challenge = challenge;
      this.picture.src = challenge.picture;
      this.field.value = "";
    }
    this.enable(true);
    return new Promise((decide) => (this.#decide = decide));
  }

  focus() {
    this.section.scrollIntoView({ block: "nearest" });
    this.field.focus();
  }

  get hasFocus() {
    return this.section.contains(document.activeElement);
  }

  close() {
    this.#sound?.pause();
    const hadFocus = this.hasFocus;
    this.section.remove();
    // Whoever typed goes on where the next thing to do is.
    const next = [...document.querySelectorAll("[data-do=press]")].find((button) => !button.disabled && !button.hidden);
    if (hadFocus) (next ?? document.querySelector("main")).focus();
  }
}

/** The answer to a challenge: computed, or asked for until there is something to send. `{another}` wants another challenge first. */
async function answered(sale, challenge, asking) {
  if (challenge.proof_of_work) return { answer: await solve(challenge.proof_of_work) };
  for (;;) {
    const choice = await asking.ask(challenge);
    asking.say(asking.words.working);
    if (!choice.letters || !(await areWrong(sale.api, challenge, choice.letters))) return { ...choice, answer: choice.letters };
    asking.say(asking.words.wrong);
    asking.field.select();
  }
}

/**
 * Does what the sale asks for until there is a pass: gives what `POST .../passes` said then, or a refusal that no answer changes. `page` is
 * there on our own pages: the words, and whether somebody waits for it.
 */
export async function prove(sale, page = null) {
  const path = `/v1/sales/${sale.answer.sale}`;
  let asking = null;
  let wanted = {};
  try {
    for (let problem = ""; ; ) {
      const given = await sale.api.ask("POST", `${path}/challenges`, { body: wanted });
      // The operator has taken the check away.
      if (given.status === 404) return await sale.api.ask("POST", `${path}/passes`);
      if (!given.status || given.status === 429 || given.status >= 500) {
        if (!page) return given;
        asking?.say(asking.words.wait);
        await sleep(Math.max(given.after, RETRY_MS));
        continue;
      }
      if (given.status !== 201) return given;
      const challenge = given.body;
      if (challenge.proof_of_work ? !crypto.subtle : !page) return { status: 403, body: { code: "challenge_required" } };
      sale.check(challenge.proof_of_work ? "check_device" : "check_letters");
      if (!challenge.proof_of_work && !asking) {
        asking = new Asking(page.words);
        if (page.isAwaited()) asking.focus();
      }
      asking?.say(problem);
      const { answer, another, device } = await answered(sale, challenge, asking);
      wanted = device ? { kind: "proof_of_work" } : another ? { another } : {};
      if (answer === undefined) {
        problem = "";
        continue;
      }
      // An answer that comes sooner would be taken for a program's.
      await sleep(challenge.wait_ms - (performance.now() - given.received));
      const told = await send(sale, `${path}/passes`, { challenge: challenge.challenge, answer });
      if (told.body.code !== "challenge_failed") return told;
      problem = page?.words.wrong ?? "";
      wanted = challenge.proof_of_work && asking ? { kind: "proof_of_work" } : {};
      if (asking && !challenge.proof_of_work) asking.field.focus();
    }
  } finally {
    sale.check(null);
    asking?.close();
  }
}

/** Sends an answer until there is an answer to it: the same one again is safe, also if a pass came of it and got lost. */
async function send(sale, path, body) {
  for (let round = 0; ; round += 1) {
    const told = await sale.api.ask("POST", path, { body });
    if (told.status > 0 && told.status < 500 && told.status !== 429) return told;
    if (round > 4) return told;
    await sleep(Math.max(told.after, RETRY_MS * (0.5 + Math.random())));
  }
}
