// Tables: plain ones, and lists of the API that come in pages. On a phone each row is a card (see operations.css).

import { h, icon, replace } from "../core/dom.js";
import { explain, hasText, t } from "../core/i18n.js";

// `columns` are {name, cell(row), end}; a cell is text, an element or a list of them.
export function table({ label, columns, rows, empty }) {
  if (rows.length === 0) return h("p.nothing", null, empty ?? t("table.empty"));
  const head = h("tr", null, columns.map((column) => h(column.end ? "th.end" : "th", { scope: "col" }, column.name)));
  const body = rows.map((row) => h("tr", null, columns.map((column) => cell(column, row))));
  const whole = h("table", { "aria-label": label }, h("thead", null, head), h("tbody", null, body));
  return h("div.table-frame", { tabindex: "0", role: "region", "aria-label": label }, whole);
}

function cell(column, row) {
  return h(column.end ? "td.end" : "td", { "data-label": column.name }, ...[column.cell(row)].flat());
}

export function badge(status) {
  const tone = { succeeded: "good", sent: "good", failed: "bad", dead: "bad", refused: "bad", running: "busy", sending: "busy" }[status] ?? "calm";
  return h(`span.badge.${tone}`, null, hasText(`status.${status}`) ? t(`status.${status}`) : status);
}

// A button that does something with a row; what goes wrong is shown by `fail`.
export function actionButton(label, act, fail, danger = false) {
  const button = h(danger ? "button.small.danger" : "button.small", { type: "button" }, label);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await act();
    } catch (error) {
      fail(error);
    } finally {
      button.disabled = false;
    }
  });
  return button;
}

// A list of the API: {items, next}, filters above it, more below it; read again every `everyMs` while it is seen.
export class PagedTable {
  constructor({ api, path, label, columns, filters = [], everyMs = 5000, size = 50 }) {
    Object.assign(this, { api, path, label, columns, filters, size });
    this.items = [];
    this.next = null;
    this.pages = 1;
    this.problem = h("p.problem", { role: "alert" });
    this.body = h("div", null, h("p.nothing", null, t("loading")));
    this.more = h("button.link", { type: "button", hidden: true, onclick: () => this.#more() }, t("table.more"));
    const again = h("button.round", { type: "button", onclick: () => this.refresh(), "aria-label": t("table.refresh"), title: t("table.refresh") }, icon("refresh"));
    const tools = h("div.filters", null, filters.map((filter) => this.#filter(filter)), again);
    this.element = h("div", null, tools, this.problem, this.body, this.more);
    this.timer = setInterval(() => document.visibilityState === "visible" && !this.#busy() && this.refresh(), everyMs);
    this.refresh();
  }

  dispose() {
    clearInterval(this.timer);
    this.disposed = true;
  }

  fail(error) {
    replace(this.problem, explain(error));
  }

  // The pages that are shown, again.
  async refresh() {
    const token = (this.token = {});
    const items = [];
    let next = null;
    try {
      for (let page = 0; page < this.pages; page++) {
        const found = await this.api.get(this.#url(next));
        items.push(...found.items);
        next = found.next ?? null;
        if (!next) break;
      }
    } catch (error) {
      if (token === this.token) this.fail(error);
      return;
    }
    if (token !== this.token || this.disposed) return;
    replace(this.problem);
    this.items = items;
    this.next = next;
    this.#draw();
  }

  async #more() {
    this.pages += 1;
    await this.refresh();
  }

  #url(cursor) {
    const query = new URLSearchParams({ limit: String(this.size) });
    for (const filter of this.filters) if (filter.value) query.set(filter.name, filter.value);
    if (cursor) query.set("cursor", cursor);
    return `${this.path}?${query}`;
  }

  #draw() {
    const known = JSON.stringify(this.items);
    this.more.hidden = !this.next;
    if (known === this.known) return;
    this.known = known;
    const focused = this.body.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    replace(this.body, table({ label: this.label, columns: this.columns, rows: this.items }));
    if (focused) [...this.body.querySelectorAll("a")].find((link) => link.getAttribute("href") === focused)?.focus();
  }

  // Rows are not replaced under a hand that is on one of their buttons.
  #busy() {
    return this.body.contains(document.activeElement) && document.activeElement.tagName === "BUTTON";
  }

  #filter(filter) {
    const options = filter.options.map(([value, name]) => h("option", { value, selected: value === filter.value }, name));
    const change = () => {
      filter.value = select.value;
      this.pages = 1;
      this.refresh();
    };
    const select = h("select", { onchange: change }, options);
    return h("label.choice", null, h("span", null, filter.label), select);
  }
}
