// Starts the console: who is signed in, which page is shown, and the connection that all pages share.

import { onLanguage, showLanguage, t } from "./core/i18n.js";
import { announce, liveRegion } from "./core/live.js";
import { replace } from "./core/dom.js";
import { endSignIn, setSignIn, token, user } from "./core/store.js";
import { showTheme } from "./core/theme.js";
import { parseRoute } from "./state/route.js";
import { chatPage } from "./views/chat.js";
import { operationsPage } from "./views/operations.js";
import { shell } from "./views/shell.js";
import { signInPage } from "./views/sign_in.js";
import { Api } from "./wire/api.js";
import { Link } from "./wire/link.js";

const PAGES = { chat: chatPage, operations: operationsPage };

class App {
  constructor(root) {
    this.root = root;
    this.notice = null;
    this.page = null;
    this.frame = null;
    this.api = new Api(token, () => this.signedOut("signed_out.expired"));
    this.link = new Link({
      token,
      onSignedOut: () => this.signedOut("signed_out.expired"),
      onRefused: () => this.#checkToken(),
    });
    addEventListener("hashchange", () => this.show());
    onLanguage(() => this.rebuild());
  }

  signedIn(answer) {
    setSignIn(answer.access_token, answer.user);
    this.notice = null;
    this.rebuild();
  }

  // The token has ended, or the user left: pages keep what was typed as drafts.
  signedOut(notice) {
    if (!token()) return;
    this.#leavePage();
    endSignIn();
    this.link.socket.close();
    this.notice = notice;
    this.rebuild();
  }

  async leave() {
    this.link.socket.close(); // the server closes it with the token: that is no surprise here
    await this.api.request("POST", "/wunder/auth/logout").catch(() => {});
    this.signedOut(null);
  }

  // Everything new: after signing in or out, and in another language.
  rebuild() {
    this.#leavePage();
    this.frame?.dispose();
    this.frame = null;
    if (token()) this.link.socket.open();
    this.show();
  }

  show() {
    if (!token()) {
      document.title = t("sign_in.title");
      replace(this.root, liveRegion(), signInPage(this));
      return;
    }
    const route = parseRoute(location.hash);
    if (!this.frame) {
      this.frame = shell(this);
      replace(this.root, liveRegion(), this.frame.element);
    }
    this.frame.mark(route.page);
    if (this.page?.name === route.page && this.page.go(route)) return;
    this.#leavePage();
    this.page = { name: route.page, ...PAGES[route.page](this, route) };
    replace(this.frame.main, this.page.element);
    this.page.shown?.();
  }

  get user() {
    return user();
  }

  announce(text) {
    announce(text);
  }

  #leavePage() {
    this.page?.dispose();
    this.page = null;
  }

  // A WebSocket that did not open does not say why: a token that has ended is found out over HTTP.
  async #checkToken() {
    await this.api.get("/wunder/auth/me").catch(() => {});
  }
}

showTheme();
showLanguage();
new App(document.getElementById("app")).rebuild();
