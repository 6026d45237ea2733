// Our own pages: puts what the page was made with together with what happens, and the person's presses with the sale.

import { Clock, sleep } from "./clock.js";
import { Api, Sale, Wish, follow, insist, store } from "./core.js";
import { Countdown, Speech, view } from "./speech.js";

const given = JSON.parse(document.querySelector("#given").textContent);
const speech = new Speech(given.words, document.documentElement.lang);
const clock = new Clock();
const api = new Api();
const find = (name, root = document) => root.querySelector(name);
const announcer = find("#announcer");

/** Leaves the document alone where nothing has changed, so that a screen reader is not disturbed. */
const put = (element, text) => {
  if (element && element.textContent !== text) element.textContent = text;
};
const show = (element, shown) => {
  if (element && element.hidden === shown) element.hidden = !shown;
};

function localise(root) {
  for (const time of root.querySelectorAll("time[datetime]")) put(time, speech.date(time.dateTime));
  for (const money of root.querySelectorAll("data[data-currency]")) {
    put(money, speech.money({ amount: Number(money.value), currency: money.dataset.currency }));
  }
}

/** The first measurement comes free: the page itself says when it was made. */
function readClockOfPage() {
  const [navigation] = performance.getEntriesByType("navigation");
  const fromNetwork = navigation && navigation.transferSize > 0 && navigation.type !== "back_forward";
  // Out of a cache it may be of any age, and then only a question helps.
  if (given.made_at && fromNetwork) clock.note(given.made_at, navigation.requestStart, navigation.responseStart, given.age_max_ms);
  return fromNetwork;
}

const who = () => store.get("who") ?? "";

/** The shop hands its customer over in the fragment, which no server and no log sees. */
async function signIn(token) {
  const known = new Api("", () => token);
  const told = await insist(() => known.ask("POST", "/v1/session"));
  const isIn = told.status === 200;
  // Whoever was in before is not who came now.
  if (!isIn) await insist(() => new Api().ask("DELETE", "/v1/session"));
  store.set("who", isIn ? told.body.customer : null);
  return isIn;
}

/** Whether somebody has come in or is coming in; every request waits until that is over. */
function comeIn() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return Boolean(who());
  // A moment later, so that the page can be used before anything is asked.
  api.ready = sleep(0).then(() => signIn(token));
  api.ready.then(() => history.replaceState(null, "", location.pathname + location.search));
  return true;
}

const signInAsGuest = () =>
  signIn(`guest_${Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(36)).join("")}`);

function bindSigning(after) {
  const guest = find("#guest");
  guest?.addEventListener("click", async () => {
    guest.disabled = true;
    if (await signInAsGuest()) await after();
    guest.disabled = false;
  });
  find("#sign-out")?.addEventListener("click", async () => {
    await api.ask("DELETE", "/v1/session");
    store.set("who", null);
    location.reload();
  });
}

function showSigned(isIn) {
  show(find("#signed-out"), !isIn);
  show(find("#sign-out"), isIn);
}

/** Pay and give back, for whichever purchase `current` gives. Giving back asks once more in place, without a window. */
function bindEnding(panel, current, take) {
  const [pay, back, sure, keep] = ["pay", "give-back", "sure", "keep"].map((name) => find(`[data-do=${name}]`, panel));
  const problem = find("[data-show=problem]", panel);
  const ask = (asking) => {
    show(find("[data-show=sure]", panel), asking);
    show(back, !asking);
    (asking ? keep : back).focus();
  };
  pay?.addEventListener("click", async () => {
    pay.disabled = true;
    put(problem, "");
    await (given.checkout_url ? toShop : toProvider)(current());
    pay.disabled = false;
  });
  back.addEventListener("click", () => ask(true));
  keep.addEventListener("click", () => ask(false));
  sure.addEventListener("click", async () => {
    const told = await api.ask("POST", `/v1/orders/${current().order}/cancel`, { wait: 15 });
    ask(false);
    if (told.status === 200) take(told.body);
    else put(problem, speech.say("problem_give_back"));
  });

  async function toProvider(purchase) {
    const body = { return_url: new URL(`/orders/${purchase.order}${location.search}`, location.href).href };
    const told = await api.ask("POST", `/v1/orders/${purchase.order}/payments`, { body, wait: 20 });
    if (told.status === 201 && told.body.pay_url) location.assign(told.body.pay_url);
    else if (told.status === 200) take(told.body);
    else put(problem, speech.say("problem_pay"));
  }

  async function toShop(purchase) {
    const told = await api.ask("POST", `/v1/orders/${purchase.order}/hold-token`);
    // In the fragment, as the shop handed its customer over to us.
    if (told.status === 200) location.assign(`${given.checkout_url}#hold_token=${encodeURIComponent(told.body.hold_token)}`);
    else put(problem, speech.say("problem_pay"));
  }
}

function showEnding(panel, purchase) {
  const isHeld = purchase?.status === "held";
  show(find("[data-show=ending]", panel), isHeld);
  const link = find("[data-show=order]", panel);
  show(link, Boolean(purchase));
  if (link && purchase) link.href = `/orders/${purchase.order}${location.search}`;
}

/** A clock that ticks on the server's time; `until` gives the end or null. */
function tick(panel, until, announces) {
  const countdown = new Countdown(clock);
  const face = find("[data-show=clock]", panel);
  return () => {
    const end = until();
    show(face, end !== null);
    if (end !== null) put(face, speech.span(end - clock.now()));
    const passed = countdown.step(end, announces());
    if (passed) put(announcer, speech.announce(passed));
  };
}

const keepUp = (render) => setInterval(render, 250);

async function salePage() {
  const sale = new Sale(api, clock, given.sale, who);
  sale.isSignedIn = isIn;
  /** Whether somebody has pressed, and so waits for the check. */
  let isAwaited = false;
  sale.prove = async () => {
    const [{ prove }, words] = await Promise.all([import("/human.js"), checkWords()]);
    return prove(sale, { words, isAwaited: () => isAwaited });
  };
  const panels = [...document.querySelectorAll("[data-item]")].map((panel) => itemPanel(panel, sale, comeInFirst));
  document.querySelector(".items").addEventListener("click", ({ target }) => {
    if (target.dataset.do !== "press") return;
    isAwaited = true;
    find("#check-letters")?.focus();
  });
  const render = () => panels.forEach((panel) => panel.render());
  sale.onChange(render);
  const enter = async () => {
    await insist(() => sale.mine());
    showSigned(sale.isSignedIn);
    if (!sale.isSignedIn) store.set("who", null);
    sale.takePassAhead();
    panels.forEach((panel) => panel.resume());
  };
  /** Somebody who presses before they are known is made known first, here or at the shop. */
  async function comeInFirst() {
    if (find("#guest")) {
      await signInAsGuest();
      await enter();
    } else {
      (find("#sign-in") ?? find("#signed-out")).scrollIntoView();
      find("#sign-in")?.click();
    }
    return sale.isSignedIn;
  }

  addEventListener("pageshow", (event) => event.persisted && enter());
  document.addEventListener("visibilitychange", () => document.hidden || sale.look());
  // What another tab has won or ended is ours too.
  addEventListener("storage", ({ key, newValue }) => {
    if (!key?.startsWith("doorbuster:")) return;
    // Should the tab that has pressed be killed, this one goes on in its place.
    if (newValue?.includes('"key"')) panels.forEach((panel) => panel.resume());
    else sale.mine();
  });
  bindSigning(enter);
  render();
  keepUp(render);
  if (isIn) await enter();
  else showSigned(false);
  if (!isFresh) await sale.look();
  await clock.measure(api, 3);
  // Close to the opening the clock is looked at once more, each page at its own moment.
  const toOpening = Date.parse(sale.answer.opens_at) - clock.now();
  if (toOpening > 20_000) setTimeout(() => clock.measure(api, 2), toOpening - 10_000 - 8_000 * Math.random());
  await sale.watch();
}

/** Loaded with the check, and not with every page. */
async function checkWords() {
  const told = await insist(() => api.ask("GET", `/check/words?lang=${document.documentElement.lang}`, { isPublic: true }));
  // What the items say meanwhile is among them.
  return Object.assign(given.words, told.body);
}

function itemPanel(panel, sale, comeInFirst) {
  const wish = new Wish(sale, panel.dataset.item);
  const button = find("[data-do=press]", panel);
  const quantity = find("select", panel);
  let shown = view(wish, speech);
  let followed = null;
  const ticking = tick(panel, () => shown.clock, () => shown.announces);
  button.addEventListener("click", async () => {
    if (sale.isSignedIn || (await comeInFirst())) wish.press(Number(quantity?.value ?? 1));
  });
  bindEnding(panel, () => wish.purchase, (purchase) => wish.take(purchase));

  function render() {
    const before = shown.state;
    shown = view(wish, speech);
    panel.dataset.state = shown.state;
    put(find("[data-show=state]", panel), shown.text);
    show(button, shown.button);
    button.disabled = !shown.enabled;
    // With the button, so that neither moves at the opening; one may choose before it.
    show(quantity?.parentElement, shown.button);
    if (quantity) quantity.disabled = !shown.enabled && shown.state !== "not_yet";
    showEnding(panel, wish.purchase);
    // Whoever pressed by keyboard goes on where the next thing to do is.
    if (before !== shown.state && shown.state === "yours" && [document.body, button].includes(document.activeElement)) {
      (find("[data-do=pay]", panel) ?? find("[data-show=order]", panel)).focus();
    }
    ticking();
    const { purchase } = wish;
    if (purchase?.status === "held" && followed !== purchase.purchase) {
      followed = purchase.purchase;
      follow(api, purchase, (now) => sale.take(now));
    }
  }

  return { render, resume: () => wish.wish && wish.pursue() };
}

async function orderPage() {
  const panel = find("[data-order]");
  let order = null;
  let title = "";
  const ticking = tick(panel, () => (order?.status === "held" ? Date.parse(order.pay_by) : null), () => "paying");
  const take = (now) => {
    order = { ...order, ...now };
    render();
  };
  const readOrder = () => api.ask("GET", `/v1/orders/${location.pathname.split("/").at(-1)}`);
  bindEnding(panel, () => order, take);
  bindSigning(load);
  await load();
  keepUp(ticking);

  async function load() {
    const told = await readOrder();
    showSigned(told.status !== 401);
    if (told.status !== 200) {
      const word = { 401: "state_signed_out", 404: "order_unknown", 0: "state_offline" }[told.status] ?? "state_trouble";
      put(find("[data-show=state]", panel), speech.say(word));
      if (told.status === 0) setTimeout(load, 3000);
      return;
    }
    title = await titleOf(told.body);
    take(told.body);
    await clock.measure(api, 3);
    follow(api, order, take);
  }

  function render() {
    panel.dataset.state = { held: "yours", confirmed: "paid", released: "ended" }[order.status];
    for (const [name, text] of Object.entries(orderTexts(order, title))) put(find(`[data-show=${name}]`, panel), text);
    show(find("dl", panel), true);
    showEnding(panel, order);
    const receipt = find("[data-show=receipt]", panel);
    if (order.receipt && !receipt.href) {
      // The answer as it came: `doorbuster verify --receipt` reads it.
      receipt.href = URL.createObjectURL(new Blob([JSON.stringify(order)], { type: "application/json" }));
      receipt.download = `${order.order}.json`;
      show(receipt, true);
    }
    ticking();
  }
}

const salesSeen = new Map();

/** What customers call the item; its name where the sale cannot be read. */
async function titleOf(order) {
  if (!salesSeen.has(order.sale)) salesSeen.set(order.sale, api.ask("GET", `/v1/sales/${order.sale}`));
  const { body } = await salesSeen.get(order.sale);
  return body.items?.find((item) => item.item === order.item)?.title ?? order.item;
}

function orderTexts(order, title) {
  const attempt = order.payments?.at(-1)?.status;
  const word =
    order.status === "released" ? `state_ended_${order.release_reason}` : order.status === "confirmed" ? "state_paid" : "state_yours";
  const money = { open: "payment_open", refund_due: "payment_refund_due", refunded: "payment_refunded" }[attempt];
  return {
    state: speech.say(word, { time: speech.time(order.pay_by) }),
    payment: money ? speech.say(money) : "",
    item: title,
    quantity: order.quantity.toLocaleString(speech.language),
    price: speech.money(order.price),
    number: order.order,
  };
}

async function minePage() {
  const list = find("[data-orders]");
  const row = find("template").content;
  const more = find("#more");
  let cursor = "";
  bindSigning(load);
  more.addEventListener("click", load);
  await load();

  async function load() {
    const told = await api.ask("GET", `/v1/orders${cursor}`);
    showSigned(told.status !== 401);
    put(find("[data-show=state]"), told.status === 200 ? "" : speech.say(told.status === 401 ? "state_signed_out" : "state_offline"));
    if (told.status === 0) setTimeout(load, 3000);
    if (told.status !== 200) return;
    for (const order of told.body.orders) {
      const entry = row.cloneNode(true);
      const link = find("a", entry);
      link.href = `/orders/${order.order}${location.search}`;
      const texts = orderTexts(order, await titleOf(order));
      for (const [name, text] of Object.entries(texts)) put(find(`[data-show=${name}]`, entry), text);
      list.append(entry);
    }
    cursor = `?cursor=${told.body.next_cursor}`;
    show(more, Boolean(told.body.next_cursor));
    show(find("#none"), !list.children.length);
  }
}

const isFresh = readClockOfPage();
localise(document);
const isIn = comeIn();
// Another hand-over to a page that is open, and another customer in another tab: everything is read anew.
addEventListener("hashchange", () => location.hash.includes("token=") && location.reload());
addEventListener("storage", ({ key }) => key === "doorbuster:who" && location.reload());
await { sale: salePage, order: orderPage, mine: minePage }[document.body.dataset.page]?.();
