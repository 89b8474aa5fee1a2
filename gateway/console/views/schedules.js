// Schedules: what is due when, its history; run now, pause, resume, delete.

import { confirmed } from "../core/dialog.js";
import { h, replace } from "../core/dom.js";
import { explain, number, t, time } from "../core/i18n.js";
import { operationsRoute } from "../state/route.js";
import { factList, part } from "./facts.js";
import { PagedTable, actionButton, badge } from "./table.js";
import { shortened } from "./tasks.js";

const pathOf = (id) => `/wunder/cron/${encodeURIComponent(id)}`;

export function schedulesTab(app, id) {
  return id ? detail(app, id) : list(app);
}

function list(app) {
  const whose = { name: "user_id", label: t("filter.whose"), value: "*", options: [["*", t("filter.everybody")], ["", t("filter.mine")]] };
  let view = null;
  const columns = [
    { name: t("schedule.name"), cell: (each) => h("a", { href: operationsRoute("schedules", each.schedule_id) }, each.name || shortened(each.schedule_id)) },
    { name: t("schedule.when"), cell: (each) => h("code", null, whenOf(each)) },
    { name: t("schedule.state"), cell: (each) => badge(each.paused ? "paused" : "active") },
    { name: t("schedule.next"), cell: (each) => time(each.next_run_at) },
    { name: t("schedule.last"), cell: (each) => time(each.last_run_at) },
    { name: t("schedule.runs"), cell: (each) => number(each.runs), end: true },
    { name: t("task.actions"), cell: (each) => actions(app, each, () => view.refresh(), (error) => view.fail(error)), end: true },
  ];
  const filters = app.user.is_admin ? [whose] : [];
  view = new PagedTable({ api: app.api, path: "/wunder/cron", label: t("tab.schedules"), columns, filters });
  return { element: view.element, dispose: () => view.dispose() };
}

function whenOf(schedule) {
  if (schedule.cron) return `${schedule.cron} ${schedule.zone}`;
  if (schedule.every) return t("schedule.every", { s: number(schedule.every, 3) });
  return schedule.at ?? "–";
}

function actions(app, schedule, done, fail) {
  const act = (method, path, body) => async () => {
    await app.api.request(method, path, body);
    await done();
  };
  const path = pathOf(schedule.schedule_id);
  const pause = act("PATCH", path, { paused: !schedule.paused });
  return [
    actionButton(t("schedule.run"), act("POST", `${path}/run`), fail),
    actionButton(t(schedule.paused ? "schedule.resume" : "schedule.pause"), pause, fail),
  ];
}

function detail(app, id) {
  const problem = h("p.problem", { role: "alert" });
  const body = h("div", null, h("p.nothing", null, t("loading")));
  const fail = (error) => replace(problem, error.status === 404 ? t("schedule.gone") : explain(error));
  const columns = [
    { name: t("schedule.due"), cell: (run) => time(run.due_at) },
    { name: t("task.outcome"), cell: (run) => badge(run.outcome) },
    { name: t("task.id"), cell: (run) => (run.task_id ? h("a", { href: operationsRoute("tasks", run.task_id) }, shortened(run.task_id)) : "–") },
    { name: t("task.status"), cell: (run) => (run.task_status ? badge(run.task_status) : "–") },
    { name: t("task.error"), cell: (run) => (run.error ? `${run.error.code}: ${run.error.message}` : "–") },
  ];
  const history = new PagedTable({ api: app.api, path: `${pathOf(id)}/history`, label: t("schedule.history"), columns });

  async function remove() {
    if (!(await confirmed(t("schedule.delete"), t("schedule.delete_text"), t("schedule.delete")))) return;
    await app.api.request("DELETE", pathOf(id));
    location.hash = operationsRoute("schedules");
  }

  async function read() {
    try {
      const schedule = await app.api.get(pathOf(id));
      const buttons = [...actions(app, schedule, () => Promise.all([read(), history.refresh()]), fail), actionButton(t("schedule.delete"), remove, fail, true)];
      replace(body, h("div.row", null, buttons), scheduleFacts(schedule), part(t("schedule.task"), schedule.task));
      replace(problem);
    } catch (error) {
      fail(error);
    }
  }

  read();
  const back = h("a.back", { href: operationsRoute("schedules") }, `← ${t("schedule.back")}`);
  const runs = h("section", null, h("h2", null, t("schedule.history")), history.element);
  return { element: h("div", null, back, problem, body, runs), dispose: () => history.dispose() };
}

function scheduleFacts(schedule) {
  return factList([
    [t("schedule.name"), schedule.name],
    [t("task.id"), h("code", null, schedule.schedule_id)],
    [t("schedule.when"), h("code", null, whenOf(schedule))],
    [t("schedule.state"), badge(schedule.paused ? "paused" : "active")],
    [t("schedule.pause_reason"), schedule.pause_reason],
    [t("schedule.next"), (schedule.upcoming ?? []).map(time).join(" · ")],
    [t("schedule.last"), schedule.last_run_at && time(schedule.last_run_at)],
    [t("schedule.runs"), number(schedule.runs)],
    [t("task.user"), schedule.user_id],
  ]);
}
