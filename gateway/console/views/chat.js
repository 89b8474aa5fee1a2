// The page of conversations: the list beside the one that is open.

import { confirmed, askText } from "../core/dialog.js";
import { h, icon, replace, setText } from "../core/dom.js";
import { explain, t } from "../core/i18n.js";
import { draft, setDraft } from "../core/store.js";
import { hasEnded } from "../state/conversation.js";
import { chatRoute } from "../state/route.js";
import { Feed } from "../wire/feed.js";
import { ChatList } from "./chat_list.js";
import { Composer } from "./composer.js";
import { menu } from "./menu.js";
import { MessageLog } from "./message_log.js";

export function chatPage(app, route) {
  const page = new ChatPage(app);
  page.open(route.id);
  page.list.refresh();
  return {
    element: page.element,
    go: (next) => page.open(next.id),
    shown: () => page.composer.shown(),
    dispose: () => page.dispose(),
  };
}

class ChatPage {
  constructor(app) {
    this.app = app;
    this.list = new ChatList({ api: app.api, onChoose: () => this.#drawer(false) });
    this.unlisten = app.link.listen((state) => state === "open" && this.list.refreshSoon());
    this.title = h("h1");
    this.problem = h("p.problem", { role: "alert" });
    this.actions = menu(
      t("chat.actions"),
      [icon("more")],
      this.#action("chat.rename", () => this.#rename()),
      (this.archive = this.#action("chat.archive", () => this.#archive())),
      this.#action("chat.delete", () => this.#delete()),
    );
    this.opener = h(
      "button.round.drawer-button",
      { type: "button", "aria-label": t("list.label"), "aria-expanded": "false", onclick: () => this.#drawer() },
      icon("menu"),
    );
    this.side = h("aside.side", { "aria-label": t("list.label") }, this.list.element);
    this.body = h("div.chat-body");
    const head = h("div.chat-head", null, this.opener, this.title, this.actions);
    const veil = h("div.veil", { onclick: () => this.#drawer(false) });
    this.element = h("div.chat", null, this.side, veil, h("section.conversation", null, head, this.problem, this.body));
    this.element.addEventListener("keydown", (event) => event.key === "Escape" && this.#drawer(false, true));
  }

  // Shows a conversation, or an empty one without an id; true: it is this page's.
  open(sessionId) {
    if (this.feed && sessionId && this.feed.sessionId === sessionId) return true; // also one that has just got its id
    this.#close();
    replace(this.problem);
    this.feed = new Feed({
      link: this.app.link,
      api: this.app.api,
      sessionId,
      everybody: this.app.user.is_admin,
      onChange: (kind, turn) => this.#changed(kind, turn),
      onCreated: (id) => this.#created(id),
    });
    this.log = new MessageLog({
      loadOlder: () => this.feed.loadOlder(),
      retry: (message) => this.feed.outbox.retry(message),
      discard: (message) => this.feed.outbox.discard(message),
      answer: (turnId, callId, text) => this.feed.answer(turnId, callId, text),
    });
    this.composer = new Composer({ key: sessionId ?? "", send: (text) => this.#send(text), stop: () => this.#stop() });
    replace(this.body, this.log.element, this.composer.element, this.composer.readOnly);
    this.list.mark(sessionId);
    if (sessionId && !this.list.find(sessionId)) this.list.refreshSoon();
    this.#head();
    this.feed.start();
    this.log.draw(this.feed);
    if (this.element.isConnected) this.composer.shown();
    return true;
  }

  dispose() {
    this.#close();
    this.unlisten();
    this.list.dispose();
  }

  // What was not taken yet goes back to where it was written.
  #close() {
    if (!this.feed) return;
    const unsent = this.feed.outbox.messages.map((message) => message.text);
    const key = this.composer.key;
    if (unsent.length) setDraft(key, [...unsent, draft(key)].filter(Boolean).join("\n\n"));
    this.feed.close();
    this.log.dispose();
    this.feed = null;
  }

  #changed(kind, turn) {
    if (!this.feed) return;
    if (kind === "gone") {
      this.list.remove(this.feed.sessionId);
      replace(this.problem, t("chat.gone"));
    }
    if (kind === "session") this.list.refreshSoon();
    if (kind === "turn" && turn.ask && turn.ask.callId !== turn.toldAsk) {
      turn.toldAsk = turn.ask.callId;
      this.app.announce(t("live.asks", { text: turn.ask.question }));
    }
    if (kind === "turn" && hasEnded(turn) && turn.version !== turn.told) this.#tell(turn);
    this.composer.running = this.feed.running !== null;
    this.#head();
    this.log.draw(this.feed);
  }

  // To screen readers: an answer once, when it is whole.
  #tell(turn) {
    turn.told = turn.version;
    const text = turn.rounds.at(-1)?.text ?? "";
    this.app.announce(turn.status === "succeeded" ? t("live.answer", { text }) : t(`status.${turn.status}`));
  }

  #head() {
    const known = this.list.find(this.feed.sessionId) ?? this.feed.session;
    const title = this.feed.sessionId ? known?.title || t("chat.untitled") : t("chat.new");
    setText(this.title, title);
    document.title = `${title} · Wunder`;
    this.actions.hidden = !this.feed.sessionId;
    setText(this.archive, t(known?.archived ? "chat.unarchive" : "chat.archive"));
    const owner = this.feed.session?.user_id;
    this.composer.foreign = Boolean(owner && owner !== this.app.user.user_id);
  }

  #created(sessionId) {
    this.composer.rename(sessionId);
    history.replaceState(null, "", chatRoute(sessionId));
    this.list.current = sessionId;
    this.list.refresh();
  }

  #send(text) {
    this.log.follows = true;
    this.feed.send(text);
    this.app.announce(t("live.sent"));
  }

  async #stop() {
    const turn = this.feed.running;
    if (!turn) return;
    try {
      await this.feed.cancel(turn.id);
      this.app.announce(t("live.stopped"));
    } catch (error) {
      replace(this.problem, explain(error));
    }
  }

  #action(key, act) {
    const run = () => act().catch((error) => replace(this.problem, explain(error)));
    return h("button", { type: "button", onclick: run }, t(key));
  }

  async #rename() {
    const session = this.list.find(this.feed.sessionId) ?? this.feed.session;
    const title = await askText(t("chat.rename"), t("chat.title"), session?.title ?? "", t("save"));
    if (title) this.#put(await this.#patch({ title }));
  }

  async #archive() {
    const session = this.list.find(this.feed.sessionId) ?? this.feed.session;
    this.#put(await this.#patch({ archived: !session?.archived }));
  }

  async #delete() {
    const sessionId = this.feed.sessionId;
    if (!(await confirmed(t("chat.delete"), t("chat.delete_text"), t("chat.delete")))) return;
    await this.app.api.request("DELETE", `/wunder/chat/sessions/${sessionId}`);
    this.list.remove(sessionId);
    location.hash = chatRoute(null);
  }

  #patch(body) {
    return this.app.api.request("PATCH", `/wunder/chat/sessions/${this.feed.sessionId}`, body);
  }

  #put(session) {
    this.feed.session = { ...this.feed.session, ...session };
    this.list.put(session);
    this.#head();
  }

  #drawer(open = !this.element.classList.contains("drawer-open"), focus = false) {
    const was = this.element.classList.contains("drawer-open");
    this.element.classList.toggle("drawer-open", open);
    this.opener.setAttribute("aria-expanded", String(open));
    if (open) this.side.querySelector("a")?.focus();
    else if (focus && was) this.opener.focus();
  }
}
