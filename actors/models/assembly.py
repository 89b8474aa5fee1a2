"""Puts a round together from its chunks: what was said, what was asked for, and whether it came to its end."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from actors.errors import UpstreamGarbage
from actors.models.base import Completed, Delta, ToolCall, Usage
from actors.models.upstream_errors import Redactor, stream_error
from actors.models.wire import Chunk, ToolCallPart, chunk_decoder

MAX_TOOL_CALLS = 128
MAX_TEXT_CHARS = 2 << 20
MAX_ARGUMENTS_CHARS = 1 << 20
MAX_NAME_CHARS = 256
MAX_CALL_ID_CHARS = 16_384  # some servers carry a signature in it
MAX_TOKENS = 2**31 - 1
_MAX_STOP_REASON_CHARS = 64
_SPARE_DEPTH = 500


class _Call:
    """A tool call under way."""

    def __init__(self, call_id: str | None) -> None:
        self.call_id = call_id
        self.name = ""
        self.arguments: list[str] = []


class Assembly:
    """Takes payloads, gives deltas; `began` with the first content, `completed()` is the round once `finished`."""

    def __init__(self, redact: Redactor, new_call_id: Callable[[], str]) -> None:
        self._redact = redact
        self._new_call_id = new_call_id
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._text_room = MAX_TEXT_CHARS
        self._arguments_room = MAX_ARGUMENTS_CHARS
        self._usage = Usage()
        self._stop_reason: str | None = None
        self.began = False
        self.done = False

    @property
    def finished(self) -> bool:
        """A finish reason or `[DONE]` was seen: the answer is whole."""
        return self.done or self._stop_reason is not None

    def feed(self, payload: bytes) -> Delta | None:
        """Take one payload; raises `UpstreamGarbage`, or the error that the payload speaks of."""
        if payload == b"[DONE]":
            self.done = True
            return None
        chunk = _decode(payload)
        if chunk.error is not None:
            raise stream_error(chunk.error, self._redact)
        if chunk.usage is not None:
            self._usage = Usage(_tokens(chunk.usage.prompt_tokens), _tokens(chunk.usage.completion_tokens))
        if not chunk.choices:
            return None
        choice = chunk.choices[0]
        if choice.finish_reason:
            self._stop_reason = choice.finish_reason[:_MAX_STOP_REASON_CHARS]
        delta = choice.delta
        if delta is None:
            return None
        if delta.tool_calls:
            self.began = True
            if len(delta.tool_calls) > MAX_TOOL_CALLS:
                raise _too_many_calls()
            for part in delta.tool_calls:
                self._add_call(part)
        if text := delta.content or delta.refusal:
            self._keep(text, self._content)
            return Delta(text)
        if text := delta.reasoning_content or delta.reasoning:
            self._keep(text, self._reasoning)
            return Delta(text, "reasoning_delta")
        return None

    def completed(self) -> Completed:
        """The round; a tool call without a name is garbage."""
        calls = []
        for _, call in sorted(self._calls.items()):
            if not call.name:
                raise UpstreamGarbage("The model's server sent a tool call without a name.")
            call_id = call.call_id or self._new_call_id()
            arguments = "".join(call.arguments)
            _check_depth(arguments)
            calls.append(ToolCall(call_id, call.name, arguments))
        return Completed(
            content="".join(self._content),
            reasoning="".join(self._reasoning),
            tool_calls=tuple(calls),
            usage=self._usage,
            stop_reason=self._stop_reason or "stop",
        )

    def _keep(self, text: str, pieces: list[str]) -> None:
        self.began = True
        self._text_room -= len(text)
        if self._text_room < 0:
            raise UpstreamGarbage(f"The model's server sent more than {MAX_TEXT_CHARS} characters of text.")
        pieces.append(text)

    def _add_call(self, part: ToolCallPart) -> None:
        if part.id and len(part.id) > MAX_CALL_ID_CHARS:
            raise UpstreamGarbage(f"The model's server sent a tool call's id of {len(part.id)} characters.")
        call = self._slot(part)
        function = part.function
        if function is None:
            return
        if function.name and not call.name:
            if len(function.name) > MAX_NAME_CHARS:
                raise UpstreamGarbage(f"The model's server sent a tool's name of {len(function.name)} characters.")
            call.name = function.name
        if function.arguments:
            self._arguments_room -= len(function.arguments)
            if self._arguments_room < 0:
                raise UpstreamGarbage(
                    f"The model's server sent tool arguments of over {MAX_ARGUMENTS_CHARS} characters."
                )
            call.arguments.append(function.arguments)

    def _slot(self, part: ToolCallPart) -> _Call:
        """The call that a piece belongs to: by index; a second id under one index is a call of its own."""
        calls = self._calls
        last = max(calls, default=0)
        index = part.index if part.index is not None else last
        known = calls.get(index)
        if known is not None and (not part.id or known.call_id is None or part.id == known.call_id):
            known.call_id = known.call_id or part.id or None
            return known
        if known is not None:
            again = next((c for c in calls.values() if c.call_id == part.id), None)
            if again is not None:
                return again
            index = last + 1
        if len(calls) >= MAX_TOOL_CALLS:
            raise _too_many_calls()
        calls[index] = _Call(part.id or None)
        return calls[index]


def _too_many_calls() -> UpstreamGarbage:
    return UpstreamGarbage(f"The model's server asked for more than {MAX_TOOL_CALLS} tool calls at once.")


def _tokens(count: int | None) -> int:
    """What a server counts, as a number that every database takes."""
    return min(max(count or 0, 0), MAX_TOKENS)


def _check_depth(arguments: str) -> None:
    """Arguments that are JSON must leave room to whoever decodes them deeper in the stack, or within something."""
    try:
        msgspec.json.decode("[" * _SPARE_DEPTH + arguments + "]" * _SPARE_DEPTH, type=msgspec.Raw)
    except RecursionError:
        raise UpstreamGarbage("The model's server sent tool arguments that are nested too deeply.") from None
    except msgspec.DecodeError:
        return  # the tool's executor tells the model


def _decode(payload: bytes) -> Chunk:
    try:
        return chunk_decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UpstreamGarbage(f"The model's server sent a chunk that is not a chunk: {_cause(error)}") from None
    except RecursionError:
        raise UpstreamGarbage("The model's server sent a chunk that is nested too deeply.") from None


def _cause(error: Exception) -> str:
    return "bad UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)[:120]
