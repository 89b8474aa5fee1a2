// Shares the tab's socket: gives each request an id, and brings its frames back to whoever asked.

import { Socket } from "./socket.js";

export class Link {
  constructor({ token, onSignedOut, onRefused }) {
    this.requests = new Map();
    this.listeners = new Set();
    this.count = 0;
    this.socket = new Socket({
      token,
      onSignedOut,
      onRefused,
      onState: (state, untilMs) => this.#state(state, untilMs),
      onFrame: (frame) => this.requests.get(frame.request_id)?.(frame),
    });
  }

  get isOpen() {
    return this.socket.state === "open";
  }

  // Sends a request; `onFrame` gets its frames until `forget(id)`. Null if there is no connection.
  ask(type, payload, onFrame) {
    const id = `r${++this.count}`;
    this.requests.set(id, onFrame);
    if (this.socket.send({ type, request_id: id, payload })) return id;
    this.requests.delete(id);
    return null;
  }

  forget(id) {
    this.requests.delete(id);
  }

  // Ends a `watch` at the server too.
  end(id) {
    if (this.requests.delete(id)) this.socket.send({ type: "cancel", request_id: id });
  }

  // `listener(state, untilMs)`; the function that is returned ends it.
  listen(listener) {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  #state(state, untilMs) {
    if (state !== "open") this.requests.clear();
    for (const listener of [...this.listeners]) listener(state, untilMs);
  }
}
