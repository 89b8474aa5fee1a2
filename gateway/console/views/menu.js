// A button with a small menu under it: Escape or a click elsewhere closes it, arrows move in it.

import { h } from "../core/dom.js";

// `content` are elements; those that are buttons or links close the menu when they are used.
export function menu(label, face, ...content) {
  const panel = h("div.menu-panel", null, ...content);
  const summary = h("summary", { "aria-label": label, title: label }, ...face);
  const element = h("details.menu", null, summary, panel);
  const close = (focus) => {
    element.open = false;
    if (focus) summary.focus();
  };
  const outside = (event) => !element.contains(event.target) && close(false);
  element.addEventListener("toggle", () => {
    const listen = element.open ? addEventListener : removeEventListener;
    listen("pointerdown", outside);
  });
  element.addEventListener("keydown", (event) => {
    if (!element.open) return;
    const stops = [...panel.querySelectorAll("button, a, select")];
    const at = stops.indexOf(document.activeElement);
    if (event.key === "Escape") {
      event.stopPropagation();
      close(true);
    } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && event.target.tagName !== "SELECT") {
      event.preventDefault();
      stops.at((at + (event.key === "ArrowDown" ? 1 : -1) + stops.length) % stops.length)?.focus();
    }
  });
  panel.addEventListener("click", (event) => event.target.closest("button, a") && close(false));
  return element;
}
