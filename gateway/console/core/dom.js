// Makes elements. Text only ever becomes text nodes: nothing here, or anywhere else, parses HTML.

const SVG = "http://www.w3.org/2000/svg";

// h("button.primary", {onclick, "aria-label": "..."}, "text", child, ...); null and false children are left out.
export function h(name, properties, ...children) {
  const [tag, ...classes] = name.split(".");
  return fill(document.createElement(tag), classes, properties, children);
}

export function svg(name, properties, ...children) {
  const [tag, ...classes] = name.split(".");
  return fill(document.createElementNS(SVG, tag), classes, properties, children);
}

function fill(element, classes, properties, children) {
  if (classes.length) element.setAttribute("class", classes.join(" "));
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked" || key === "open") element[key] = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function replace(parent, ...children) {
  parent.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
}

// Sets text only where it changes: a text node that stays keeps a reader's selection.
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const ICONS = {
  menu: "M4 7h16M4 12h16M4 17h16",
  plus: "M12 5v14M5 12h14",
  send: "M5 12h13M12 5.5L18.5 12L12 18.5",
  stop: "M8 8h8v8H8z",
  down: "M12 5v14M6 13l6 6l6-6",
  more: "M11.5 5.5h1v1h-1zM11.5 11.5h1v1h-1zM11.5 17.5h1v1h-1z",
  close: "M6 6l12 12M18 6L6 18",
  check: "M5 12.5l4.5 4.5L19 7.5",
  cross: "M7 7l10 10M17 7L7 17",
  user: "M12 12a4 4 0 1 0 0-8a4 4 0 0 0 0 8zM4.5 20a7.5 7.5 0 0 1 15 0",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z",
  sun: "M12 8a4 4 0 1 0 0 8a4 4 0 0 0 0-8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4",
  copy: "M9 9h10v10H9zM5 15V5h10",
  refresh: "M19 12a7 7 0 1 1-2-5M19 3.5V8h-4.5",
};

export function icon(name) {
  const path = svg("path", { d: ICONS[name] });
  return svg(`svg.icon.icon-${name}`, { viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, path);
}
