// Where messages are written: Enter sends, Shift+Enter makes a line. What is typed is kept as a draft at once.

import { h, icon } from "../core/dom.js";
import { t } from "../core/i18n.js";
import { draft, setDraft } from "../core/store.js";

const MOST_PX = 240;
const LONGEST = 200_000;

export class Composer {
  // `send(text)` and `stop()` are told; `key` names the draft.
  constructor({ key, send, stop }) {
    this.key = key;
    this.input = h("textarea", {
      id: "message",
      rows: "1",
      maxlength: String(LONGEST),
      "aria-label": t("composer.label"),
      placeholder: t("composer.placeholder"),
      "aria-describedby": "composer-hint",
      enterkeyhint: "send",
      value: draft(key),
    });
    this.stop = h("button.round", { type: "button", hidden: true, onclick: stop, "aria-label": t("composer.stop"), title: t("composer.stop") }, icon("stop"));
    this.submit = h("button.round.primary", { type: "submit", "aria-label": t("composer.send"), title: t("composer.send") }, icon("send"));
    const box = h("div.composer-box", null, this.input, this.stop, this.submit);
    const hint = h("p.hint", { id: "composer-hint" }, t("composer.hint"));
    this.element = h("form.composer", { onsubmit: (event) => (event.preventDefault(), this.#send(send)) }, box, hint);
    this.readOnly = h("p.composer.read-only", { hidden: true }, t("composer.foreign"));
    this.input.addEventListener("input", () => this.#typed());
    this.input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.#send(send);
    });
    this.#typed();
  }

  // A new conversation has got its id: its draft moves with it.
  rename(key) {
    setDraft(this.key, "");
    this.key = key;
    this.#typed();
  }

  set running(running) {
    this.stop.hidden = !running;
  }

  set foreign(foreign) {
    this.element.hidden = foreign;
    this.readOnly.hidden = !foreign;
  }

  shown() {
    this.#size();
    this.input.focus({ preventScroll: true });
  }

  #typed() {
    setDraft(this.key, this.input.value);
    this.submit.disabled = this.input.value.trim() === "";
    this.#size();
  }

  #size() {
    this.input.style.height = "auto";
    this.input.style.height = `${Math.min(MOST_PX, this.input.scrollHeight)}px`;
  }

  #send(send) {
    const text = this.input.value.trim();
    if (!text) return;
    this.input.value = "";
    this.#typed();
    send(text);
    this.input.focus();
  }
}
