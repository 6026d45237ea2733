// The innermost element that has the focus, as a reader names it.
(() => {
  let element = document.activeElement ?? document.documentElement;
  while (element.shadowRoot?.activeElement) element = element.shadowRoot.activeElement;
  const tag = element.localName + (element.id && `#${element.id}`);
  if (element === document.body) return tag;
  const name = element.ariaLabel ?? element.labels?.[0]?.innerText ?? element.innerText ?? "";
  return name ? `${tag} "${name.trim().replace(/\s+/g, " ")}"` : tag;
})()
