// Events of a session -> what a reader sees. No DOM, no network; see "Reading" in gateway/PROTOCOL.md.
//
//   conversation {cursor, turns}      turn {id, user, status, rounds, ...}      round {n, text, reasoning, tools, ...}
//
// A round's text is what its deltas said until `llm_output` replaces it. A rewind takes back the deltas after its
// point; a gap forgets what is unfinished. Applying an event twice, or after the transcript told the same, changes
// nothing.

const ENDED = new Set(["succeeded", "failed", "cancelled", "interrupted", "dead"]);
const NOTHING = { turn: null, need: null };

export function newConversation(cursor = 0) {
  return { cursor, turns: [] };
}

export function newTurn(id) {
  return {
    id,
    user: null,
    status: "running",
    position: 0,
    reason: null,
    waitS: null, // an estimate
    rounds: [],
    agents: null,
    ask: null,
    retry: null,
    error: null,
    usage: null,
    stopReason: null,
    version: 0,
  };
}

export function newRound(n) {
  return { n, pieces: [], text: "", reasoning: "", whole: false, done: false, partial: false, tools: [] };
}

export const hasEnded = (turn) => ENDED.has(turn.status);

export function findTurn(conversation, id) {
  for (let i = conversation.turns.length - 1; i >= 0; i--) {
    if (conversation.turns[i].id === id) return conversation.turns[i];
  }
  return null;
}

export function turnOf(conversation, id) {
  let turn = findTurn(conversation, id);
  if (!turn) conversation.turns.push((turn = newTurn(id)));
  return turn;
}

export function roundOf(turn, n) {
  let round = turn.rounds.find((each) => each.n === n);
  if (!round) {
    turn.rounds.push((round = newRound(n)));
    turn.rounds.sort((a, b) => a.n - b.n);
  }
  return round;
}

export function toolOf(turn, callId, n) {
  for (const round of turn.rounds) {
    const known = round.tools.find((tool) => tool.id === callId);
    if (known) return known;
  }
  const tool = {
    id: callId,
    name: "",
    args: null,
    eventId: 0,
    output: [],
    started: null,
    done: false,
    ok: null,
    data: null,
    error: null,
    ms: null,
  };
  roundOf(turn, n ?? turn.rounds.at(-1)?.n ?? 1).tools.push(tool);
  return tool;
}

// Takes one event {event, id, data: envelope}. Returns {turn, need}: the turn that changed (or null), and "messages"
// where the transcript has to be read (text is missing that no event will bring).
export function apply(conversation, event) {
  const { event: kind, id, data: envelope } = event;
  if (kind === "heartbeat") return NOTHING;
  if (kind === "gap") return takeGap(conversation, id);
  if (id <= conversation.cursor) return NOTHING;
  conversation.cursor = id;
  if (kind === "rewind") return takeRewind(conversation, envelope);
  if (!envelope.turn_id) return NOTHING;
  const turn = turnOf(conversation, envelope.turn_id);
  if (hasEnded(turn) && kind !== "queue_start" && kind !== "queued") return NOTHING;
  const take = TAKE[kind];
  if (take) take(turn, envelope.data, id, envelope);
  turn.version += 1;
  return { turn, need: turn.user === null && turn.status !== "queued" ? "messages" : null };
}

function takeGap(conversation, id) {
  conversation.cursor = id; // also when that is smaller: no event has the old number
  let changed = null;
  for (const turn of conversation.turns) {
    if (hasEnded(turn)) continue;
    for (const round of turn.rounds) if (!round.done) Object.assign(round, newRound(round.n), { whole: false });
    turn.version += 1;
    changed = turn;
  }
  return { turn: changed, need: "messages" };
}

function takeRewind(conversation, envelope) {
  const turn = envelope.turn_id ? findTurn(conversation, envelope.turn_id) : null;
  if (!turn || hasEnded(turn)) return NOTHING;
  const to = envelope.data.to_event_id;
  for (const round of turn.rounds) {
    if (!round.done) {
      round.pieces = round.pieces.filter((piece) => piece.id <= to);
      join(round);
      round.whole = round.whole && round.startId <= to;
    }
    round.tools = round.tools.filter((tool) => tool.done || tool.eventId <= to || round.done);
    for (const tool of round.tools) tool.output = tool.output.filter((piece) => piece.id <= to);
  }
  turn.rounds = turn.rounds.filter((round) => round.done || round.pieces.length || round.tools.length);
  turn.retry = null;
  turn.version += 1;
  return { turn, need: null };
}

function join(round) {
  round.text = round.pieces.map((piece) => piece.delta).join("");
  round.reasoning = round.pieces.map((piece) => piece.reasoning).join("");
}

function runs(turn) {
  if (turn.status === "queued" || turn.status === "waiting") turn.status = "running";
}

// What a turn waits for: agents, or a person's answer. `said` is the data of `turn_waiting`, or a task's `waiting`.
export function waitsFor(turn, said) {
  turn.agents = said?.agents ?? null;
  turn.ask = said?.question ? { question: said.question, callId: said.call_id, choices: said.choices ?? [] } : null;
}

const TAKE = {
  queued(turn, data) {
    turn.status = "queued";
    turn.position = data.position;
    turn.reason = data.reason;
    turn.waitS = data.estimated_wait_s ?? null;
  },
  queue_start(turn) {
    turn.status = "running";
    turn.error = turn.agents = turn.ask = null;
  },
  task_retry(turn, data) {
    turn.status = "queued";
    turn.position = 0;
    turn.reason = "retry";
    turn.waitS = null;
    turn.error = data.error;
  },
  turn_waiting(turn, data) {
    turn.status = "waiting";
    waitsFor(turn, data);
  },
  llm_request(turn, data, id) {
    runs(turn);
    turn.retry = null;
    const round = roundOf(turn, data.model_round);
    if (round.done) return;
    Object.assign(round, newRound(round.n), { whole: true, startId: id, tools: round.tools });
  },
  llm_output_delta(turn, data, id) {
    runs(turn);
    const round = roundOf(turn, data.model_round);
    if (round.done) return;
    const piece = { id, delta: data.delta ?? "", reasoning: data.reasoning_delta ?? "" };
    round.pieces.push(piece);
    round.text += piece.delta;
    round.reasoning += piece.reasoning;
  },
  llm_stream_retry(turn, data) {
    turn.retry = data;
  },
  llm_output(turn, data) {
    turn.retry = null;
    const round = roundOf(turn, data.model_round);
    round.text = data.content ?? "";
    round.reasoning = data.reasoning ?? round.reasoning;
    round.pieces = [];
    round.done = round.whole = true;
    for (const call of data.tool_calls ?? []) {
      const tool = toolOf(turn, call.call_id, round.n);
      tool.name = call.tool;
      tool.args = call.args;
    }
  },
  tool_call(turn, data, id, envelope) {
    const tool = toolOf(turn, data.call_id, data.model_round);
    tool.name = data.tool;
    tool.args = data.args;
    tool.eventId = id;
    tool.started = envelope.timestamp;
  },
  tool_output_delta(turn, data, id) {
    const tool = toolOf(turn, data.call_id);
    tool.name ||= data.tool;
    if (!tool.done) tool.output.push({ id, text: data.delta });
  },
  tool_result(turn, data) {
    runs(turn);
    const tool = toolOf(turn, data.call_id, data.model_round);
    tool.name = data.tool;
    tool.done = true;
    tool.ok = data.ok;
    tool.data = data.data ?? null;
    tool.error = data.error ?? null;
    tool.ms = data.meta?.duration_ms ?? null;
  },
  final(turn, data) {
    turn.usage = data.usage;
    turn.stopReason = data.stop_reason;
  },
  error(turn, data) {
    turn.error = data;
  },
  turn_terminal(turn, data) {
    turn.status = data.status;
    turn.stopReason = data.stop_reason ?? turn.stopReason;
    turn.retry = turn.agents = turn.ask = null;
    for (const round of turn.rounds) {
      if (!round.done && round.text) round.partial = true;
      round.pieces = [];
    }
  },
};
