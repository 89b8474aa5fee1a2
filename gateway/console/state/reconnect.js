// When to come back after a connection has ended: pure decisions, no timers.

const BASE_MS = 400;
const CAP_MS = 15_000;
const SLOW_BASE_MS = 5_000;
const SLOW_CAP_MS = 60_000;

// What a close code of gateway/PROTOCOL.md asks for: "again", "slowly" or "sign_in".
export function verdict(code) {
  if (code === 4401) return "sign_in";
  if (code === 4429 || code === 1008) return "slowly";
  return "again";
}

// Milliseconds until the next try; `attempt` counts from 0, `random` is in [0, 1). Never at once, so that a
// thousand tabs do not come back in the same moment.
export function delayMs(attempt, random, slowly = false) {
  const base = slowly ? SLOW_BASE_MS : BASE_MS;
  const cap = slowly ? SLOW_CAP_MS : CAP_MS;
  const most = Math.min(cap, base * 2 ** Math.min(attempt, 20));
  return Math.round(most / 2 + (most / 2) * random);
}
