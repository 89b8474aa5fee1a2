"""Chat completions on the wire: only the fields that are used, typed, so that decoding is one pass in C."""

from __future__ import annotations

from typing import Any

import msgspec

from actors.models.base import ModelRequest, ToolSpec


class FunctionPart(msgspec.Struct, gc=False):
    """A piece of a tool call's name and arguments."""

    name: str | None = None
    arguments: str | None = None


class ToolCallPart(msgspec.Struct, gc=False):
    """A piece of a tool call; pieces of one call share `index` (some servers leave it out)."""

    index: int | None = None
    id: str | None = None
    function: FunctionPart | None = None


class DeltaPart(msgspec.Struct, gc=False):
    """What a chunk adds to the message."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallPart] | None = None


class Choice(msgspec.Struct, gc=False):
    """The only choice that is asked for."""

    delta: DeltaPart | None = None
    finish_reason: str | None = None


class ChunkUsage(msgspec.Struct, gc=False):
    """Tokens of the round, in the last chunk."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Chunk(msgspec.Struct, gc=False):
    """One `data:` payload; `error` can come inside a stream that began with 200."""

    choices: list[Choice] | None = None
    usage: ChunkUsage | None = None
    error: Any = None


class ErrorBody(msgspec.Struct):
    """The body of a failed request, in the shapes that servers use."""

    error: Any = None
    message: Any = None
    detail: Any = None


chunk_decoder = msgspec.json.Decoder(Chunk)
error_decoder = msgspec.json.Decoder(ErrorBody)


def request_body(
    request: ModelRequest,
    *,
    model: str,
    temperature: float | None,
    max_output: int,
    output_field: str,
) -> bytes:
    """The JSON of a streaming request."""
    body: dict[str, Any] = {
        "model": model,
        "messages": request.messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        output_field: request.max_output or max_output,
    }
    chosen = request.temperature if request.temperature is not None else temperature
    if chosen is not None:
        body["temperature"] = chosen
    if request.tools:
        body["tools"] = [_tool(spec) for spec in request.tools]
    return msgspec.json.encode(body)


def _tool(spec: ToolSpec) -> dict[str, Any]:
    function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": function}
