"""Child tasks of turns: started as tasks with sessions of their own, waited for without a worker, cancelled together.

    parent runs ── spawn ──► child queued ... child ends ── end_wait ──► the last one that is awaited: parent is due
           └── wait_agents ──► parent waits (no slot, no permit, maybe no process) ──────────────────────┘

What follows an end happens after its commit. A process that dies in between is made up for by `sweep_once`.
"""

from __future__ import annotations

import asyncio
import hashlib

import msgspec

from actors.background import Background
from actors.clock import Clock
from actors.errors import ServiceUnavailable, ToolError, UserQuotaExceeded, WunderError
from actors.gathering import Gathering
from actors.handles import DirectoryHandle
from actors.logs import log
from actors.messages import CancelTurn, PickUp, Submit
from actors.owners import Owners
from actors.replies import CancelReceipt, Done
from actors.settings import ActorSettings
from actors.task_intake import TaskIntake, WantedTask
from actors.task_request import agent_of, request_of
from actors.tools.base import ToolContext
from actors.transcript import title_of
from storage.records import SessionId, TaskRecord, TurnId
from storage.store import AsyncStorageBackend

OPEN = ("queued", "running")
_SWEEP_BATCH = 100
_TELL_PARALLEL = 16


class AgentRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a child is asked to do; `agent` is one of `llm.agents`, or None for the parent's own settings."""

    task: str
    agent: str | None = None


class Children:
    """One per process that runs turns."""

    def __init__(
        self,
        settings: ActorSettings,
        store: AsyncStorageBackend,
        clock: Clock,
        directory: DirectoryHandle,
        owners: Owners,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._directory = directory
        self._owners = owners
        self._intake = TaskIntake(settings.agent_queue, store, clock, directory, owners)
        # What gathers while a call is under way is looked at together: ten thousand ends are few calls.
        self._ends: Gathering[TurnId, None] = Gathering("end-waits", self._end_waits)
        self._cancels: Gathering[TurnId, None] = Gathering("cancel-children", self._cancel_children)
        self._telling = asyncio.Semaphore(_TELL_PARALLEL)
        self._background = Background()

    async def close(self) -> None:
        await self._ends.stop()
        await self._cancels.stop()
        await self._background.stop()
        await self._intake.close()

    # -- for the tools -------------------------------------------------------------------------------------------

    async def spawn(self, context: ToolContext, request: AgentRequest) -> TaskRecord:
        """Start a child in a session of its own; the same child at each repetition of the call."""
        known = self._settings.llm.agents
        if request.agent is not None and request.agent not in known:
            raise ToolError(f"There is no agent named {request.agent!r}. Known: {', '.join(known) or 'none'}.")
        parent = await self._parent(context)
        queue, key = self._settings.agent_queue, _key(context)
        if parent.depth >= queue.max_child_depth:
            raise ToolError(f"Agents may be nested {queue.max_child_depth} deep (agent_queue.max_child_depth).")
        asked = request_of(parent)
        command = Submit(
            session_id=SessionId(f"ses_{key[:32]}"),
            user_id=parent.user_id,
            turn_id=TurnId(self._clock.new_id("turn")),
            content=request.task,
            create=True,
            title=title_of(request.task),
            agent_id=request.agent or asked.agent_id,
            model_name=None if request.agent else asked.model_name,
            tool_names=self._allowed(context, request.agent),
            config_overrides={} if request.agent else asked.config_overrides,
            idempotency_key=f"agent:{key}",
        )
        return await self._start(parent, command, parent.depth + 1)

    async def send(self, context: ToolContext, child_id: str, message: str) -> TaskRecord:
        """Another task for a child of this conversation, in the child's session, after what it does now."""
        parent, key = await self._parent(context), _key(context)
        child = await self._store.get_task(TurnId(child_id))
        starter = await self._store.get_task(child.parent_id) if child is not None and child.parent_id else None
        if child is None or starter is None or starter.session_id != parent.session_id:
            raise ToolError(f"This conversation has started no agent with the id {child_id[:100]!r}.")
        asked = request_of(child)
        command = msgspec.structs.replace(
            asked,
            turn_id=TurnId(self._clock.new_id("turn")),
            content=message,
            create=False,
            title="",
            attachments=(),
            idempotency_key=f"agent:{key}",
        )
        return await self._start(parent, command, child.depth)

    async def of(self, turn_id: str) -> list[TaskRecord]:
        """A turn's children in the order in which they were started."""
        return await self._store.list_children(TurnId(turn_id), limit=self._settings.agent_queue.max_children + 1)

    async def _parent(self, context: ToolContext) -> TaskRecord:
        parent = await self._store.get_task(TurnId(context.turn_id))
        if parent is None:
            raise ToolError("This turn is not there any more.")
        return parent

    def _allowed(self, context: ToolContext, agent: str | None) -> tuple[str, ...]:
        """A child never has a tool that its parent has not."""
        own = agent_of(self._settings, agent).tools if agent else ()
        return tuple(name for name in context.tools if not own or name in own)

    async def _start(self, parent: TaskRecord, command: Submit, depth: int) -> TaskRecord:
        children, most = await self.of(parent.turn_id), self._settings.agent_queue.max_children
        known = next((child for child in children if child.idempotency_key == command.idempotency_key), None)
        if known is not None:
            return known
        if len(children) >= most:
            raise ToolError(f"A turn may start {most} agents (agent_queue.max_children).")
        wanted = WantedTask(command=command, priority=parent.priority, parent_id=parent.turn_id, depth=depth)
        try:
            return (await self._intake.submit(wanted)).task
        except (UserQuotaExceeded, ServiceUnavailable) as error:
            raise ToolError(f"The agent could not be started: {error.message}.") from None

    # -- when turns end ------------------------------------------------------------------------------------------

    def suspended(self, turn_id: TurnId) -> None:
        """A turn waits from now on: a child that ended at the same moment may have missed it."""
        self._background.start(self._ends.ask(turn_id), f"wait-{turn_id}")

    def ended(self, task: TaskRecord, status: str) -> None:
        """Wake who waited for this turn; without success its own children are of no use any more."""
        if task.parent_id is not None:
            self._background.start(self._ends.ask(task.parent_id), f"ended-{task.turn_id}")
        if status != "succeeded":
            self._background.start(self._cancels.ask(task.turn_id), f"cancel-children-{task.turn_id}")

    async def sweep_once(self) -> None:
        """Do what a process that died had still to do."""
        if await self._store.end_waits(now_us=self._clock.now_us()):
            await self._directory.wake_pools()
        for turn_id, session_id in await self._store.stray_children(limit=_SWEEP_BATCH):
            await self._cancel(turn_id, session_id)

    async def _end_waits(self, turns: list[TurnId]) -> list[None]:
        woken = []
        for turn_id in dict.fromkeys(turns):
            try:
                session_id = await self._store.end_wait(turn_id, now_us=self._clock.now_us())
                woken += [session_id] if session_id is not None else []
            except WunderError as error:
                log.warning("wait_not_ended", turn=turn_id, message=error.message)
        await self._make_known(woken)
        return [None] * len(turns)

    async def _make_known(self, woken: list[SessionId]) -> None:
        if not woken:
            return
        try:
            if self._settings.agent_queue.enabled:
                await self._directory.wake_pools()
            else:
                for session_id in woken:
                    await self._owners.ask(session_id, PickUp(session_id=session_id), Done)
        except WunderError as error:
            log.warning("woken_not_told", message=error.message)

    async def _cancel_children(self, turns: list[TurnId]) -> list[None]:
        for turn_id in dict.fromkeys(turns):
            try:
                children = await self._store.cancel_children(turn_id)
            except WunderError as error:
                log.warning("children_not_cancelled", turn=turn_id, message=error.message)
                continue
            for child_id, session_id in children:
                self._background.start(self._cancel(child_id, session_id), f"cancel-{child_id}")
        return [None] * len(turns)

    async def _cancel(self, turn_id: TurnId, session_id: SessionId) -> None:
        command = CancelTurn(session_id=session_id, user_id=None, turn_id=turn_id)
        try:
            async with self._telling:
                await self._owners.ask(session_id, command, CancelReceipt)
        except WunderError as error:
            log.warning("child_not_cancelled", turn=turn_id, message=error.message)


def _key(context: ToolContext) -> str:
    """The same at each repetition of a call, and of one length whatever a model calls its calls."""
    return hashlib.sha256(context.key.encode()).hexdigest()


def child_view(child: TaskRecord, max_chars: int) -> dict[str, object]:
    """What a parent's model reads of a child."""
    view: dict[str, object] = {"id": child.turn_id, "status": child.shown_status}
    if child.status == "succeeded":
        answer = child.answer or ""
        view["answer"] = answer if len(answer) <= max_chars else f"{answer[:max_chars]}... (cut)"
    elif child.error is not None and child.status not in OPEN:
        view["error"] = msgspec.json.decode(child.error).get("message")
    return view
