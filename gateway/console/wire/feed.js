// Follows one session: its transcript, then every event after it, through whatever happens to the connection.
//
//   probe: watch from now ──► ack {turn_id, last_event_id}
//     nothing runs   keep that watch
//     a turn runs    watch again from some events before, so that what its present round has said comes too; if its
//                    beginning was not among them, from further back
//   then           GET the session: what was committed. Events that arrive meanwhile wait for it.
//   reconnect      watch from the cursor: nothing twice, nothing left out
//
// One watch is live at a time; frames of an older one find nobody.

import { apply, findTurn, hasEnded, newConversation, newTurn } from "../state/conversation.js";
import { beginsInside, mergeMessages, mergeTasks } from "../state/transcript.js";
import { Outbox } from "./outbox.js";

const PAGE = 40;
const LOOK_BACK = 2000;
const FURTHER = 8;
const AGAIN_MS = 2000;
const MOST_PAGES = 20;

export class Feed {
  // `onChange(kind, turn)`: "turn" changed, "all" turns may have, "session" its title or state, "gone" it was deleted.
  constructor({ link, api, sessionId, everybody, onChange, onCreated }) {
    Object.assign(this, { link, api, sessionId, everybody, onChange, onCreated });
    this.conversation = newConversation();
    this.session = null;
    this.isNew = !sessionId;
    this.ready = this.isNew;
    this.hasOlder = false;
    this.oldest = null; // positions of the messages that were read
    this.newest = null;
    this.watchId = null;
    this.held = null; // events that came before the transcript, while that is being read
    this.replay = null; // {until, turnId, back}: catching up with a turn that was running
    this.closed = false;
    this.timer = null;
    this.reading = null;
    this.outbox = new Outbox({
      link,
      sessionId: () => this.sessionId,
      onAck: (message, ack) => this.#acked(message, ack),
      onChange: () => this.onChange("outbox", null),
    });
    this.unlisten = link.listen((state) => state === "open" && this.#connected());
  }

  start() {
    if (this.link.isOpen) this.#connected();
  }

  close() {
    this.closed = true;
    this.unlisten();
    this.outbox.close();
    clearTimeout(this.timer);
    if (this.watchId) this.link.end(this.watchId);
  }

  get running() {
    return this.conversation.turns.find((turn) => !hasEnded(turn)) ?? null;
  }

  send(text) {
    this.outbox.add(text);
  }

  cancel(turnId) {
    return this.api.request("POST", `${this.#path}/cancel`, turnId ? { turn_id: turnId } : undefined);
  }

  // Answers a question that a turn asks a person.
  answer(turnId, callId, text) {
    return this.api.request("POST", `/wunder/tasks/${turnId}/answer`, { call_id: callId, answer: text });
  }

  // One older page of the transcript.
  async loadOlder() {
    if (!this.hasOlder || this.reading) return;
    this.reading = this.#readMessages(this.oldest);
    try {
      await this.reading;
      this.onChange("all", null);
    } finally {
      this.reading = null;
    }
  }

  get #path() {
    return `/wunder/chat/sessions/${this.sessionId}`;
  }

  #connected() {
    if (this.closed) return;
    this.outbox.resend();
    if (!this.sessionId) return;
    if (this.ready) this.#watch(this.conversation.cursor);
    else this.#probe();
  }

  #probe() {
    this.held = [];
    this.replay = null;
    this.watchId = this.link.ask("watch", { session_id: this.sessionId }, (frame) => {
      if (frame.type !== "ack") return this.#take(frame);
      const { turn_id: turnId, last_event_id: last } = frame.payload;
      this.conversation.cursor = Math.max(this.conversation.cursor, last);
      if (turnId) this.#lookBack(turnId, last, LOOK_BACK);
      this.#readAll();
    });
  }

  #lookBack(turnId, last, back) {
    this.link.end(this.watchId);
    const after = Math.max(0, last - back);
    this.held ??= [];
    this.conversation.cursor = after;
    this.replay = { until: last, turnId, back: after > 0 ? back : null };
    this.#watch(after);
  }

  #watch(after) {
    if (this.watchId) this.link.end(this.watchId);
    const payload = { session_id: this.sessionId, after_event_id: after };
    this.watchId = this.link.ask("watch", payload, (frame) => this.#take(frame));
  }

  #take(frame) {
    if (frame.type === "error") return this.#refused(frame.payload);
    if (frame.type !== "event") return;
    if (this.held) this.held.push(frame.payload);
    else this.#apply(frame.payload);
  }

  #refused(error) {
    this.watchId = null;
    if (error.status === 404) {
      this.onChange("gone", null);
    } else {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.link.isOpen && this.#connected(), AGAIN_MS);
    }
  }

  #apply(event) {
    if (this.replay && this.#isOld(event)) {
      this.conversation.cursor = event.id;
      this.#caughtUp(event.id);
      return;
    }
    const { turn, need } = apply(this.conversation, event);
    if (turn) this.onChange("turn", turn);
    if (need === "messages" && !this.outbox.waiting) this.#refresh();
    if (event.event === "turn_terminal") this.onChange("session", null);
    if (this.replay) this.#caughtUp(event.id);
  }

  // While catching up: events of turns that the transcript has told already.
  #isOld(event) {
    if (event.id > this.replay.until) return false;
    const turnId = event.data.turn_id;
    if (turnId === this.replay.turnId) return false;
    const turn = findTurn(this.conversation, turnId);
    return !turn || hasEnded(turn);
  }

  #caughtUp(id) {
    if (id < this.replay.until) return;
    const { turnId, until, back } = this.replay;
    this.replay = null;
    const round = findTurn(this.conversation, turnId)?.rounds.at(-1);
    if (back && round && !round.whole && !round.done) {
      Object.assign(round, { pieces: [], text: "", reasoning: "" });
      this.#lookBack(turnId, until, back * FURTHER);
      this.#release();
    }
  }

  async #readAll() {
    try {
      await Promise.all([this.#readMessages(null), this.#readTasks()]);
    } catch (error) {
      if (!this.closed) this.#refused(error);
      return;
    }
    if (this.closed) return;
    this.ready = true;
    this.onChange("all", null);
    this.#release();
  }

  #release() {
    const held = this.held ?? [];
    const watchId = this.watchId;
    this.held = null;
    for (const event of held) {
      if (this.watchId !== watchId) break; // a watch from further back brings the rest again
      this.#apply(event);
    }
  }

  // The newest messages again: a turn of another tab began, or a gap.
  #refresh() {
    this.reading ??= this.#readMessages(null)
      .then(() => this.onChange("all", null))
      .catch(() => {})
      .finally(() => (this.reading = null));
  }

  async #readMessages(before) {
    const all = [];
    const older = before !== null;
    let session = null;
    let hasOlder = false;
    for (let page = 0; page < MOST_PAGES; page++) {
      const query = before === null ? "" : `&before=${before}`;
      const read = await this.api.get(`${this.#path}?limit=${PAGE}${query}`);
      session ??= read.session;
      all.unshift(...read.messages);
      hasOlder = read.messages.length === PAGE;
      before = all[0]?.position ?? null;
      const joins = older || this.newest === null || before === null || before <= this.newest + 1;
      if (!hasOlder || (joins && !beginsInside(all))) break;
    }
    this.newest = Math.max(this.newest ?? -1, all.at(-1)?.position ?? -1);
    if (this.oldest === null || (before !== null && before < this.oldest)) {
      this.oldest = before;
      this.hasOlder = hasOlder;
    }
    this.session = { ...session };
    mergeMessages(this.conversation, all, session.active_turn_id);
    this.onChange("session", null);
  }

  async #readTasks() {
    const whose = this.everybody ? "&user_id=*" : "";
    const { items } = await this.api.get(`/wunder/tasks?session_id=${this.sessionId}&limit=${PAGE}${whose}`);
    this.tasks = items;
    mergeTasks(this.conversation, items);
  }

  #acked(message, ack) {
    const conversation = this.conversation;
    let turn = findTurn(conversation, ack.turn_id);
    if (!turn) {
      turn = newTurn(ack.turn_id);
      turn.status = ack.queued ? "queued" : "running";
      turn.position = ack.position;
      conversation.turns.push(turn);
    }
    turn.user ??= { text: message.text, at: new Date().toISOString() };
    turn.version += 1;
    if (!this.sessionId) {
      this.sessionId = ack.session_id;
      conversation.cursor = ack.after_event_id;
      this.onCreated(ack.session_id);
      this.#watch(ack.after_event_id);
      this.#refresh();
    }
    this.onChange("turn", turn);
  }
}
