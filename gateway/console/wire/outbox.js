// Messages on their way to a session: each has a key, so that sending one again after a lost answer starts nothing.

import { newKey } from "../core/ids.js";

const AGAIN_MS = 2000;

export class Outbox {
  // `onAck(message, ack)`, `onChange()`; `sessionId()` is null while there is no session yet.
  constructor({ link, sessionId, onAck, onChange }) {
    Object.assign(this, { link, sessionId, onAck, onChange });
    this.messages = [];
    this.timer = null;
  }

  add(text, options = {}) {
    const message = { key: newKey(), text, options, state: "sending", error: null, requestId: null };
    this.messages.push(message);
    this.#send(message);
    this.onChange();
  }

  // The connection is (again) there: what has no answer yet is sent with the key it had.
  resend() {
    for (const message of this.messages) if (message.state === "sending") this.#send(message);
  }

  retry(message) {
    message.state = "sending";
    message.error = null;
    this.#send(message);
    this.onChange();
  }

  discard(message) {
    this.messages = this.messages.filter((each) => each !== message);
    this.onChange();
  }

  get waiting() {
    return this.messages.some((message) => message.state === "sending");
  }

  close() {
    clearTimeout(this.timer);
  }

  #send(message) {
    const sessionId = this.sessionId();
    if (!sessionId && this.messages.find((each) => each.state === "sending") !== message) return; // the first one makes it
    const payload = { content: message.text, stream: false, idempotency_key: message.key, ...message.options };
    if (sessionId) payload.session_id = sessionId;
    this.link.ask("start", payload, (frame) => this.#answered(message, frame));
  }

  #answered(message, frame) {
    this.link.forget(frame.request_id);
    if (frame.type === "ack") {
      this.messages = this.messages.filter((each) => each !== message);
      this.onAck(message, frame.payload);
      if (this.messages.length) this.resend();
    } else if (frame.payload.status === 503 || frame.payload.code === "RATE_LIMITED") {
      clearTimeout(this.timer); // it may have been taken or not: the same key finds out
      this.timer = setTimeout(() => this.resend(), AGAIN_MS);
    } else {
      message.state = "failed";
      message.error = frame.payload;
    }
    this.onChange();
  }
}
