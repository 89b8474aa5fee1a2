"""Messages of a transcript in the shape of chat completions, and the window of them that a model is shown."""

from __future__ import annotations

from typing import Any

import msgspec

from actors.models.base import Completed, ToolCall, Usage
from actors.tools.base import ToolResult
from storage.records import MessageRecord

_CHARS_PER_TOKEN = 4
_PER_MESSAGE_TOKENS = 4
_TITLE_CHARS = 80

NO_RESULT = "The turn ended before this tool gave a result. Whether it took effect is unknown."


def user_message(content: str, attachments: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """A question with its attachments (text as text, pictures as data URLs)."""
    if not attachments:
        return {"role": "user", "content": content}
    parts: list[dict[str, Any]] = [{"type": "text", "text": content}]
    for attachment in attachments:
        kind = attachment.get("content_type") or "text/plain"
        if kind.startswith("image/"):
            parts.append({"type": "image_url", "image_url": {"url": attachment["content"]}})
        else:
            parts.append({"type": "text", "text": f"[{attachment.get('name') or kind}]\n{attachment['content']}"})
    return {"role": "user", "content": parts}


def assistant_message(completed: Completed) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": completed.content}
    if completed.reasoning:
        message["reasoning"] = completed.reasoning
    if completed.tool_calls:
        message["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in completed.tool_calls
        ]
    message["usage"] = msgspec.to_builtins(completed.usage)
    return message


def partial_message(text: str, reasoning: str) -> dict[str, Any]:
    """What a model had said when its round was cut off: kept for the reader, marked."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "partial": True}
    if reasoning:
        message["reasoning"] = reasoning
    return message


def tool_message(call: ToolCall, result: ToolResult) -> dict[str, Any]:
    content = result.data if result.ok else {"error": result.error}
    text = content if isinstance(content, str) else msgspec.json.encode(content).decode()
    return {"role": "tool", "tool_call_id": call.call_id, "name": call.name, "content": text}


def for_model(message: dict[str, Any]) -> dict[str, Any]:
    """Without what is for readers only."""
    if not {"usage", "partial", "reasoning"} & message.keys():
        return message
    return {k: v for k, v in message.items() if k not in {"usage", "partial", "reasoning"}}


def window(history: list[dict[str, Any]], system_prompt: str, max_context: int) -> tuple[list[dict[str, Any]], int]:
    """The system prompt and the newest messages that fit `max_context` tokens (estimated), and their size.

    The newest question is always shown, and a tool's result never without the round that asked for it.
    """
    prompt_tokens = tokens = estimate({"content": system_prompt})
    chosen: list[dict[str, Any]] = []
    asked = False
    for message in reversed(history):
        tokens += estimate(message)
        if asked and tokens > max_context:
            break
        chosen.append(for_model(message))
        asked = asked or message["role"] == "user"
    chosen.reverse()
    start = next((i for i, m in enumerate(chosen) if m["role"] == "user"), 0)
    shown = _answered(chosen[start:])
    tokens = prompt_tokens + sum(map(estimate, shown))
    return ([{"role": "system", "content": system_prompt}, *shown] if system_prompt else shown), tokens


def _answered(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every call with a result, every result with its call: model servers refuse anything else for good.

    A turn that was cut off while a tool ran leaves calls without a result.
    """
    found: list[dict[str, Any]] = []
    calls: dict[str, str] = {}
    answered: set[str] = set()
    for message in [*messages, None]:
        if message is not None and message["role"] == "tool":
            if message["tool_call_id"] in calls:
                answered.add(message["tool_call_id"])
                found.append(message)
            continue
        for call_id, name in calls.items():
            if call_id not in answered:
                found.append({"role": "tool", "tool_call_id": call_id, "name": name, "content": NO_RESULT})
        if message is not None:
            calls = {c["id"]: c["function"]["name"] for c in message.get("tool_calls", ())}
            answered = set()
            found.append(message)
    return found


def estimate(message: dict[str, Any]) -> int:
    """About how many tokens a message has."""
    content = message.get("content") or ""
    length = len(content) if isinstance(content, str) else len(str(content))
    for call in message.get("tool_calls", ()):
        length += len(call["function"]["arguments"]) + len(call["function"]["name"])
    return length // _CHARS_PER_TOKEN + _PER_MESSAGE_TOKENS


class Unfinished(msgspec.Struct, frozen=True):
    """Where a turn stood when it stopped: the next round, the calls without a result (and since when), the tokens."""

    next_round: int
    open_calls: tuple[ToolCall, ...]
    usage: Usage
    asked_us: int | None = None


def unfinished(records: list[MessageRecord], bodies: list[dict[str, Any]], turn_id: str) -> Unfinished:
    """Read off the committed messages of a turn what is left to do."""
    usage, last_round, asked_us = Usage(), 0, None
    calls: dict[str, ToolCall] = {}
    for record, body in zip(records, bodies, strict=True):
        if record.turn_id != turn_id:
            continue
        if body["role"] == "assistant":
            last_round, asked_us = record.round, record.created_us
            usage = usage + msgspec.convert(body.get("usage") or {}, Usage)
            calls = {
                c["id"]: ToolCall(c["id"], c["function"]["name"], c["function"]["arguments"])
                for c in body.get("tool_calls", ())
            }
        elif body["role"] == "tool":
            calls.pop(body["tool_call_id"], None)
    return Unfinished(last_round + 1, tuple(calls.values()), usage, asked_us)


def title_of(content: str) -> str:
    """A session's first title: the first line of its first question."""
    line = content.strip().partition("\n")[0]
    return line if len(line) <= _TITLE_CHARS else f"{line[: _TITLE_CHARS - 1]}…"
