// Gives [x, y], or a sentence that says what is in the way. `host >>> part` is inside the shadow of `host`.
(selector) => {
  const [host, inner] = selector.split(" >>> ");
  const outer = document.querySelector(host);
  const element = inner ? outer?.shadowRoot?.querySelector(inner) : outer;
  if (!element) return "there is none";
  element.scrollIntoView({ block: "center", inline: "center", behavior: "instant" });
  const box = element.getBoundingClientRect();
  if (!box.width || !box.height) return "it has no size";
  const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
  const top = element.getRootNode().elementFromPoint(x, y);
  if (!top) return `its centre is at ${x}, ${y}, outside the window`;
  if (element.contains(top) || top.shadowRoot?.contains(element)) return [x, y];
  return `it is covered by ${top.outerHTML.slice(0, 200)}`;
}
