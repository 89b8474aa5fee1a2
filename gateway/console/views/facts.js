// A thing in detail: its fields as a list of terms, its longer parts folded out below.

import { h } from "../core/dom.js";
import { pretty } from "./tool_view.js";

// `facts` are [name, value]; empty values are left out.
export function factList(facts) {
  const shown = facts.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl.facts", null, shown.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, ...[value].flat()))));
}

export function part(title, value) {
  if (value === null || value === undefined || value === "") return null;
  return h("section", null, h("h2", null, title), h("pre.block", { tabindex: "0" }, pretty(value)));
}
