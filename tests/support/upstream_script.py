"""How a request tells the fake upstream what to do: JSON, or `key=value` pairs, as the last user message or model."""

from __future__ import annotations

from typing import Any

import msgspec


class Script(msgspec.Struct, kw_only=True):
    """One answer. `rate` is deltas per second (0: as fast as it goes), `bytes` the size of each delta's text."""

    deltas: int = 10
    rate: float = 0.0
    bytes: int = 0
    text: str = ""  # instead of stamped deltas: this text, a word a delta
    reasoning: int = 0
    tools: list[dict[str, Any]] = []
    first_ms: float = 0.0
    fault: str = ""  # see upstream.py
    after: int = 0  # deltas before the fault
    status: int = 0
    times: int = 1_000_000_000  # how many requests of this script get `status` or `fault`
    retry_after: str = ""
    crlf: bool = False
    split: bool = False  # one byte at a time
    comments: bool = False
    done: bool = True
    finish: str = ""
    spread: bool = True  # start at a random phase of the period


class _Message(msgspec.Struct):
    role: str = ""
    content: Any = None


class Request(msgspec.Struct):
    """What is read of a chat completions request."""

    model: str = ""
    messages: list[_Message] = []
    stream: bool = False
    tools: list[msgspec.Raw] = []


_requests = msgspec.json.Decoder(Request)


def read_request(body: bytes) -> tuple[Request, Script, str, bool]:
    """The request, its script, the script's text (its key), and whether tool results follow the last question."""
    request = _requests.decode(body)
    text, answered = "", False
    for message in request.messages:
        if message.role == "user":
            text, answered = _text(message.content), False
        elif message.role == "tool":
            answered = True
    script = parse(text) or parse(request.model) or Script()
    return request, script, text, answered


def parse(text: str) -> Script | None:
    """`{"deltas": 5}` or `deltas=5,rate=20`; None if it is neither."""
    text = text.strip()
    if text.startswith("{"):
        return msgspec.json.decode(text, type=Script)
    pairs = [pair.partition("=") for pair in text.replace(",", " ").split()]
    if not pairs or not all(equals and key in Script.__struct_fields__ for key, equals, _ in pairs):
        return None
    return msgspec.convert({key: value for key, _, value in pairs}, Script, strict=False)


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part.get("text", "") for part in content)
    return content or ""
