// Sign in, or make an account. What was typed stays whatever the answer is.

import { h, replace } from "../core/dom.js";
import { explain, t } from "../core/i18n.js";
import { user } from "../core/store.js";
import { languageChoice, themeChoice } from "./choices.js";

let mode = "sign_in";

export function signInPage(app) {
  const username = h("input", {
    id: "username",
    name: "username",
    autocomplete: "username",
    autocapitalize: "none",
    spellcheck: "false",
    required: true,
    maxlength: "64",
    value: user()?.username ?? "",
  });
  const password = h("input", { id: "password", name: "password", type: "password", required: true, maxlength: "1024" });
  const title = h("h1");
  const lead = h("p.lead");
  const submit = h("button.primary.wide", { type: "submit" });
  const other = h("button.link", { type: "button", onclick: () => become(mode === "sign_in" ? "register" : "sign_in") });
  const problem = h("p.problem", { role: "alert", id: "problem" });
  let countdown = null;

  function become(next) {
    mode = next;
    replace(title, t(`${mode}.title`));
    replace(lead, t(`${mode}.lead`));
    replace(submit, t(`${mode}.submit`));
    replace(other, t(`${mode}.other`));
    password.autocomplete = mode === "sign_in" ? "current-password" : "new-password";
    document.title = t(`${mode}.title`);
    tell("");
  }

  function tell(text) {
    clearInterval(countdown);
    replace(problem, text);
    for (const input of [username, password]) input.toggleAttribute("aria-invalid", false);
  }

  // Counts the seconds down that the server asks to wait for.
  function wait(seconds) {
    const until = Date.now() + seconds * 1000;
    const show = () => {
      const left = Math.ceil((until - Date.now()) / 1000);
      submit.disabled = left > 0;
      if (left > 0) replace(problem, t("sign_in.throttled", { seconds: left }));
      else tell("");
    };
    clearInterval(countdown);
    countdown = setInterval(show, 500);
    show();
  }

  async function send(event) {
    event.preventDefault();
    if (submit.disabled) return;
    tell("");
    submit.disabled = true;
    submit.setAttribute("aria-busy", "true");
    const body = { username: username.value.trim(), password: password.value };
    const path = mode === "sign_in" ? "/wunder/auth/login" : "/wunder/auth/register";
    try {
      const answer = await app.api.request("POST", path, body);
      mode = "sign_in"; // who comes back has an account
      app.signedIn(answer);
    } catch (error) {
      submit.disabled = false;
      refused(error);
    } finally {
      submit.removeAttribute("aria-busy");
    }
  }

  function refused(error) {
    if (error.status === 429 && error.retryAfterS) return wait(error.retryAfterS);
    if (error.status === 401) tell(t("sign_in.wrong"));
    else if (error.status === 409) tell(t("register.taken"));
    else if (error.status === 403) tell(t("register.closed"));
    else tell(explain(error));
    const wrong = error.field === "username" || error.status === 409 ? username : password;
    if (error.status && error.status < 429) {
      wrong.setAttribute("aria-invalid", "true");
      wrong.select();
      wrong.focus();
    }
  }

  const field = (id, input) => h("div.field", null, h("label", { for: id }, t(`field.${id}`)), input);
  const form = h(
    "form",
    { onsubmit: send, novalidate: true },
    field("username", username),
    field("password", password),
    problem,
    submit,
    other,
  );
  become(mode);
  const notice = app.notice ? h("p.notice", { role: "status" }, t(app.notice)) : null;
  const card = h("section.card", null, h("p.brand", null, "Wunder"), title, lead, notice, form);
  queueMicrotask(() => (username.value ? password : username).focus());
  return h("main.sign-in", null, card, h("div.row.center", null, languageChoice(), themeChoice()));
}
