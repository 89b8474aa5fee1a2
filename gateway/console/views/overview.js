// Live numbers of the whole service, asked for every two seconds while somebody looks.

import { h, replace } from "../core/dom.js";
import { duration, explain, number, t } from "../core/i18n.js";
import { Rate, Series, quantile } from "../state/series.js";
import { digest, processRows, requestBuckets } from "../state/summary.js";
import { Chart } from "./chart.js";
import { table } from "./table.js";

const EVERY_MS = 2000;

export function overviewTab(app) {
  const view = new Overview(app.api);
  view.start();
  return { element: view.element, dispose: () => view.stop() };
}

class Overview {
  constructor(api) {
    this.api = api;
    this.problem = h("p.problem", { role: "alert" });
    this.tiles = h("dl.tiles");
    this.rows = h("div");
    this.dashboard = h("p.aside-link");
    this.buckets = null;
    this.rates = { turns: new Rate(), events: new Rate(), requests: new Rate() };
    const names = ["running", "queued", "turns", "events", "requests", "p50", "p95", "permits", "waiting"];
    this.series = Object.fromEntries(names.map((name) => [name, new Series()]));
    const line = (name, label) => ({ name: label ?? "", series: this.series[name] });
    const perSecond = (value) => value === null ? "–" : t("unit.per_s", { n: number(value, value < 10 ? 1 : 0) });
    const ms = (value) => (value === null ? "–" : duration(value));
    this.charts = [
      new Chart({ title: t("overview.turns"), lines: [line("running", t("status.running")), line("queued", t("status.queued"))], format: number }),
      new Chart({ title: t("overview.ended"), lines: [line("turns")], format: perSecond }),
      new Chart({ title: t("overview.events"), lines: [line("events")], format: perSecond }),
      new Chart({ title: t("overview.requests"), lines: [line("requests")], format: perSecond }),
      new Chart({ title: t("overview.latency"), lines: [line("p50", "p50"), line("p95", "p95")], format: ms }),
      new Chart({ title: t("overview.permits"), lines: [line("permits", t("overview.held")), line("waiting", t("overview.waiting"))], format: number }),
    ];
    const charts = h("div.charts", null, this.charts.map((chart) => chart.element));
    const processes = h("section", null, h("h2", null, t("overview.processes")), this.rows);
    this.element = h("div", null, this.problem, this.tiles, charts, processes, this.dashboard);
  }

  start() {
    this.look = () => document.visibilityState === "visible" && this.#read();
    document.addEventListener("visibilitychange", this.look);
    this.timer = setInterval(this.look, EVERY_MS);
    this.#read();
  }

  stop() {
    clearInterval(this.timer);
    document.removeEventListener("visibilitychange", this.look);
    this.stopped = true;
  }

  async #read() {
    if (this.reading) return;
    this.reading = true;
    try {
      const [summary, metrics] = await Promise.all([this.api.get("/wunder/admin/summary"), this.api.text("/metrics")]);
      if (this.stopped) return;
      replace(this.problem);
      this.#take(Date.now(), digest(summary), requestBuckets(metrics));
      this.#draw(summary);
    } catch (error) {
      replace(this.problem, explain(error));
    } finally {
      this.reading = false;
    }
  }

  #take(at, now, buckets) {
    const { series, rates } = this;
    this.now = now;
    series.running.add(at, now.running);
    series.queued.add(at, now.queued);
    series.turns.add(at, rates.turns.take(at, now.turnsEnded));
    series.events.add(at, rates.events.take(at, now.events));
    series.requests.add(at, rates.requests.take(at, buckets.at(-1)?.[1]));
    series.permits.add(at, now.permitsHeld);
    series.waiting.add(at, now.permitsWaiting);
    if (this.buckets) {
      for (const [name, q] of [["p50", 0.5], ["p95", 0.95]]) {
        const seconds = quantile(q, buckets, this.buckets);
        series[name].add(at, seconds === null ? null : seconds * 1000);
      }
    }
    this.buckets = buckets;
  }

  #draw(summary) {
    const now = this.now;
    const tile = (key, value, note) => h("div", null, h("dt", null, t(`overview.${key}`)), h("dd", null, value, note ? h("small", null, note) : null));
    const oldest = now.oldestQueuedS > 0 ? t("overview.oldest", { age: duration(now.oldestQueuedS * 1000) }) : null;
    replace(
      this.tiles,
      tile("nodes", number(now.nodes)),
      tile("gateways", number(now.gateways)),
      tile("actors", number(now.actors)),
      tile("pools", number(now.pools)),
      tile("sessions", number(now.sessions)),
      tile("queue", number(now.queued), oldest),
      tile("agents", number(now.waiting)),
      tile("failed", number(now.turnsFailed)),
      now.deadDeliveries === null ? null : tile("dead", number(now.deadDeliveries)),
    );
    for (const chart of this.charts) chart.draw(Date.now());
    replace(this.rows, processTable(processRows(summary)));
    const link = now.dashboard ? h("a", { href: now.dashboard, target: "_blank", rel: "noopener noreferrer" }, t("overview.dashboard")) : null;
    replace(this.dashboard, link);
  }
}

function processTable(rows) {
  const numeric = (name) => ({ name: t(`process.${name}`), cell: (row) => (row[name] === "" ? "–" : number(row[name])), end: true });
  const columns = [
    { name: t("process.name"), cell: (row) => [h("code", null, row.name), row.suspect ? h("span.badge.bad", null, t("process.suspect")) : null] },
    { name: t("process.kind"), cell: (row) => t(`process.${row.kind}`) },
    { name: t("process.node"), cell: (row) => h("code", null, row.node.slice(0, 12)) },
    numeric("sessions"),
    numeric("running"),
    numeric("queued"),
    numeric("ended"),
    numeric("depth"),
    { name: t("process.slots"), cell: (row) => row.slots || "–", end: true },
  ];
  return table({ label: t("overview.processes"), columns, rows });
}
