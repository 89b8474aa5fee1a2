"""A model that says what the test tells it to, when the test tells it to.

models = GatedModels(settings.llm)              in place of `Models`
question "gate a" ──► take = await models.take("a")        one take per model round that asks
take.say("Hel", "lo"); take.call("calculator", {...}); take.finish(); take.fail(error)
anything else is answered by the scripted model
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from actors.cancellation import CancellationToken
from actors.errors import UpstreamError
from actors.models.base import Completed, Delta, Model, ModelPart, ModelRequest, ToolCall, Usage
from actors.models.registry import Models
from actors.models.script import text_of
from actors.settings import LlmSettings

_WORD = "gate "


class Take:
    """One round of a gated model: what the test puts in comes out as its stream."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.said: list[str] = []
        self.ended = asyncio.Event()
        self._calls: list[ToolCall] = []
        self._parts: asyncio.Queue[ModelPart | UpstreamError] = asyncio.Queue()

    def say(self, *texts: str) -> None:
        for text in texts:
            self.said.append(text)
            self._parts.put_nowait(Delta(text))

    def call(self, tool: str, arguments: dict[str, Any]) -> None:
        """Ask for a tool when the round is finished."""
        self._calls.append(ToolCall(f"call-{self.number}-{len(self._calls)}", tool, json.dumps(arguments)))

    def finish(self) -> None:
        usage = Usage(1, len(self.said))
        self._parts.put_nowait(Completed("".join(self.said), tool_calls=tuple(self._calls), usage=usage))

    def fail(self, error: UpstreamError) -> None:
        self._parts.put_nowait(error)

    async def parts(self, token: CancellationToken) -> AsyncIterator[ModelPart]:
        try:
            while True:
                part = await token.guard(self._parts.get())
                if isinstance(part, UpstreamError):
                    raise part
                yield part
                if isinstance(part, Completed):
                    return
        finally:
            self.ended.set()


class _GatedModel:
    def __init__(self, models: GatedModels, model: Model) -> None:
        self.name, self.max_rounds, self.max_context = model.name, model.max_rounds, model.max_context
        self._models = models
        self._model = model

    async def stream(self, request: ModelRequest, token: CancellationToken) -> AsyncIterator[ModelPart]:
        token.raise_if_cancelled()
        question = next((text_of(m) for m in reversed(request.messages) if m["role"] == "user"), "")
        if question.startswith(_WORD):
            source = self._models.open(question.removeprefix(_WORD)).parts(token)
        else:
            source = self._model.stream(request, token)
        async for part in source:
            yield part

    async def close(self) -> None:
        await self._model.close()


class GatedModels(Models):
    """One object for all hosts of a cluster, so that a test meets a turn wherever it runs."""

    def __init__(self, settings: LlmSettings) -> None:
        super().__init__(settings)
        self._takes: dict[str, list[Take]] = {}
        self._met: dict[str, int] = {}
        self._opened = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self.running = 0

    def get(self, name: str | None) -> Model:
        return _GatedModel(self, super().get(name))

    def open(self, key: str) -> Take:
        """A round begins."""
        takes = self._takes.setdefault(key, [])
        takes.append(Take(len(takes) + 1))
        task = asyncio.ensure_future(self._announce())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return takes[-1]

    async def _announce(self) -> None:
        async with self._opened:
            self._opened.notify_all()

    async def take(self, key: str, timeout_s: float = 10.0) -> Take:
        """The next round of this question that the test has not met yet."""
        index = self._met.get(key, 0)
        try:
            async with asyncio.timeout(timeout_s), self._opened:
                await self._opened.wait_for(lambda: len(self._takes.get(key, ())) > index)
        except TimeoutError:
            raise AssertionError(f"no model round {index + 1} of {key!r} within {timeout_s:g} s") from None
        self._met[key] = index + 1
        return self._takes[key][index]

    def takes(self, key: str) -> int:
        """How often the question was asked of the model."""
        return len(self._takes.get(key, ()))

    async def close(self) -> None:
        return
