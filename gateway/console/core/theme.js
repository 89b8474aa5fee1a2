// Light, dark, or what the system says.

import { preference, setPreference } from "./store.js";

export const THEMES = ["system", "light", "dark"];

export const theme = () => (THEMES.includes(preference("theme")) ? preference("theme") : "system");

export function showTheme() {
  if (theme() === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme();
}

export function setTheme(name) {
  setPreference("theme", name);
  showTheme();
}
