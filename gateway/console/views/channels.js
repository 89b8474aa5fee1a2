// Channel accounts: where they come from, and whether their provider takes them. Secrets are never shown.

import { h } from "../core/dom.js";
import { t } from "../core/i18n.js";
import { PagedTable, actionButton, badge } from "./table.js";

export function channelsTab(app) {
  const said = h("p.notice", { role: "status", hidden: true });
  let view = null;

  const test = (account) => async () => {
    const outcome = await app.api.request("POST", `/wunder/admin/channels/${encodeURIComponent(account)}/test`);
    said.hidden = false;
    const why = [outcome.code, outcome.detail].filter(Boolean).join(": ");
    said.textContent = t(outcome.works ? "channel.works" : "channel.broken", { account, why });
  };

  const columns = [
    { name: t("delivery.account"), cell: (each) => h("code", null, each.account) },
    { name: t("delivery.channel"), cell: (each) => each.channel },
    { name: t("schedule.state"), cell: (each) => badge(each.enabled === false ? "off" : "active") },
    { name: t("channel.agent"), cell: (each) => each.agent || "–" },
    { name: t("channel.session"), cell: (each) => each.session ?? "–" },
    { name: t("channel.source"), cell: (each) => t(each.from_file ? "channel.from_file" : "channel.from_api") },
    { name: t("task.actions"), cell: (each) => actionButton(t("channel.test"), test(each.account), (error) => view.fail(error)), end: true },
  ];
  view = new PagedTable({ api: app.api, path: "/wunder/admin/channels", label: t("tab.channels"), columns, everyMs: 15_000, size: 200 });
  return { element: h("div", null, said, view.element), dispose: () => view.dispose() };
}
