// The reader's conversations, the last used first, page by page.

import { h, icon, replace } from "../core/dom.js";
import { explain, t, time } from "../core/i18n.js";
import { chatRoute } from "../state/route.js";

const PAGE = 30;

export class ChatList {
  constructor({ api, onChoose }) {
    this.api = api;
    this.items = [];
    this.total = 0;
    this.archived = false;
    this.current = null;
    this.timer = null;
    this.list = h("ul", { "aria-label": t("list.label") });
    this.more = h("button.link", { type: "button", hidden: true, onclick: () => this.#more() }, t("list.more"));
    this.problem = h("p.problem", { role: "alert" });
    const archive = h("input", { type: "checkbox", onchange: () => this.#show(archive.checked) });
    const fresh = h("a.button.wide", { href: chatRoute(null), onclick: onChoose }, icon("plus"), t("list.new"));
    const body = h("div.list-body", null, this.list, this.more, this.problem);
    this.element = h("div.chat-list", null, fresh, body, h("label.check", null, archive, t("list.archived")));
    this.list.addEventListener("click", (event) => event.target.closest("a") && onChoose());
    this.list.addEventListener("keydown", (event) => this.#move(event));
  }

  // Reads the newest page again, and keeps what was read after it.
  async refresh() {
    await this.#read(1);
  }

  // The same a moment later: many changes at once are one request.
  refreshSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.refresh(), 400);
  }

  mark(sessionId) {
    this.current = sessionId;
    this.#draw();
  }

  remove(sessionId) {
    this.items = this.items.filter((item) => item.session_id !== sessionId);
    this.#draw();
  }

  put(session) {
    this.items = this.items.map((item) => (item.session_id === session.session_id ? { ...item, ...session } : item));
    this.#draw();
  }

  find(sessionId) {
    return this.items.find((item) => item.session_id === sessionId) ?? null;
  }

  dispose() {
    clearTimeout(this.timer);
  }

  async #more() {
    await this.#read(Math.floor(this.items.length / PAGE) + 1);
  }

  async #read(page) {
    try {
      const found = await this.api.get(`/wunder/chat/sessions?page=${page}&page_size=${PAGE}`);
      const fresh = new Set(found.items.map((item) => item.session_id));
      const others = this.items.filter((item) => !fresh.has(item.session_id));
      this.items = [...found.items, ...others].sort((a, b) => b.updated_at.localeCompare(a.updated_at));
      this.total = found.total;
      replace(this.problem);
    } catch (error) {
      if (error.code !== "NETWORK") replace(this.problem, explain(error)); // the frame says that already
    }
    this.#draw();
  }

  #show(archived) {
    this.archived = archived;
    this.#draw();
  }

  #draw() {
    const shown = this.items.filter((item) => this.archived || !item.archived || item.session_id === this.current);
    const focused = this.list.contains(document.activeElement) ? document.activeElement.hash : null;
    replace(this.list, shown.map((item) => this.#item(item)));
    if (focused) [...this.list.querySelectorAll("a")].find((link) => link.hash === focused)?.focus();
    this.more.hidden = this.items.length >= this.total;
  }

  #item(item) {
    const current = item.session_id === this.current;
    return h(
      "li",
      null,
      h(
        "a",
        { href: chatRoute(item.session_id), "aria-current": current ? "page" : null },
        h("span.title", null, item.title || t("chat.untitled")),
        h("small", null, item.archived ? `${t("list.is_archived")} · ` : "", time(item.updated_at)),
      ),
    );
  }

  #move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const links = [...this.list.querySelectorAll("a")];
    const next = links[links.indexOf(document.activeElement) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }
}
