"""What a model is to a turn: one request in, a stream of parts out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal, Protocol

import msgspec

from actors.cancellation import CancellationToken


class ToolSpec(msgspec.Struct, frozen=True):
    """A tool as the model is told of it; `parameters` is a JSON Schema object."""

    name: str
    description: str
    parameters: dict[str, Any]


class ToolCall(msgspec.Struct, frozen=True):
    """A call the model asks for; `arguments` is the JSON text as the model wrote it."""

    call_id: str
    name: str
    arguments: str


class Usage(msgspec.Struct, frozen=True):
    """Tokens of one round (or the sum of a turn)."""

    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens)


class Delta(msgspec.Struct, frozen=True):
    """A piece of text as it was produced."""

    text: str
    field: Literal["delta", "reasoning_delta"] = "delta"


class Retrying(msgspec.Struct, frozen=True):
    """The model's server failed before its first token and is asked again after `delay_s`."""

    attempt: int
    max_attempts: int
    delay_s: float
    reason: str


class Completed(msgspec.Struct, frozen=True):
    """The round is over; always the last part of a stream."""

    content: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage()
    stop_reason: str = "stop"


ModelPart = Delta | Retrying | Completed


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One round. `messages` are chat-completions messages, oldest first; they are not changed or copied."""

    messages: list[dict[str, Any]]
    tools: tuple[ToolSpec, ...] = ()
    temperature: float | None = None
    max_output: int | None = None


class Model(Protocol):
    """A configured model. One instance serves many turns at once."""

    name: str
    max_rounds: int
    max_context: int

    def stream(self, request: ModelRequest, token: CancellationToken) -> AsyncIterator[ModelPart]:
        """Deltas as they come, then exactly one `Completed`.

        Raises an `UpstreamError` (never completing in that case), or `Cancelled` at once when the token is
        cancelled, with the upstream connection closed. It retries by itself only before the first delta.
        """

    async def close(self) -> None: ...
