"""A worker pool over a real store and a real directory, with a model that answers when the test lets it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from actors.cancellation import CancellationToken
from actors.errors import UpstreamError
from actors.events import encode_json
from actors.handles import DirectoryHandle, ask, tell
from actors.messages import Command, Describe, Submit
from actors.models.base import Completed, Delta, ModelPart, ModelRequest
from actors.models.script import text_of
from actors.pool import WorkerPool
from actors.replies import Description
from actors.settings import ActorSettings, AgentQueueSettings, SessionsSettings
from actors.task_request import task_of
from actors.turn_runner import Services
from actors.wiring import create_children
from storage.records import Enqueued, NewTask, SessionId, SessionRecord, TaskRecord, TurnId, UserId
from storage.store import AsyncStorageBackend
from tests.support.directory_bench import DirectoryBench, KeptStore
from tests.support.doubles import PlayedModels, PlayedTools
from tests.support.facts import eventually
from tests.support.flaky_store import FlakyStore

NEVER_MS = 600_000.0
"""A poll that no test lives to see: what happens, happens because the pool was woken."""


class HeldModel:
    """Answers a question with itself as soon as it may; counts how many are asked at the same time."""

    def __init__(self) -> None:
        self.name, self.max_rounds, self.max_context = "held", 12, 100_000
        self.running: list[str] = []
        self.started: list[str] = []
        self.most = 0
        self.failures: list[UpstreamError] = []
        self._may: dict[str, asyncio.Event] = {}
        self._all = False

    def let(self, *questions: str) -> None:
        """These may be answered; without any, everything may."""
        self._all = self._all or not questions
        for question in questions or tuple(self._may):
            self._may.setdefault(question, asyncio.Event()).set()

    async def stream(self, request: ModelRequest, token: CancellationToken) -> AsyncIterator[ModelPart]:
        question = text_of(request.messages[-1])
        self.started.append(question)
        self.running.append(question)
        self.most = max(self.most, len(self.running))
        try:
            may = self._may.setdefault(question, asyncio.Event())
            if not self._all:
                await token.guard(may.wait())
            if self.failures:
                raise self.failures.pop(0)
            yield Delta(question)
            yield Completed(question)
        finally:
            self.running.remove(question)

    async def close(self) -> None: ...


class PoolBench:
    """One pool; `store` is its own view of the store, with faults."""

    def __init__(self, store: AsyncStorageBackend, **queue: Any) -> None:
        self.real = store
        self.settings = ActorSettings(
            sessions=SessionsSettings(line_interval_ms=0.0, permit_linger_s=0.0),
            agent_queue=AgentQueueSettings(**{"poll_interval_ms": NEVER_MS, "retry_base_ms": 1.0, **queue}),
        )
        self.directory = DirectoryBench(store)
        self.directory.launcher.found = []
        self.clock = self.directory.clock
        self.store = FlakyStore(KeptStore(store))  # type: ignore[arg-type]
        self.model = HeldModel()
        self.replace_pool()

    def replace_pool(self) -> None:
        """A new pool that has not been started."""
        handle = DirectoryHandle(self.directory.directory.handle)
        settings, clock = self.settings, self.directory.clock
        children = create_children(settings, self.store, clock, handle, self.directory.reach)  # type: ignore[arg-type]
        services = Services(
            settings=settings,
            store=self.store,  # type: ignore[arg-type]
            clock=clock,
            models=PlayedModels(self.model),  # type: ignore[arg-type]
            tools=PlayedTools(),  # type: ignore[arg-type]
            children=children,
        )
        self.pool = WorkerPool(services, handle, self.directory.reach, actor="pool-1", node_id="node-0")

    async def start(self) -> None:
        await self.directory.start()
        await self.pool.start()
        await self.eventually_idle()

    async def stop(self) -> None:
        await self.pool.stop()
        await self.directory.directory.stop()

    async def tell(self, command: Command) -> None:
        await tell(self.pool.handle, command)

    async def gauges(self) -> dict[str, float]:
        return (await ask(self.pool.handle, Describe(), Description)).gauges

    async def eventually_idle(self) -> None:
        """It has looked for tasks, and found none."""
        await eventually(lambda: self.pool.counts.empty_claims > 0, "it has looked once")

    async def enqueue(self, *questions: str, session: str | None = None, **fields: Any) -> list[Enqueued]:
        """Tasks whose ids are their questions, each with a session of its own unless that is given."""
        return await self.real.enqueue_tasks(
            [self.new(question, session, **fields) for question in questions], now_us=self.clock.now_us()
        )

    def new(self, question: str, session: str | None = None, **fields: Any) -> NewTask:
        """A task whose id is its question."""
        session_id, user_id = SessionId(session or f"s-{question}"), UserId("ada")
        now_us = self.clock.now_us()
        command = Submit(
            session_id=session_id, user_id=user_id, turn_id=TurnId(question), content=question, create=True
        )
        values: dict[str, Any] = {"origin": "task", "max_attempts": 4, **fields}
        task = TaskRecord(**{**_fields(task_of(command, "queued", 0, now_us)), **values})
        record = SessionRecord(session_id=session_id, user_id=user_id, created_us=now_us, updated_us=now_us)
        return NewTask(task=task, session=record, event=encode_json({"position": 1, "reason": "background"}))

    async def task(self, turn: str) -> TaskRecord:
        found = await self.real.get_task(TurnId(turn))
        assert found is not None
        return found

    async def ended(self, *turns: str, status: str = "succeeded") -> None:
        for turn in turns:

            async def has_ended(turn: str = turn) -> bool:
                return (await self.task(turn)).status not in ("queued", "running")

            await eventually(has_ended, f"{turn} ended")
            assert (await self.task(turn)).status == status


def _fields(task: TaskRecord) -> dict[str, Any]:
    return {name: getattr(task, name) for name in task.__struct_fields__}


Make = Callable[..., Coroutine[Any, Any, PoolBench]]
"""Builds a bench with these settings of the queue, and starts it."""
