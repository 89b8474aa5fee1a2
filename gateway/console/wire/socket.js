// One WebSocket for everything a tab follows, opened again for as long as it is wanted.
//
//   closed ──open()──► connecting ──ready──► open ──lost──► waiting ──time, or the network is back──► connecting

import { delayMs, verdict } from "../state/reconnect.js";

const PING_MS = 20_000;
const PONG_MS = 10_000;
const CONNECT_MS = 15_000;

export class Socket {
  // `token()` is the token of now; `onState(state, untilMs)`, `onFrame(frame)`, `onSignedOut()` are told, and
  // `onRefused()` when a connection did not come about: a browser does not say why (no network, or a 401).
  constructor({ token, onState, onFrame, onSignedOut, onRefused }) {
    Object.assign(this, { token, onState, onFrame, onSignedOut, onRefused });
    this.state = "closed";
    this.attempt = 0;
    this.socket = null;
    this.timers = {};
    this.online = () => this.state === "waiting" && this.#connect();
    this.offline = () => this.socket && this.#lost(1006);
  }

  open() {
    if (this.state !== "closed") return;
    addEventListener("online", this.online);
    addEventListener("offline", this.offline);
    this.attempt = 0;
    this.#connect();
  }

  close() {
    removeEventListener("online", this.online);
    removeEventListener("offline", this.offline);
    this.#drop();
    this.#become("closed");
  }

  // Whether it went out; what did not has to be sent again by its owner when the state is "open".
  send(frame) {
    if (this.state !== "open") return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  retryNow() {
    if (this.state === "waiting") this.#connect();
  }

  #connect() {
    this.#drop();
    this.#become("connecting");
    const url = new URL("/wunder/chat/ws", location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url, ["wunder", `wunder-auth.${this.token()}`]);
    this.socket = socket;
    socket.onmessage = (message) => socket === this.socket && this.#take(message.data);
    socket.onclose = (event) => socket === this.socket && this.#lost(event.code);
    this.#after("connect", CONNECT_MS, () => this.#lost(1006));
  }

  #take(text) {
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return;
    }
    clearTimeout(this.timers.pong);
    this.#after("ping", PING_MS, () => this.#ping());
    if (frame.type === "ready") {
      clearTimeout(this.timers.connect);
      this.attempt = 0;
      this.#become("open");
    } else if (frame.type !== "pong") {
      this.onFrame(frame);
    }
  }

  #ping() {
    this.send({ type: "ping" });
    this.#after("pong", PONG_MS, () => this.#lost(1006));
  }

  #lost(code) {
    this.#drop();
    if (this.state === "connecting") this.onRefused();
    if (this.state === "closed") return;
    const said = verdict(code);
    if (said === "sign_in") {
      this.close();
      this.onSignedOut();
      return;
    }
    const wait = delayMs(this.attempt++, Math.random(), said === "slowly");
    this.#after("again", wait, () => this.#connect());
    this.#become("waiting", Date.now() + wait);
  }

  #drop() {
    Object.values(this.timers).forEach(clearTimeout);
    const socket = this.socket;
    this.socket = null;
    if (socket) {
      socket.onmessage = socket.onclose = null;
      socket.close();
    }
  }

  #after(name, ms, call) {
    clearTimeout(this.timers[name]);
    this.timers[name] = setTimeout(call, ms);
  }

  #become(state, untilMs = 0) {
    this.state = state;
    this.onState(state, untilMs);
  }
}
