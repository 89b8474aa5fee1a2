// Messages of the transcript and records of tasks, put into a conversation beside what its events said.

import { hasEnded, newTurn, roundOf, toolOf, turnOf, waitsFor } from "./conversation.js";

// Whether a page of messages begins in the middle of a turn, so that an older page is needed to number its rounds.
export function beginsInside(messages) {
  return messages.length > 0 && messages[0].role !== "user";
}

// Puts messages (oldest first, whole turns) in; `activeTurn` is the id of the turn that runs, or null.
export function mergeMessages(conversation, messages, activeTurn) {
  const groups = new Map();
  for (const message of messages) {
    if (!groups.has(message.turn_id)) groups.set(message.turn_id, []);
    groups.get(message.turn_id).push(message);
  }
  for (const [turnId, group] of groups) {
    const known = conversation.turns.some((turn) => turn.id === turnId);
    const turn = turnOf(conversation, turnId);
    turn.order = group[0].position;
    mergeTurn(turn, group);
    if (!known && turnId !== activeTurn) turn.status = endOf(turn);
    turn.version += 1;
  }
  sortTurns(conversation);
}

// Puts what the task list knows about turns in: how they ended, what waits. `tasks` come newest first.
export function mergeTasks(conversation, tasks) {
  for (const task of [...tasks].reverse()) {
    const open = task.status === "queued" || task.status === "running" || task.status === "waiting";
    let turn = conversation.turns.find((each) => each.id === task.task_id);
    if (!turn && !open) continue; // older than what is shown
    if (!turn) conversation.turns.push((turn = newTurn(task.task_id)));
    if (hasEnded(turn) && open) continue; // an event that is newer than the list said so
    turn.status = task.status;
    if (task.status === "waiting") waitsFor(turn, task.waiting);
    turn.error = task.error ?? turn.error;
    turn.usage = task.usage ?? turn.usage;
    turn.version += 1;
  }
  sortTurns(conversation);
}

function mergeTurn(turn, messages) {
  let n = 0;
  for (const message of messages) {
    if (message.role === "user") {
      turn.user = { text: textOf(message.content), at: message.created_at };
    } else if (message.role === "assistant") {
      n += 1;
      const round = roundOf(turn, n);
      if (!round.done) {
        round.text = textOf(message.content);
        round.reasoning = message.reasoning ?? round.reasoning;
        round.pieces = [];
        round.done = round.whole = true;
        round.partial = Boolean(message.partial);
      }
      for (const call of message.tool_calls ?? []) mergeCall(turn, call, n);
    } else if (message.role === "tool") {
      mergeResult(turn, message, n);
    }
  }
}

function mergeCall(turn, call, n) {
  const tool = toolOf(turn, call.id, n);
  tool.name ||= call.function?.name ?? "";
  tool.args ??= parsed(call.function?.arguments ?? "");
}

function mergeResult(turn, message, n) {
  const tool = toolOf(turn, message.tool_call_id, n);
  if (tool.done) return;
  tool.name ||= message.name ?? "";
  tool.done = true;
  tool.data = parsed(textOf(message.content));
  tool.error = tool.data && typeof tool.data === "object" ? (tool.data.error ?? null) : null;
  tool.ok = tool.error === null;
}

function endOf(turn) {
  const last = turn.rounds.at(-1);
  const whole = last && !last.partial && last.tools.length === 0;
  return whole ? "succeeded" : "interrupted";
}

// Turns with messages by their place in the transcript; those that wait have none yet and come after them.
function sortTurns(conversation) {
  const place = new Map(conversation.turns.map((turn, index) => [turn, index]));
  const order = (turn) => turn.order ?? Infinity;
  conversation.turns.sort((a, b) => (order(a) === order(b) ? place.get(a) - place.get(b) : order(a) - order(b)));
}

export function textOf(content) {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  return content
    .filter((part) => part.type === "text")
    .map((part) => part.text)
    .join("\n");
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
