// The words of the console in the reader's language, and numbers and times as that language writes them.

import en from "../text/en.js";
import zh from "../text/zh.js";
import { preference, setPreference } from "./store.js";

export const LANGUAGES = { en: "English", zh: "中文" };
const TEXTS = { en, zh };

let language = chosen();
const listeners = new Set();

function chosen() {
  const kept = preference("language");
  if (kept in TEXTS) return kept;
  return navigator.language?.toLowerCase().startsWith("zh") ? "zh" : "en";
}

export const currentLanguage = () => language;

export function setLanguage(name) {
  language = name;
  setPreference("language", name);
  showLanguage();
  for (const listener of [...listeners]) listener();
}

export function onLanguage(listener) {
  listeners.add(listener);
}

export function showLanguage() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
}

// The text of a key with its {names} filled in.
export function t(key, values = {}) {
  const text = TEXTS[language][key] ?? TEXTS.en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

// How numbers and times are written: as the browser says, if that is about the same language.
const locale = () => (navigator.language?.startsWith(language) ? navigator.language : language);

export const hasText = (key) => key in TEXTS.en;

// What went wrong, in words: our own for codes that we know, the server's beside them.
export function explain(error) {
  const known = hasText(`error.${error.code}`) ? t(`error.${error.code}`) : t("error.unknown");
  const said = error.message && !OWN_WORDS.has(error.code) ? `${known} ${error.message}` : known;
  return error.retryAfterS ? `${said} ${t("error.retry_after", { seconds: error.retryAfterS })}` : said;
}

const OWN_WORDS = new Set(["NETWORK", "RATE_LIMITED", "UNREADABLE", "INTERNAL_ERROR", "SESSION_NOT_FOUND"]);

export function number(value, digits = 0) {
  if (value === null || value === undefined) return "–";
  return new Intl.NumberFormat(locale(), { maximumFractionDigits: digits }).format(value);
}

export function time(text) {
  if (!text) return "–";
  const at = new Date(text);
  const today = at.toDateString() === new Date().toDateString();
  const clock = { hour: "2-digit", minute: "2-digit" };
  const style = today ? { ...clock, second: "2-digit" } : { ...clock, year: "numeric", month: "short", day: "numeric" };
  return new Intl.DateTimeFormat(locale(), style).format(at);
}

// "3.2 s", "240 ms", "2 min 5 s"
export function duration(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return t("unit.ms", { n: number(ms) });
  if (ms < 60_000) return t("unit.s", { n: number(ms / 1000, 1) });
  if (ms < 3_600_000) return t("unit.min_s", { min: Math.floor(ms / 60_000), s: Math.round((ms % 60_000) / 1000) });
  return t("unit.h_min", { h: Math.floor(ms / 3_600_000), min: Math.round((ms % 3_600_000) / 60_000) });
}
