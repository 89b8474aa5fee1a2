// Dialogs of the browser's own kind: focus stays inside, Escape closes, focus goes back after.

import { h } from "./dom.js";
import { t } from "./i18n.js";

function ask(title, body, { confirm, danger, value }) {
  return new Promise((resolve) => {
    const dialog = h("dialog.dialog", { "aria-label": title });
    const form = h(
      "form",
      {
        onsubmit(event) {
          event.preventDefault();
          dialog.close("yes");
        },
      },
      h("h2", null, title),
      body,
      h(
        "div.row.end",
        null,
        h("button", { type: "button", onclick: () => dialog.close("") }, t("cancel")),
        h(danger ? "button.danger" : "button.primary", { type: "submit" }, confirm),
      ),
    );
    dialog.append(form);
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "yes" ? value() : null);
      dialog.remove();
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

// True if it was confirmed.
export async function confirmed(title, text, confirm) {
  return (await ask(title, h("p", null, text), { confirm, danger: true, value: () => true })) === true;
}

// The text that was given, or null.
export function askText(title, label, text, confirm) {
  const input = h("input", { type: "text", value: text, maxlength: "200" });
  return ask(title, h("label.field", null, h("span", null, label), input), { confirm, value: () => input.value.trim() });
}
