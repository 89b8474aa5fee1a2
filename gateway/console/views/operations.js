// The page for operators: numbers, tasks, and what else this server has. A part that is not there is not shown.

import { h, replace } from "../core/dom.js";
import { t } from "../core/i18n.js";
import { operationsRoute } from "../state/route.js";
import { channelsTab } from "./channels.js";
import { outboxTab } from "./outbox.js";
import { overviewTab } from "./overview.js";
import { schedulesTab } from "./schedules.js";
import { tasksTab } from "./tasks.js";

// `probe` is a path that answers 404 where the server does not have the part.
const TABS = [
  { name: "overview", admin: true, mount: overviewTab },
  { name: "tasks", admin: false, mount: tasksTab },
  { name: "schedules", admin: false, mount: schedulesTab, probe: "/wunder/cron?limit=1" },
  { name: "outbox", admin: true, mount: outboxTab, probe: "/wunder/admin/outbox?limit=1" },
  { name: "channels", admin: true, mount: channelsTab, probe: "/wunder/admin/channels" },
];

export function operationsPage(app, route) {
  const allowed = TABS.filter((tab) => !tab.admin || app.user.is_admin);
  const links = new Map();
  const nav = h("nav.tabs", { "aria-label": t("operations.label") });
  const title = h("h1");
  const body = h("div.tab-body");
  const element = h("div.operations", null, nav, title, body);
  let tab = null;
  let current = null;

  function add(each) {
    links.set(each.name, h("a", { href: operationsRoute(each.name) }, t(`tab.${each.name}`)));
    replace(nav, allowed.map((one) => links.get(one.name)).filter(Boolean));
    if (current === each.name) mark();
  }

  function mark() {
    for (const [name, link] of links) {
      if (name === current) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  function go(next) {
    const chosen = allowed.find((each) => each.name === next.tab) ?? allowed[0];
    tab?.dispose();
    current = chosen.name;
    mark();
    replace(title, t(`tab.${chosen.name}`));
    document.title = `${t(`tab.${chosen.name}`)} · Wunder`;
    tab = chosen.mount(app, next.id);
    replace(body, tab.element);
    return true;
  }

  for (const each of allowed) {
    if (!each.probe) add(each);
    else app.api.get(each.probe).then(() => add(each), (error) => error.status !== 404 && error.status !== 403 && add(each));
  }
  go(route);
  return { element, go, dispose: () => tab?.dispose() };
}
