// What the shop's own script does: it says who the customer is, and leads them to pay.

const button = document.querySelector("doorbuster-button");
const next = document.querySelector("#next");

/** Here, a guest of this tab. A shop gives the access token that its server has signed for whoever is signed in. */
function token() {
  const kept = sessionStorage.getItem("guest") ?? `guest_${crypto.randomUUID()}`;
  sessionStorage.setItem("guest", kept);
  return kept;
}

button.token = token;

button.addEventListener("doorbuster-held", ({ detail }) => {
  // A shop goes on to its checkout with the order, or asks POST /v1/orders/{order}/payments where to pay.
  next.textContent = `Your order ${detail.order} is waiting in the checkout.`;
});

button.addEventListener("doorbuster-end", ({ detail }) => {
  next.textContent = detail.code === "sold_out" ? "Somebody else was faster." : "";
});

button.addEventListener("doorbuster-sign-in", () => {
  // A shop shows its form here, and then sets `button.token`.
  button.token = token;
});
