"""The built-in model: streams a script word by word, so that everything works before a real model is configured.

It is product code and the test double: it passes the same conformance suite as the clients of real models.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import msgspec

from actors.cancellation import CancellationToken
from actors.clock import Clock, SystemClock
from actors.models.base import Completed, Delta, ModelPart, ModelRequest, ToolCall, Usage
from actors.models.pause import Pause
from actors.models.script import Plan, plan, text_of
from actors.settings import ModelSettings

_CHARS_PER_TOKEN = 4


class ScriptedModel:
    """See `script.py` for what it understands. Its token counts are estimates: four characters, one token."""

    def __init__(self, name: str, settings: ModelSettings, *, clock: Clock | None = None) -> None:
        self.name = name
        self.max_rounds = settings.max_rounds
        self.max_context = settings.max_context
        self._delay_s = settings.scripted_delay_ms / 1000
        self._clock = clock or SystemClock()

    async def stream(self, request: ModelRequest, token: CancellationToken) -> AsyncIterator[ModelPart]:
        """See `Model.stream`."""
        token.raise_if_cancelled()
        chosen = plan(request)
        said: dict[str, list[str]] = {"delta": [], "reasoning_delta": []}
        stop_reason = "tool_calls" if chosen.calls else "stop"
        async with Pause(token) as pause:
            when = asyncio.get_running_loop().time()
            for delta in _deltas(chosen):
                if request.max_output is not None and len(said["delta"]) >= request.max_output:
                    stop_reason = "length"
                    break
                when += self._delay_s
                await pause.until(when)
                said[delta.field].append(delta.text)
                yield delta
            if chosen.failure is not None and stop_reason != "length":
                raise chosen.failure
            token.raise_if_cancelled()
        yield self._completed(request, chosen, said, stop_reason)

    async def close(self) -> None:
        """Nothing to close."""

    def _completed(
        self, request: ModelRequest, chosen: Plan, said: dict[str, list[str]], stop_reason: str
    ) -> Completed:
        calls = tuple(
            ToolCall(self._clock.new_id("call"), name, msgspec.json.encode(arguments).decode())
            for name, arguments in chosen.calls
        )
        content, reasoning = "".join(said["delta"]), "".join(said["reasoning_delta"])
        spoken = len(content) + len(reasoning) + sum(len(call.arguments) for call in calls)
        asked = sum(len(text_of(message)) for message in request.messages)
        usage = Usage(-(-asked // _CHARS_PER_TOKEN), -(-spoken // _CHARS_PER_TOKEN))
        return Completed(content, reasoning, calls, usage, stop_reason)


def _deltas(chosen: Plan) -> Iterator[Delta]:
    for word in chosen.reasoning:
        yield Delta(word, "reasoning_delta")
    for word in chosen.words:
        yield Delta(word)
