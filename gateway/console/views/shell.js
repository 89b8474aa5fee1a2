// The frame of every page: where to go, who is signed in, and whether the connection is there.

import { h, icon, replace } from "../core/dom.js";
import { t } from "../core/i18n.js";
import { languageChoice, themeChoice } from "./choices.js";
import { menu } from "./menu.js";

const BACK_MS = 3000;
const PATIENCE_MS = 1200;

export function shell(app) {
  const links = {
    chat: h("a", { href: "#/chat" }, t("nav.chat")),
    operations: h("a", { href: "#/operations/overview" }, t("nav.operations")),
  };
  const main = h("main", { id: "main", tabindex: "-1" });
  const skip = h("a.skip", { href: "#main", onclick: (event) => (event.preventDefault(), main.focus()) }, t("skip"));
  const account = menu(
    t("account.menu"),
    [icon("user"), h("span.wide-only", null, app.user.username)],
    h("p.menu-head", null, app.user.username, app.user.is_admin ? h("small", null, t("account.admin")) : null),
    languageChoice(),
    themeChoice(),
    h("button", { type: "button", onclick: () => app.leave() }, t("account.leave")),
  );
  const banner = connectionBanner(app);
  const nav = h("nav", { "aria-label": t("nav.label") }, links.chat, links.operations);
  const brand = h("a.brand", { href: "#/chat", "aria-label": "Wunder" }, h("span", null, "Wunder"));
  const element = h("div.shell", null, skip, h("header.top", null, brand, nav, account), banner.element, main);
  return {
    element,
    main,
    mark(page) {
      for (const [name, link] of Object.entries(links)) {
        if (name === page) link.setAttribute("aria-current", "page");
        else link.removeAttribute("aria-current");
      }
    },
    dispose: banner.dispose,
  };
}

// "Reconnecting… in 3 s", "Back": shown only once a lost connection is worth a word.
function connectionBanner(app) {
  const text = h("span");
  const again = h("button.link", { type: "button", onclick: () => app.link.socket.retryNow() }, t("connection.now"));
  const element = h("div.banner", { role: "status", hidden: true }, text, again);
  let lost = false;
  let timer = null;
  let tick = null;

  function show(state, message) {
    element.hidden = false;
    element.dataset.state = state;
    again.hidden = state !== "waiting";
    replace(text, message);
  }

  function wait(untilMs) {
    const step = () => {
      const seconds = Math.max(0, Math.ceil((untilMs - Date.now()) / 1000));
      show("waiting", seconds > 1 ? t("connection.waiting", { seconds }) : t("connection.connecting"));
    };
    step();
    tick = setInterval(step, 1000);
  }

  const unlisten = app.link.listen((state, untilMs) => {
    clearTimeout(timer);
    clearInterval(tick);
    if (state === "open") {
      element.hidden = true;
      if (lost) {
        show("back", t("connection.back"));
        timer = setTimeout(() => (element.hidden = true), BACK_MS);
      }
      lost = false;
    } else if (state === "waiting") {
      lost = true;
      wait(untilMs);
    } else if (state === "connecting") {
      if (lost) show("connecting", t("connection.connecting"));
      else timer = setTimeout(() => show("connecting", t("connection.connecting")), PATIENCE_MS);
    }
  });
  return {
    element,
    dispose() {
      clearTimeout(timer);
      clearInterval(tick);
      unlisten();
    },
  };
}
