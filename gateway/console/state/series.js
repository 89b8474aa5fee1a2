// Numbers over time: a bounded series of points, rates out of counters, quantiles out of histogram buckets.

export const WINDOW_MS = 5 * 60_000;

export class Series {
  constructor(windowMs = WINDOW_MS) {
    this.windowMs = windowMs;
    this.points = [];
  }

  // A number that is not there (null) makes a hole in the line.
  add(atMs, value) {
    this.points.push({ at: atMs, value: Number.isFinite(value) ? value : null });
    while (this.points.length && this.points[0].at < atMs - this.windowMs) this.points.shift();
  }

  get last() {
    return this.points.at(-1)?.value ?? null;
  }

  get most() {
    return this.points.reduce((most, point) => Math.max(most, point.value ?? 0), 0);
  }
}

// Per second since the last call; a counter that became smaller belongs to a process that is new.
export class Rate {
  constructor() {
    this.before = null;
  }

  take(atMs, total) {
    const before = this.before;
    if (!Number.isFinite(total)) return null;
    this.before = { atMs, total };
    if (!before || atMs <= before.atMs) return null;
    const grown = total - before.total;
    return grown < 0 ? null : (grown * 1000) / (atMs - before.atMs);
  }
}

// The quantile `q` of what was counted between two readings of cumulative buckets [[upper bound, count], ...];
// null if nothing was. Straight lines within a bucket, as Prometheus does it.
export function quantile(q, buckets, before) {
  const earlier = new Map(before ?? []);
  const grown = buckets.map(([bound, count]) => [bound, count - (earlier.get(bound) ?? 0)]);
  const total = grown.at(-1)?.[1] ?? 0;
  if (!(total > 0)) return null;
  let low = 0;
  let seen = 0;
  for (const [bound, count] of grown) {
    if (count >= q * total) {
      if (!Number.isFinite(bound)) return low;
      return low + ((bound - low) * (q * total - seen)) / (count - seen || 1);
    }
    low = bound;
    seen = count;
  }
  return low;
}
