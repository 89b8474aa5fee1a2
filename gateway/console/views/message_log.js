// The turns of a conversation, oldest first. It stays where the reader is: at the end it follows, elsewhere it holds.

import { h, icon, replace } from "../core/dom.js";
import { explain, t } from "../core/i18n.js";
import { TurnView } from "./turn_view.js";

const NEAR_END_PX = 48;
const NEAR_TOP_PX = 120;

export class MessageLog {
  // `loadOlder()` is asked for when the reader comes to the top; `retry(message)`, `discard(message)` for unsent ones;
  // `answer(turnId, callId, text)` answers what a turn asks.
  constructor({ loadOlder, retry, discard, answer }) {
    Object.assign(this, { loadOlder, retry, discard, answer });
    this.views = new Map();
    this.older = h("button.link.older", { type: "button", hidden: true, onclick: () => this.#older() }, t("log.older"));
    this.empty = h("div.empty", { hidden: true });
    this.turns = h("div.turns");
    this.unsent = h("div.unsent");
    const column = h("div.column", null, this.older, this.empty, this.turns, this.unsent);
    this.scroller = h("div.log", { tabindex: "0", role: "region", "aria-label": t("log.label") }, column);
    this.toEnd = h(
      "button.to-end",
      { type: "button", hidden: true, "aria-label": t("log.to_end"), title: t("log.to_end"), onclick: () => this.scrollToEnd() },
      icon("down"),
    );
    this.element = h("div.log-frame", null, this.scroller, this.toEnd);
    this.follows = true;
    this.frame = 0;
    this.scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.resized = new ResizeObserver(() => this.follows && this.#pin());
    this.resized.observe(this.scroller);
    this.resized.observe(column);
  }

  // Draws soon, and once however often it is asked; a long text is drawn less often than a short one.
  draw(feed) {
    this.feed = feed;
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      const began = performance.now();
      this.#draw();
      const wait = Math.min(500, (performance.now() - began) * 4);
      if (wait < 40) this.frame = 0;
      else this.frame = setTimeout(() => ((this.frame = 0), this.draw(this.feed)), wait);
    });
  }

  scrollToEnd() {
    this.follows = true;
    this.#pin();
    this.toEnd.hidden = true;
  }

  dispose() {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.frame);
    this.frame = -1;
    this.resized.disconnect();
  }

  #draw() {
    const { conversation, hasOlder, outbox, ready } = this.feed;
    const kept = new Set();
    conversation.turns.forEach((turn, index) => {
      kept.add(turn.id);
      let view = this.views.get(turn.id);
      if (!view) this.views.set(turn.id, (view = new TurnView(turn, this.answer)));
      const there = this.turns.children[index];
      if (there !== view.element) this.turns.insertBefore(view.element, there ?? null);
      view.update(turn);
    });
    for (const [id, view] of this.views) {
      if (kept.has(id)) continue;
      view.element.remove();
      this.views.delete(id);
    }
    replace(this.unsent, outbox.messages.map((message) => this.#unsent(message)));
    this.older.hidden = !hasOlder;
    const nothing = ready && conversation.turns.length === 0 && outbox.messages.length === 0;
    this.empty.hidden = ready && !nothing;
    replace(this.empty, ready ? [h("h2", null, t("log.empty_title")), h("p", null, t("log.empty"))] : h("p", null, t("loading")));
    if (this.follows) this.#pin();
  }

  #unsent(message) {
    const said = h("div.said", null, message.text);
    if (message.state === "sending") return h("article.turn", { "data-status": "sending" }, said, h("p.foot", null, t("unsent.sending")));
    return h(
      "article.turn",
      { "data-status": "unsent" },
      said,
      h(
        "p.foot",
        { role: "alert" },
        h("span.error", null, explain(message.error)),
        h("button.link", { type: "button", onclick: () => this.retry(message) }, t("unsent.retry")),
        h("button.link", { type: "button", onclick: () => this.discard(message) }, t("unsent.discard")),
      ),
    );
  }

  #pin() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  #scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.follows = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
    this.toEnd.hidden = this.follows;
    if (scrollTop < NEAR_TOP_PX && !this.older.hidden) this.#older();
  }

  // Older turns go in above; what the reader looks at stays where it is.
  async #older() {
    if (this.loading) return;
    this.loading = true;
    try {
      await this.loadOlder();
      const fromEnd = this.scroller.scrollHeight - this.scroller.scrollTop;
      this.#draw();
      this.scroller.scrollTop = this.scroller.scrollHeight - fromEnd;
    } catch {
      this.older.hidden = false; // the button is there to try again
    } finally {
      this.loading = false;
    }
  }
}
