"""What the scripted model says: a plan read off the last question, in plain words.

"calculate 6*7", "what time is it in Europe/Berlin", "fetch https://...", "sleep 3", "parallel calculate 1+1 and 2+2",
"delegate echo one and echo two" (to agents), "ask me ...", "echo ...", "count to 9", "stream 9", "think ...",
"fail timeout", "fail garbage after 5"; anything else: who it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from actors.errors import (
    UpstreamError,
    UpstreamGarbage,
    UpstreamOverloaded,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from actors.models.base import ModelRequest

MAX_COUNT = 100_000
_MAX_PARALLEL = 16
# A run of spaces is tried once, from its beginning.
_SEPARATOR = re.compile(r"(?<!\s)(?:\s+and\s+|\s*,\s+)")

INTRODUCTION = (
    "I am Wunder's built-in scripted model: I am not an AI, and I only follow a small script. "
    "To talk to a real one, add a model with provider: openai to llm.models in config/wunder.yaml "
    "(base_url, api_key and model), and name it in llm.default. "
    'Until then, try "calculate 6*7", "what time is it in Europe/Berlin", "count to 20", "echo hello" or "think".'
)
FAILURES: dict[str, type[UpstreamError]] = {
    "refused": UpstreamRefused,
    "timeout": UpstreamTimeout,
    "garbage": UpstreamGarbage,
    "overloaded": UpstreamOverloaded,
    "unavailable": UpstreamUnavailable,
}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One round: reasoning, then words, then tool calls (name and arguments) or a failure."""

    words: Iterable[str] = ()
    reasoning: Iterable[str] = ()
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    failure: UpstreamError | None = None


def plan(request: ModelRequest) -> Plan:
    """What to say to this request."""
    messages = request.messages
    last = max((i for i, m in enumerate(messages) if m.get("role") == "user"), default=-1)
    question = text_of(messages[last]).strip() if last >= 0 else ""
    results = [m for m in messages[last + 1 :] if m.get("role") == "tool"]
    if results:
        answers = [m for m in results if m.get("name") != "spawn_agent" or "error" in text_of(m)[:20]]
        return _with_results(answers) if answers else Plan(calls=(("wait_agents", {}),))
    known = {tool.name for tool in request.tools}
    for pattern, answer in _RULES:
        if match := pattern.search(question):
            chosen = answer(match)
            missing = sorted({name for name, _ in chosen.calls} - known)
            return _say(f"I would need the tool {', '.join(missing)} for that.") if missing else chosen
    return _say(INTRODUCTION)


def text_of(message: dict[str, Any]) -> str:
    """A message's text, also when its content is a list of parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.get("text", "") for part in content if part.get("type") == "text")


def words_of(text: str) -> list[str]:
    """The text cut before each word, so that the pieces put together are the text again."""
    return re.findall(r"\s*\S+|\s+$", text)


def _say(text: str) -> Plan:
    return Plan(words=words_of(text))


def _with_results(results: list[dict[str, Any]]) -> Plan:
    parts = [f"{m.get('name') or 'The tool'} says: {_readable(text_of(m))}" for m in results]
    return _say("\n".join(parts))


def _readable(text: str) -> str:
    try:
        data = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
    if not isinstance(data, dict):
        return text
    if "agents" in data:
        return "; ".join(str(agent.get("answer", agent["status"])) for agent in data["agents"])
    if "error" in data:
        return f"it failed ({data['error']})"
    chosen = next((data[key] for key in ("result", "time", "text", "answer") if key in data), None)
    return text if chosen is None else str(chosen)


def _numbers(count: int) -> Iterator[str]:
    return (str(i) if i == 1 else f" {i}" for i in range(1, count + 1))


def _count(match: re.Match[str]) -> Plan:
    return Plan(words=_numbers(min(int(match[1][:9]), MAX_COUNT)))


def _calculate(match: re.Match[str]) -> Plan:
    return Plan(calls=(("calculator", {"expression": match[1].strip().rstrip("?").strip()}),))


def _parallel(match: re.Match[str]) -> Plan:
    expressions = _SEPARATOR.split(match[1].strip().rstrip("?"), maxsplit=_MAX_PARALLEL)[:_MAX_PARALLEL]
    return Plan(calls=tuple(("calculator", {"expression": e.strip()}) for e in expressions if e.strip()))


def _delegate(match: re.Match[str]) -> Plan:
    tasks = _SEPARATOR.split(match[1].strip(), maxsplit=_MAX_PARALLEL)[:_MAX_PARALLEL]
    return Plan(calls=tuple(("spawn_agent", {"task": task.strip()}) for task in tasks if task.strip()))


def _time(match: re.Match[str]) -> Plan:
    return Plan(calls=(("current_time", {"timezone": match[1]} if match[1] else {}),))


def _fetch(match: re.Match[str]) -> Plan:
    return Plan(calls=(("http_fetch", {"url": match[1]}),))


def _sleep(match: re.Match[str]) -> Plan:
    return Plan(calls=(("sleep", {"seconds": float(match[1][:9])}),))


def _think(match: re.Match[str]) -> Plan:
    topic = match[1].strip() or "nothing in particular"
    thought = f"Let me think about {topic}. I am scripted, so this is a short thought."
    return Plan(reasoning=words_of(thought), words=words_of(f"I have thought about {topic}."))


def _fail(match: re.Match[str]) -> Plan:
    kind = (match[1] or "unavailable").lower()
    failure = FAILURES[kind](f"The scripted model was asked to fail ({kind}).")
    count = min(int(match[2][:9]), MAX_COUNT) if match[2] else 0
    return Plan(words=_numbers(count), failure=failure)


def _rule(pattern: str, answer: Callable[[re.Match[str]], Plan]) -> tuple[re.Pattern[str], Callable[..., Plan]]:
    return re.compile(pattern, re.IGNORECASE | re.DOTALL), answer


_RULES = (
    _rule(r"^ask\s+me\s+(.+)", lambda match: Plan(calls=(("ask_person", {"question": match[1].strip()}),))),
    _rule(r"^delegate\s+(.+)", _delegate),
    _rule(r"^echo\s+(.+)", lambda match: _say(match[1])),
    _rule(r"^fail(?:\s+(refused|timeout|garbage|overloaded|unavailable))?(?:\s+after\s+(\d+))?\s*$", _fail),
    _rule(r"^think\b(?:\s+about)?(.*)", _think),
    _rule(r"\b(?:count\s+to|stream)\s+(\d+)", _count),
    _rule(r"\bparallel\s+calculate\s+(.+)", _parallel),
    _rule(r"\bcalculate\s+(.+)", _calculate),
    _rule(r"\bfetch\s+(https?://\S+)", _fetch),
    _rule(r"\bsleep\s+(\d+(?:\.\d+)?)", _sleep),
    # Atomic: without a zone, the other places of "time" are not tried (a question can have thousands).
    _rule(r"\A(?>.*?\btime\b).*?\b([A-Z][A-Za-z_]+/[A-Za-z_/+\-0-9]*[A-Za-z_0-9]|UTC)\b", _time),
    _rule(r"\bwhat(?:'s|\s+is)?\s+(?:the\s+)?time\b()", _time),
)
