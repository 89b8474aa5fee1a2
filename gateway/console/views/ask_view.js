// A question that an agent asks a person: suggestions to choose from, and room for an answer in one's own words.

import { h, replace } from "../core/dom.js";
import { explain, t } from "../core/i18n.js";

const LONGEST = 200_000;

export class AskView {
  // `ask` is {question, callId, choices}; `send(text)` answers it.
  constructor(ask, send) {
    this.callId = ask.callId;
    this.send = send;
    const id = `ask-${ask.callId}`;
    this.problem = h("p.problem", { role: "alert" });
    this.input = h("input", { type: "text", "aria-labelledby": id, maxlength: String(LONGEST), placeholder: t("ask.placeholder") });
    const choices = ask.choices.map((text) => h("button", { type: "button", onclick: () => this.#answer(text) }, text));
    const submit = h("button.primary", { type: "submit" }, t("ask.send"));
    const own = h("form.row.ask-own", { onsubmit: (event) => (event.preventDefault(), this.#answer(this.input.value.trim())) }, this.input, submit);
    const suggestions = choices.length ? h("div.row", { role: "group", "aria-labelledby": id }, choices) : null;
    this.element = h("section.ask", null, h("p.ask-question", { id }, ask.question), suggestions, own, this.problem);
  }

  // What was typed stays until the answer is taken.
  async #answer(text) {
    if (!text || this.sending) return;
    this.sending = true;
    const controls = [...this.element.querySelectorAll("button, input")];
    for (const control of controls) control.disabled = true;
    try {
      await this.send(text);
      replace(this.problem);
    } catch (error) {
      for (const control of controls) control.disabled = false;
      replace(this.problem, explain(error));
    } finally {
      this.sending = false;
    }
  }
}
