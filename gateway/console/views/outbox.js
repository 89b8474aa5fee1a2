// Deliveries: what is on its way to the world; dead letters can be sent again or dropped.

import { confirmed } from "../core/dialog.js";
import { h, replace } from "../core/dom.js";
import { explain, number, t, time } from "../core/i18n.js";
import { operationsRoute } from "../state/route.js";
import { factList, part } from "./facts.js";
import { PagedTable, actionButton, badge, table } from "./table.js";
import { shortened } from "./tasks.js";

const STATES = ["pending", "sending", "sent", "dead", "dropped"];
const pathOf = (id) => `/wunder/admin/outbox/${encodeURIComponent(id)}`;

export function outboxTab(app, id) {
  return id ? detail(app, id) : list(app);
}

function list(app) {
  const state = {
    name: "state",
    label: t("filter.status"),
    value: "",
    options: [["", t("filter.any")], ...STATES.map((each) => [each, t(`status.${each}`)])],
  };
  let view = null;
  const columns = [
    { name: t("delivery.id"), cell: (each) => h("a", { href: operationsRoute("outbox", each.delivery_id) }, shortened(each.delivery_id)) },
    { name: t("task.status"), cell: (each) => badge(each.state) },
    { name: t("delivery.channel"), cell: (each) => each.channel },
    { name: t("delivery.account"), cell: (each) => each.account },
    { name: t("task.attempt"), cell: (each) => number(each.attempt), end: true },
    { name: t("delivery.code"), cell: (each) => each.code ?? "–" },
    { name: t("delivery.due"), cell: (each) => time(each.due_at) },
    { name: t("task.actions"), cell: (each) => actions(app, each, () => view.refresh(), (error) => view.fail(error)), end: true },
  ];
  view = new PagedTable({ api: app.api, path: "/wunder/admin/outbox", label: t("tab.outbox"), columns, filters: [state] });
  return { element: view.element, dispose: () => view.dispose() };
}

function actions(app, delivery, done, fail) {
  const act = (what) => async () => {
    if (what === "drop" && !(await confirmed(t("delivery.drop"), t("delivery.drop_text"), t("delivery.drop")))) return;
    await app.api.request("POST", `${pathOf(delivery.delivery_id)}/${what}`);
    await done();
  };
  const buttons = [];
  if (delivery.state === "dead" || delivery.state === "dropped") buttons.push(actionButton(t("task.retry"), act("retry"), fail));
  if (delivery.state === "dead" || delivery.state === "pending") buttons.push(actionButton(t("delivery.drop"), act("drop"), fail, true));
  return buttons.length ? buttons : "–";
}

function detail(app, id) {
  const problem = h("p.problem", { role: "alert" });
  const body = h("div", null, h("p.nothing", null, t("loading")));
  const fail = (error) => replace(problem, error.status === 404 ? t("delivery.gone") : explain(error));

  async function read() {
    try {
      const delivery = await app.api.get(pathOf(id));
      const attempts = h("section", null, h("h2", null, t("task.attempts")), attemptTable(delivery.attempts ?? []));
      replace(body, h("div.row", null, actions(app, delivery, read, fail)), facts(delivery), part(t("delivery.body"), delivery.body), attempts);
      replace(problem);
    } catch (error) {
      fail(error);
    }
  }

  read();
  const back = h("a.back", { href: operationsRoute("outbox") }, `← ${t("delivery.back")}`);
  return { element: h("div", null, back, problem, body), dispose() {} };
}

function facts(delivery) {
  const task = delivery.task_id ? h("a", { href: operationsRoute("tasks", delivery.task_id) }, delivery.task_id) : null;
  return factList([
    [t("delivery.id"), h("code", null, delivery.delivery_id)],
    [t("task.status"), badge(delivery.state)],
    [t("delivery.channel"), delivery.channel],
    [t("delivery.account"), delivery.account],
    [t("delivery.peer"), delivery.peer],
    [t("task.id"), task],
    [t("task.attempt"), number(delivery.attempt)],
    [t("delivery.code"), delivery.code],
    [t("task.created"), time(delivery.created_at)],
    [t("delivery.due"), delivery.due_at && time(delivery.due_at)],
    [t("task.finished"), delivery.finished_at && time(delivery.finished_at)],
  ]);
}

function attemptTable(attempts) {
  const columns = [
    { name: t("task.attempt"), cell: (each) => number(each.attempt), end: true },
    { name: t("task.outcome"), cell: (each) => badge(each.outcome) },
    { name: t("delivery.status"), cell: (each) => each.status ?? "–" },
    { name: t("delivery.code"), cell: (each) => each.code ?? "–" },
    { name: t("delivery.detail"), cell: (each) => each.detail ?? "–" },
    { name: t("task.finished"), cell: (each) => time(each.finished_at) },
  ];
  return table({ label: t("task.attempts"), columns, rows: attempts, empty: t("task.no_attempts") });
}
