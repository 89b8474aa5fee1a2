// Tasks: every turn, with filters; one of them in detail, with its attempts and children; cancel and retry.

import { h, replace } from "../core/dom.js";
import { duration, explain, hasText, number, t, time } from "../core/i18n.js";
import { chatRoute, operationsRoute } from "../state/route.js";
import { factList, part } from "./facts.js";
import { PagedTable, actionButton, badge, table } from "./table.js";

const STATUSES = ["queued", "running", "waiting", "succeeded", "failed", "dead", "cancelled", "interrupted"];
const OPEN = new Set(["queued", "running", "waiting"]);
const RETRIABLE = new Set(["failed", "dead"]);
const EVERY_MS = 3000;

export function tasksTab(app, id) {
  return id ? taskDetail(app, id) : taskList(app);
}

function taskList(app) {
  const any = ["", t("filter.any")];
  const status = {
    name: "status",
    label: t("filter.status"),
    value: "",
    options: [any, ...STATUSES.map((each) => [each, t(`status.${each}`)])],
  };
  const whose = { name: "user_id", label: t("filter.whose"), value: "*", options: [["*", t("filter.everybody")], ["", t("filter.mine")]] };
  let list = null;
  const columns = [
    { name: t("task.id"), cell: (task) => h("a", { href: operationsRoute("tasks", task.task_id) }, shortened(task.task_id)) },
    { name: t("task.status"), cell: (task) => badge(task.status) },
    { name: t("task.origin"), cell: (task) => originOf(task) },
    ...(app.user.is_admin ? [{ name: t("task.user"), cell: (task) => task.user_id }] : []),
    { name: t("task.attempt"), cell: (task) => `${number(task.attempt)}/${number(task.max_attempts)}`, end: true },
    { name: t("task.created"), cell: (task) => time(task.created_at) },
    { name: t("task.finished"), cell: (task) => time(task.finished_at) },
    { name: t("task.actions"), cell: (task) => actions(app, task, () => list.refresh(), (error) => list.fail(error)), end: true },
  ];
  const filters = app.user.is_admin ? [status, whose] : [status];
  list = new PagedTable({ api: app.api, path: "/wunder/tasks", label: t("tab.tasks"), columns, filters });
  return { element: list.element, dispose: () => list.dispose() };
}

const originOf = (task) => (hasText(`origin.${task.origin}`) ? t(`origin.${task.origin}`) : task.origin);

export const shortened = (id) => h("code", { title: id }, id.length > 18 ? `${id.slice(0, 16)}…` : id);

function actions(app, task, done, fail) {
  const path = `/wunder/tasks/${encodeURIComponent(task.task_id)}`;
  const act = (method, url, said) => async () => {
    await app.api.request(method, url);
    app.announce(t(said));
    await done();
  };
  const buttons = [];
  if (OPEN.has(task.status)) buttons.push(actionButton(t("task.cancel"), act("DELETE", path, "task.cancelled"), fail, true));
  if (RETRIABLE.has(task.status)) buttons.push(actionButton(t("task.retry"), act("POST", `${path}/retry`, "task.retried"), fail));
  return buttons.length ? buttons : "–";
}

function taskDetail(app, id) {
  const problem = h("p.problem", { role: "alert" });
  const body = h("div", null, h("p.nothing", null, t("loading")));
  const back = h("a.back", { href: operationsRoute("tasks") }, `← ${t("task.back")}`);
  const fail = (error) => replace(problem, error.status === 404 ? t("task.gone") : explain(error));
  let known = "";

  async function read() {
    try {
      const task = await app.api.get(`/wunder/tasks/${encodeURIComponent(id)}`);
      const text = JSON.stringify(task);
      if (text !== known) replace(body, describe(app, task, read, fail));
      known = text;
      replace(problem);
      if (!OPEN.has(task.status)) clearInterval(timer);
    } catch (error) {
      if (error.status === 404) replace(body);
      fail(error);
    }
  }

  const timer = setInterval(() => document.visibilityState === "visible" && read(), EVERY_MS);
  read();
  return { element: h("div", null, back, problem, body), dispose: () => clearInterval(timer) };
}

function describe(app, task, read, fail) {
  const session = h("a", { href: chatRoute(task.session_id) }, task.session_id);
  const parent = task.parent_id ? h("a", { href: operationsRoute("tasks", task.parent_id) }, task.parent_id) : null;
  const usage = task.usage ? t("turn.usage", { in: number(task.usage.input_tokens), out: number(task.usage.output_tokens) }) : null;
  const facts = factList([
    [t("task.id"), h("code", null, task.task_id)],
    [t("task.status"), badge(task.status)],
    [t("task.place"), task.position > 0 ? number(task.position) : null],
    [t("task.wait"), task.estimated_wait_s ? duration(task.estimated_wait_s * 1000) : null],
    [t("task.asks"), task.waiting?.question],
    [t("task.session"), session],
    [t("task.user"), task.user_id],
    [t("task.origin"), originOf(task)],
    [t("task.parent"), parent],
    [t("task.priority"), number(task.priority)],
    [t("task.attempt"), `${number(task.attempt)}/${number(task.max_attempts)}`],
    [t("task.crashes"), task.crashes ? number(task.crashes) : null],
    [t("task.created"), time(task.created_at)],
    [t("task.run_at"), task.run_at && time(task.run_at)],
    [t("task.started"), task.started_at && time(task.started_at)],
    [t("task.finished"), task.finished_at && time(task.finished_at)],
    [t("task.stop_reason"), task.stop_reason],
    [t("task.tokens"), usage],
  ]);
  return [
    h("div.row", null, actions(app, task, read, fail)),
    facts,
    part(t("task.answer"), task.answer),
    part(t("task.error"), task.error),
    h("section", null, h("h2", null, t("task.attempts")), attemptTable(task.attempts)),
    task.children.length ? h("section", null, h("h2", null, t("task.children")), childTable(task.children)) : null,
  ].filter(Boolean);
}

function attemptTable(attempts) {
  const columns = [
    { name: t("task.attempt"), cell: (each) => number(each.attempt), end: true },
    { name: t("task.outcome"), cell: (each) => badge(each.outcome) },
    { name: t("task.error"), cell: (each) => (each.error ? `${each.error.code}: ${each.error.message}` : "–") },
    { name: t("task.started"), cell: (each) => time(each.started_at) },
    { name: t("task.finished"), cell: (each) => time(each.finished_at) },
  ];
  return table({ label: t("task.attempts"), columns, rows: attempts, empty: t("task.no_attempts") });
}

function childTable(children) {
  const columns = [
    { name: t("task.id"), cell: (child) => h("a", { href: operationsRoute("tasks", child.task_id) }, h("code", null, child.task_id)) },
    { name: t("task.status"), cell: (child) => badge(child.status) },
  ];
  return table({ label: t("task.children"), columns, rows: children });
}
