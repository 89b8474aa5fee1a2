// One turn: what the user said, then round by round reasoning, text and tools, then how it stands.

import { h, replace, setText } from "../core/dom.js";
import { duration, hasText, number, t, time } from "../core/i18n.js";
import { hasEnded } from "../state/conversation.js";
import { operationsRoute } from "../state/route.js";
import { AskView } from "./ask_view.js";
import { TextView } from "./text_view.js";
import { ToolView } from "./tool_view.js";

export class TurnView {
  // `answer(turnId, callId, text)` answers what the turn asks.
  constructor(turn, answer) {
    this.answer = answer;
    this.ask = null;
    this.asks = h("div");
    this.said = h("div.said");
    this.rounds = h("div.rounds");
    this.foot = h("p.foot");
    this.element = h("article.turn", { "data-turn": turn.id }, this.said, h("div.answer", null, this.rounds, this.asks, this.foot));
    this.roundViews = new Map();
    this.footKey = null;
    this.version = -1;
  }

  update(turn) {
    if (turn.version === this.version) return;
    this.version = turn.version;
    this.element.dataset.status = turn.status;
    this.#user(turn);
    this.#rounds(turn);
    this.#ask(turn);
    this.#foot(turn);
  }

  #ask(turn) {
    if ((turn.ask?.callId ?? null) === (this.ask?.callId ?? null)) return;
    this.ask = turn.ask ? new AskView(turn.ask, (text) => this.answer(turn.id, turn.ask.callId, text)) : null;
    replace(this.asks, this.ask?.element);
  }

  #user(turn) {
    const text = turn.user?.text ?? (turn.status === "queued" ? t("turn.queued_elsewhere") : "");
    setText(this.said, text);
    this.said.hidden = !text;
    this.said.classList.toggle("unknown", !turn.user);
    if (turn.user?.at) this.said.title = time(turn.user.at);
  }

  #rounds(turn) {
    for (const [n, view] of this.roundViews) {
      if (turn.rounds.some((round) => round.n === n)) continue;
      view.element.remove();
      this.roundViews.delete(n);
    }
    const ended = hasEnded(turn);
    turn.rounds.forEach((round, index) => {
      let view = this.roundViews.get(round.n);
      if (!view) this.roundViews.set(round.n, (view = new RoundView()));
      if (this.rounds.children[index] !== view.element) this.rounds.insertBefore(view.element, this.rounds.children[index] ?? null);
      view.update(round, ended);
    });
  }

  #foot(turn) {
    const parts = footOf(turn);
    const key = JSON.stringify(parts.map((part) => part.key));
    if (key === this.footKey) return;
    this.footKey = key;
    this.foot.hidden = parts.length === 0;
    replace(this.foot, parts.flatMap((part) => part.nodes()));
  }
}

class RoundView {
  constructor() {
    this.thought = new TextView("thought-text");
    this.reasoning = h("details.thought", { hidden: true }, h("summary", null, t("turn.reasoning")), this.thought.element);
    this.head = h("p.missing", { hidden: true }, t("turn.beginning_missing"));
    this.text = new TextView("prose");
    this.tools = h("div.tools");
    this.toolViews = new Map();
    this.element = h("div.model-round", null, this.reasoning, this.head, this.text.element, this.tools);
  }

  update(round, ended) {
    this.reasoning.hidden = !round.reasoning;
    this.thought.update(round.reasoning);
    this.head.hidden = round.whole || round.done || !round.text;
    this.text.update(round.text);
    this.text.element.hidden = !round.text;
    this.element.dataset.live = String(!round.done && !ended);
    for (const [id, view] of this.toolViews) {
      if (round.tools.some((tool) => tool.id === id)) continue;
      view.element.remove();
      this.toolViews.delete(id);
    }
    for (const tool of round.tools) {
      let view = this.toolViews.get(tool.id);
      if (!view) {
        this.toolViews.set(tool.id, (view = new ToolView()));
        this.tools.append(view.element);
      }
      view.update(tool, ended);
    }
  }
}

// What stands under a turn, as {key, nodes()}: built again only when the keys change.
function footOf(turn) {
  const parts = [];
  const say = (className, text) => parts.push({ key: className + text, nodes: () => [h(`span.${className}`, null, text)] });
  if (turn.status === "queued") say("state", queuedText(turn));
  if (turn.status === "waiting" && turn.ask) say("state", t("turn.asks"));
  else if (turn.status === "waiting") {
    say("state", t("turn.waiting", { n: number(turn.agents?.length ?? 0) }));
    parts.push(...(turn.agents ?? []).map(agentLink));
  }
  if (turn.status === "running" && turn.retry) {
    say("state", t("turn.model_retry", { attempt: turn.retry.attempt, most: turn.retry.max_attempts }));
  } else if (turn.status === "running" && !turn.rounds.some((round) => round.text || round.tools.length)) {
    parts.push({ key: "thinking", nodes: () => [h("span.dots", { "aria-label": t("turn.running") }, h("i"), h("i"), h("i"))] });
  }
  if (turn.error && turn.status !== "succeeded") say("error", errorText(turn.error));
  if (hasEnded(turn) && turn.status !== "succeeded" && !turn.error) say("state", t(`status.${turn.status}`));
  if (turn.stopReason === "length" || turn.stopReason === "max_rounds") say("state", t(`turn.${turn.stopReason}`));
  if (turn.status === "succeeded" && turn.usage) {
    say("usage", t("turn.usage", { in: number(turn.usage.input_tokens), out: number(turn.usage.output_tokens) }));
  }
  return parts;
}

function agentLink(agent, index) {
  const id = typeof agent === "string" ? agent : (agent.id ?? agent.task_id);
  const name = t("turn.agent", { n: index + 1 });
  return { key: `agent ${id}`, nodes: () => [" ", h("a", { href: operationsRoute("tasks", id) }, name)] };
}

function queuedText(turn) {
  const reason = hasText(`queued.${turn.reason}`) ? t(`queued.${turn.reason}`) : "";
  const place = turn.position > 0 ? t("turn.queued_at", { position: number(turn.position) }) : t("turn.queued");
  const wait = turn.waitS ? t("turn.queued_wait", { wait: duration(turn.waitS * 1000) }) : "";
  return [place, reason, wait].filter(Boolean).join(" ");
}

function errorText(error) {
  const known = hasText(`error.${error.code}`) ? t(`error.${error.code}`) : t("error.unknown");
  return error.message ? `${known} ${error.message}` : known;
}
