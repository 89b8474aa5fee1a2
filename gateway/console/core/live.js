// Says things to screen readers, calmly: one polite line at a time, never each word of a stream.

import { h } from "./dom.js";

const LONGEST = 600;
const region = h("div.visually-hidden", { "aria-live": "polite", role: "status" });

export const liveRegion = () => region;

export function announce(text) {
  region.textContent = "";
  requestAnimationFrame(() => (region.textContent = text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text));
}
