// A tool of a turn: a line that says what it is and how it went; its arguments and result fold out.

import { h, icon, replace, setText } from "../core/dom.js";
import { duration, t } from "../core/i18n.js";

const LONGEST = 20_000;

export class ToolView {
  constructor() {
    this.mark = h("span.tool-mark");
    this.name = h("span.tool-name");
    this.args = h("span.tool-args");
    this.state = h("span.tool-state");
    this.body = h("div.tool-body");
    this.element = h("details.tool", null, h("summary", null, this.mark, this.name, this.args, this.state), this.body);
    this.element.addEventListener("toggle", () => this.#fill());
    this.tool = null;
    this.key = "";
  }

  update(tool, ended) {
    const state = tool.done ? (tool.ok ? "done" : "failed") : ended ? "unknown" : "running";
    const key = `${state} ${tool.output.length} ${tool.name} ${tool.args !== null}`;
    this.tool = tool;
    if (key === this.key) return;
    this.key = key;
    if (this.element.dataset.state !== state) replace(this.mark, state === "running" ? h("span.spinner") : mark(state));
    this.element.dataset.state = state;
    setText(this.name, tool.name);
    setText(this.args, brief(tool.args));
    setText(this.state, state === "done" && tool.ms !== null ? duration(tool.ms) : t(`tool.${state}`));
    this.#fill();
  }

  #fill() {
    if (!this.element.open) return;
    const { args, output, data, error, done } = this.tool;
    replace(
      this.body,
      part(t("tool.arguments"), args),
      output.length ? part(t("tool.output"), output.map((piece) => piece.text).join("")) : null,
      done && error ? part(t("tool.error"), error) : null,
      done && data !== null ? part(t("tool.result"), data) : null,
    );
  }
}

const mark = (state) => (state === "done" ? icon("check") : state === "failed" ? icon("cross") : "?");

function part(label, value) {
  return h("section", null, h("h4", null, label), h("pre", { tabindex: "0" }, cut(pretty(value))));
}

const cut = (text) => (text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text);

export function pretty(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

function brief(args) {
  if (args === null || args === undefined) return "";
  if (typeof args !== "object") return String(args).slice(0, 120);
  const values = Object.values(args).map((value) => (typeof value === "string" ? value : JSON.stringify(value)));
  return values.join(", ").slice(0, 120);
}
