"""Small doubles of what the actor core talks to: a model that plays rounds, tools, a reach, a launcher, a directory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from actors.cancellation import CancellationToken
from actors.errors import ServiceUnavailable
from actors.handles import Call
from actors.messages import AnyCommand, Command, ReturnPermits, Wake, WakePools, decode_command, encode
from actors.models.base import Delta, ModelPart, ModelRequest, ToolSpec
from actors.placement import Node
from actors.replies import Done, Draining, Reply, Returned
from actors.tools.base import ToolContext, ToolResult

Round = tuple[ModelPart | Exception | asyncio.Event, ...]


class PlayedModel:
    """Each round is a tuple of parts to stream, errors to raise, and events to wait for."""

    def __init__(self, *rounds: Round, max_rounds: int = 12, max_context: int = 100_000) -> None:
        self.name = "played"
        self.max_rounds = max_rounds
        self.max_context = max_context
        self.requests: list[ModelRequest] = []
        self.waiting = asyncio.Event()
        self.ended = 0
        self._rounds = rounds

    async def stream(self, request: ModelRequest, token: CancellationToken) -> AsyncIterator[ModelPart]:
        token.raise_if_cancelled()
        self.requests.append(msgspec.structs.replace(request, messages=list(request.messages)))
        try:
            for part in self._rounds[len(self.requests) - 1]:
                if isinstance(part, asyncio.Event):
                    self.waiting.set()
                    await token.guard(part.wait())
                elif isinstance(part, Exception):
                    raise part
                else:
                    yield part
        finally:
            self.ended += 1

    async def close(self) -> None: ...


def deltas(*texts: str) -> tuple[Delta, ...]:
    return tuple(Delta(text) for text in texts)


class PlayedModels:
    """`Models` with one model."""

    def __init__(self, model: PlayedModel) -> None:
        self.model = model

    def get(self, name: str | None) -> PlayedModel:
        return self.model

    async def close(self) -> None: ...


class NoArguments(msgspec.Struct):
    pass


class PlayedTool:
    """A tool whose body the test gives; `contexts` are the calls it got."""

    description = "For tests."
    arguments = NoArguments
    timeout_s = 5.0

    def __init__(
        self,
        name: str,
        body: Callable[[ToolContext], Awaitable[Any]] | None = None,
        *,
        parallel_safe: bool = True,
        repeat_safe: bool = True,
    ) -> None:
        self.name = name
        self.parallel_safe = parallel_safe
        self.repeat_safe = repeat_safe
        self.contexts: list[ToolContext] = []
        self._body = body

    async def run(self, arguments: NoArguments, context: ToolContext) -> ToolResult:
        self.contexts.append(context)
        data = await self._body(context) if self._body is not None else f"{self.name} ran"
        return ToolResult(ok=True, data=data)


class PlayedTools:
    """`Tools` with these tools."""

    def __init__(self, *tools: PlayedTool) -> None:
        self._tools = {tool.name: tool for tool in tools}

    def specs(self, names: tuple[str, ...] | None) -> tuple[ToolSpec, ...]:
        chosen = self._tools if names is None else names
        return tuple(ToolSpec(name, "For tests.", {"type": "object"}) for name in chosen)

    def get(self, name: str) -> PlayedTool | None:
        return self._tools.get(name)

    async def close(self) -> None: ...


Answer = Callable[[AnyCommand], Awaitable[Reply] | Reply]


class FakeReach:
    """Processes by name: what they were told, and what they answer (`Done` unless the test says otherwise)."""

    def __init__(self) -> None:
        self.told: list[tuple[str, AnyCommand]] = []
        self.answers: dict[str, Answer] = {}
        self.dead: set[str] = set()
        self._gone: dict[str, asyncio.Event] = {}

    def actor(self, name: str) -> Call:
        async def call(data: bytes) -> bytes:
            if name in self.dead:
                raise ServiceUnavailable(f"{name} is not there")
            command = decode_command(data)
            self.told.append((name, command))
            answer = self.answers.get(name)
            usual: Reply = Returned(session_ids=()) if isinstance(command, ReturnPermits) else Done()
            if isinstance(command, Wake | WakePools):
                usual = Draining()
            reply = usual if answer is None else answer(command)
            return encode(await reply if isinstance(reply, Awaitable) else reply)

        return call

    async def gone(self, name: str) -> None:
        if name not in self.dead:
            await self._gone.setdefault(name, asyncio.Event()).wait()

    def kill(self, name: str) -> None:
        self.dead.add(name)
        self._gone.setdefault(name, asyncio.Event()).set()

    def heard(self, name: str, kind: type[Command]) -> list[AnyCommand]:
        """Commands of one kind that a process was told."""
        return [command for told, command in self.told if told == name and isinstance(command, kind)]


class FakeLauncher:
    """Starts actors by telling `on_start`; `gate` holds the starts up while it is not set."""

    def __init__(self, *nodes: Node) -> None:
        self.found = list(nodes)
        self.names: list[str] = []
        self.started: list[tuple[str, str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failures: list[Exception] = []
        self.on_start: Callable[[str, str], Awaitable[None]] | None = None
        self.asked: list[int] = []

    async def dashboard(self) -> str:
        return ""

    async def ask_room(self, places: int) -> None:
        self.asked.append(places)

    async def nodes(self) -> list[Node]:
        return list(self.found)

    async def actors(self) -> list[str]:
        return list(self.names)

    async def start_actor(self, node_id: str) -> str:
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        name = f"actor-{len(self.started) + 1}"
        self.started.append((node_id, name))
        self.names.append(name)
        if self.on_start is not None:
            await self.on_start(node_id, name)
        return name
