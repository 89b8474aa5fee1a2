// The two tastes that a reader can choose: language and colours.

import { h } from "../core/dom.js";
import { LANGUAGES, currentLanguage, setLanguage, t } from "../core/i18n.js";
import { THEMES, setTheme, theme } from "../core/theme.js";

function choice(label, names, current, choose) {
  const options = Object.entries(names).map(([value, name]) => h("option", { value, selected: value === current }, name));
  const select = h("select", { onchange: () => choose(select.value) }, ...options);
  return h("label.choice", null, h("span", null, label), select);
}

export function languageChoice() {
  return choice(t("choice.language"), LANGUAGES, currentLanguage(), setLanguage);
}

export function themeChoice() {
  const names = Object.fromEntries(THEMES.map((name) => [name, t(`theme.${name}`)]));
  return choice(t("choice.theme"), names, theme(), setTheme);
}
