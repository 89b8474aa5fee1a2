// What /wunder/admin/summary and /metrics say, as the few numbers and rows that an operator looks at.

const ENDS = ["succeeded", "failed", "cancelled", "interrupted", "dead"];
const STREAMS = /^(\/wunder|.*\/(messages|resume|ws))$/; // as long as their turn: no sign of a slow server
const BUCKET = /^wunder_request_seconds_bucket\{(.*)\} (\S+)$/;
const LABEL = /(\w+)="([^"]*)"/g;

export function digest(summary) {
  const processes = [...Object.values(summary.actors ?? {}), ...Object.values(summary.pools ?? {})];
  const sum = (name) => processes.reduce((total, each) => total + (each[name] ?? 0), 0);
  const tasks = summary.tasks ?? {};
  return {
    nodes: summary.directory?.nodes?.length ?? null,
    gateways: summary.directory?.gateways?.length ?? null,
    actors: Object.keys(summary.actors ?? {}).length,
    pools: Object.keys(summary.pools ?? {}).length,
    sessions: sum("sessions_open"),
    running: tasks.running?.tasks ?? null,
    queued: tasks.queued?.tasks ?? null,
    waiting: tasks.waiting?.tasks ?? null,
    oldestQueuedS: tasks.queued?.oldest_age_s ?? null,
    permitsHeld: summary.directory?.permits_held ?? null,
    permitsWaiting: summary.directory?.permits_waiting ?? null,
    turnsEnded: ENDS.reduce((total, end) => total + sum(`turns_${end}`), 0),
    turnsFailed: sum("turns_failed") + sum("turns_dead"),
    events: sum("event_writer_events"),
    writerDepth: sum("event_writer_depth"),
    deadDeliveries: deadOf(summary.outbox),
    dashboard: dashboardOf(summary),
  };
}

// One row for each process that runs turns or sends deliveries, busiest first.
export function processRows(summary) {
  const placed = new Map((summary.directory?.actors ?? []).map((actor) => [actor.name, actor]));
  const row = (kind) => ([name, each]) => ({
    name,
    kind,
    node: each.node_id ?? placed.get(name)?.node_id ?? "",
    suspect: Boolean(placed.get(name)?.suspect),
    sessions: each.sessions_open ?? 0,
    running: each.turns_running ?? 0,
    queued: each.turns_queued ?? 0,
    ended: ENDS.reduce((total, end) => total + (each[`turns_${end}`] ?? 0), 0),
    depth: each.event_writer_depth ?? 0,
    slots: each.pool_slots ? `${each.pool_slots_in_use ?? 0}/${each.pool_slots}` : "",
  });
  const rows = [
    ...Object.entries(summary.actors ?? {}).map(row("actor")),
    ...Object.entries(summary.pools ?? {}).map(row("pool")),
    ...Object.entries(summary.outboxes ?? {}).map(row("outbox")),
  ];
  return rows.sort((a, b) => b.running - a.running || b.sessions - a.sessions || a.name.localeCompare(b.name));
}

// Cumulative buckets [[seconds, count], ...] of all requests that are no streams, out of Prometheus' text.
export function requestBuckets(text) {
  const counts = new Map();
  for (const line of text.split("\n")) {
    const found = BUCKET.exec(line);
    if (!found) continue;
    const labels = Object.fromEntries([...found[1].matchAll(LABEL)].map(([, name, value]) => [name, value]));
    if (STREAMS.test(labels.route)) continue;
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    counts.set(bound, (counts.get(bound) ?? 0) + Number(found[2]));
  }
  return [...counts].sort((a, b) => a[0] - b[0]);
}

// Deliveries of all channels that nobody sends any more; null where the server has no outbox.
function deadOf(outbox) {
  if (!outbox) return null;
  return Object.values(outbox).reduce((total, states) => total + (states.dead?.deliveries ?? 0), 0);
}

function dashboardOf(summary) {
  const given = summary.dashboard ?? summary.ray_dashboard;
  if (typeof given !== "string" || !given) return null;
  const url = given.includes("://") ? given : `http://${given}`;
  return /^https?:\/\//.test(url) ? url : null;
}
