"""Runs one turn of a session: announces and commits its steps, and records its end, whatever that is."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from actors.cancellation import Cancelled
from actors.children import Children
from actors.clock import Clock, isoformat
from actors.completion_webhooks import completion_of, finish_in_store
from actors.errors import StaleEpoch, UpstreamError, WunderError
from actors.events import TERMINAL, encode_json
from actors.gathering import Gathering
from actors.logs import log
from actors.models.registry import Models
from actors.session import RunningTurn, Session
from actors.session_stream import Draft, SessionStream
from actors.settings import ActorSettings
from actors.task_request import agent_of, request_of
from actors.tools.registry import Tools
from actors.transcript import Unfinished, partial_message
from actors.turn import Announced, Finished, RoundDone, Spoken, Step, ToolDone, Turn, TurnInput, Waiting, closing
from storage.queue_writer import FinishedTurn
from storage.records import EventRecord, Fence, MessageRecord, TerminalStatus
from storage.store import AsyncStorageBackend
from storage.turn_writer import Completion

FinishTurn = Callable[[Fence, Completion, Sequence[MessageRecord], Sequence[EventRecord]], Awaitable[bool]]
"""Records the end of a turn with its last messages and events; False if it is not running at its attempt."""

FinishLine = Gathering[FinishedTurn, bool]
"""Ends of turns that leave their sessions: many are recorded at a time."""


RETRIED = "retried"
SUSPENDED = "suspended"
"""How a run ended that did not end its turn: it failed and comes again, or it waits for others."""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What every session of a process shares; `ended` counts its turns by how they ended."""

    settings: ActorSettings
    store: AsyncStorageBackend
    clock: Clock
    models: Models
    tools: Tools
    children: Children
    ended: Counter[str] = msgspec.field(default_factory=Counter)


class TurnRunner:
    """One running turn. `history` is the session's transcript in memory; it grows with what is committed.

    `opening` are messages at the end of it that are not recorded yet: they go with the first commit. `finish` records
    the end of the turn; `posted` says that something is to be sent because of it.
    """

    def __init__(
        self,
        services: Services,
        session: Session,
        stream: SessionStream,
        history: list[dict[str, Any]],
        running: RunningTurn,
        *,
        begin: Unfinished,
        opening: Sequence[dict[str, Any]] = (),
        finish: FinishTurn | None = None,
    ) -> None:
        self._services = services
        self._session = session
        self._stream = stream
        self._history = history
        self._running = running
        self._begin = begin
        self._opening = list(opening)
        self._finish_turn = finish or self._finish_in_store
        self._turn: Turn | None = None
        self._durable_seq = stream.numbers.last
        self.posted = False

    async def run(self) -> None:
        """To the end, which is recorded and announced; raises only when the session has to be given up."""
        try:
            self._running.token.raise_if_cancelled()
            self._turn = turn = Turn(self._input())
            async with closing(turn.run()) as steps:
                async for step in steps:
                    if isinstance(step, Waiting):
                        await self._suspend(step)
                        return
                    await self._apply(step)
        except Cancelled as cancelled:
            await self._finish(_cancel_status(cancelled.reason), error=None)
        except UpstreamError as error:
            await self._fail(error)
        except WunderError as error:
            if error.retryable:
                raise
            await self._finish("failed", error=error)
        except Exception as error:
            log.exception("turn_failed", error, turn=self._running.turn_id)
            await self._finish("failed", error=WunderError("The turn failed for an internal reason."))

    async def give_up(self, why: str) -> None:
        """End a turn without running it, so that it hurts nobody else; a background task is `dead` then."""
        await self._finish("dead" if self._running.task.origin == "task" else "failed", error=WunderError(why))

    async def _fail(self, error: WunderError) -> None:
        """A background task is tried again while it has attempts left; what can never succeed is not."""
        task = self._running.task
        if task.origin != "task" or not error.retryable:
            await self._finish("failed", error=error)
        elif task.failures + 1 >= task.max_attempts:
            await self._finish("dead", error=error)
        elif not await self._retry(error):
            await self._finish("failed", error=error)  # a cancel was requested meanwhile: it is recorded as that

    async def _retry(self, error: WunderError) -> bool:
        task, queue, clock = self._running.task, self._services.settings.agent_queue, self._services.clock
        most_ms = min(queue.retry_base_ms * 2.0**task.failures, queue.retry_max_ms)
        delay_s = random.random() * most_ms / 1000  # noqa: S311 - jitter is no secret
        failure = {"code": error.code, "message": error.message}
        data = {"attempt": task.failures + 1, "max_attempts": task.max_attempts, "delay_s": round(delay_s, 3)}
        taken_back = {"to_event_id": self._durable_seq, "reason": "task_retry"}
        drafts = [
            Draft("task_retry", task.turn_id, {**data, "error": failure}),
            Draft("rewind", task.turn_id, taken_back),
        ]

        async def write(rows: Sequence[EventRecord]) -> bool:
            return await self._services.store.retry_turn(
                self._session.fence,
                task,
                run_at_us=clock.now_us() + round(delay_s * 1e6),
                error=encode_json(failure),
                messages=self._messages(0, []),
                events=rows,
                now_us=clock.now_us(),
            )

        if self._running.token.reason is not None or not await self._stream.commit(drafts, write):
            self._running.token.cancel()
            return False
        self._committed([])
        self._running.status = RETRIED
        self._services.ended[RETRIED] += 1
        return True

    async def _suspend(self, step: Waiting) -> None:
        """Record that the turn waits: it keeps its place in the session, and holds nothing else."""
        task, now_us = self._running.task, self._services.clock.now_us()
        shown = {**step.shown, "until": isoformat(step.until_us)}

        async def write(rows: Sequence[EventRecord]) -> bool:
            return await self._services.store.suspend_turn(
                self._session.fence,
                task,
                waits_for=step.waits_for,
                shown=encode_json(shown),
                until_us=step.until_us,
                events=rows,
                now_us=now_us,
            )

        self._running.token.raise_if_cancelled()
        if not await self._stream.commit([Draft("turn_waiting", task.turn_id, shown)], write):
            # Another process recorded a cancel in the turn's row, or has the turn: the end's commit tells which.
            self._running.token.cancel()
            raise Cancelled("cancelled")
        self._running.status = SUSPENDED
        self._services.ended[SUSPENDED] += 1

    async def _apply(self, step: Step) -> None:
        if type(step) is Spoken:
            await self._stream.room()
            head = {"model_round": step.round}
            self._stream.delta(self._running.turn_id, "llm_output_delta", head, step.field, step.text)
        elif isinstance(step, Announced):
            await self._stream.room()
            self._stream.announce(Draft(step.kind, self._running.turn_id, step.data))
        elif isinstance(step, RoundDone | ToolDone):
            await self._commit(step.round, step.message, step.events)
        elif isinstance(step, Finished):
            await self._succeed(step)

    async def _commit(
        self, number: int, message: dict[str, Any], events: tuple[tuple[str, dict[str, Any]], ...]
    ) -> None:
        records = self._messages(number, [message])

        async def write(rows: Sequence[EventRecord]) -> bool:
            self._durable_seq = rows[-1].seq
            return await self._services.store.commit_round(
                self._session.fence,
                self._running.turn_id,
                self._running.task.attempt,
                round=number,
                messages=records,
                events=rows,
            )

        drafts = [Draft(kind, self._running.turn_id, data) for kind, data in events]
        if not await self._stream.commit(drafts, write):
            raise StaleEpoch("the turn is not this owner's any more")
        self._committed([message])

    async def _succeed(self, step: Finished) -> None:
        if self._running.token.reason is not None:
            raise Cancelled(self._running.token.reason)
        drafts = [Draft(kind, self._running.turn_id, data) for kind, data in step.events]
        messages = [step.message] if step.message else []
        recorded = await self._record(
            "succeeded",
            drafts,
            messages,
            number=step.round,
            answer=step.answer,
            stop_reason=step.stop_reason,
            usage=encode_json(msgspec.to_builtins(step.usage)),
        )
        if not recorded:
            # Another process recorded a cancel in the turn's row: it was answered, so it holds.
            self._running.finishing = False
            self._running.token.cancel()
            raise Cancelled("cancelled")

    async def _finish(self, status: TerminalStatus, *, error: WunderError | None) -> None:
        """Record an end without an answer; what the model had said is kept, marked as partial."""
        drafts = []
        failure = None
        if self._running.token.reason is not None:
            # Its cancel was answered, so it holds, even if it showed as a broken connection.
            status, error = _cancel_status(self._running.token.reason), None
        if error is not None:
            failure = {"code": error.code, "message": error.message}
            drafts.append(Draft("error", self._running.turn_id, {**failure, "detail": error.detail}))
        turn = self._turn
        messages, usage, number = [], None, self._begin.next_round
        if turn is not None:
            number = turn.round
            usage = encode_json(msgspec.to_builtins(turn.usage))
            if turn.partial or turn.reasoning:
                messages.append(partial_message("".join(turn.partial), "".join(turn.reasoning)))
        recorded = await self._record(
            status,
            drafts,
            messages,
            number=number,
            answer=None,
            stop_reason=status,
            usage=usage,
            error=encode_json(failure) if failure else None,
        )
        if not recorded:
            raise StaleEpoch("the turn is not this owner's any more")

    async def _record(
        self,
        status: TerminalStatus,
        drafts: list[Draft],
        messages: list[dict[str, Any]],
        *,
        number: int,
        answer: str | None,
        stop_reason: str,
        usage: bytes | None,
        error: bytes | None = None,
    ) -> bool:
        running = self._running
        running.finishing = True
        records = self._messages(number, messages)
        terminal = Draft(TERMINAL, running.turn_id, {"status": status, "stop_reason": stop_reason})

        async def write(rows: Sequence[EventRecord]) -> bool:
            end = completion_of(
                running.task,
                status,
                now_us=self._services.clock.now_us(),
                stop_reason=stop_reason,
                answer=answer,
                error=error,
                usage=usage,
            )
            self.posted = bool(end.outbox)
            return await self._finish_turn(self._session.fence, end, records, rows)

        if not await self._stream.commit([*drafts, terminal], write):
            return False
        self._committed(messages)
        running.status = status
        self._services.ended[status] += 1
        return True

    async def _finish_in_store(
        self, fence: Fence, end: Completion, messages: Sequence[MessageRecord], events: Sequence[EventRecord]
    ) -> bool:
        return await finish_in_store(self._services.store, fence, end, messages, events)

    def _messages(self, number: int, bodies: list[dict[str, Any]]) -> list[MessageRecord]:
        now_us = self._services.clock.now_us()
        numbered = [*((0, body) for body in self._opening), *((number, body) for body in bodies)]
        return [
            MessageRecord(
                session_id=self._session.session_id,
                position=self._session.next_position + index,
                turn_id=self._running.turn_id,
                round=round_,
                role=body["role"],
                body=encode_json(body),
                created_us=now_us,
            )
            for index, (round_, body) in enumerate(numbered)
        ]

    def _committed(self, bodies: list[dict[str, Any]]) -> None:
        self._session.next_position += len(self._opening) + len(bodies)
        self._opening = []
        self._history.extend(bodies)
        excess = len(self._history) - self._services.settings.sessions.max_history_messages
        if excess > 0:
            question = next((i for i in range(len(self._history) - 1, -1, -1) if self._history[i]["role"] == "user"), 0)
            del self._history[: min(excess, question)]

    def _input(self) -> TurnInput:
        services, session = self._services, self._session
        submit = request_of(self._running.task)
        agent = agent_of(services.settings, submit.agent_id or session.agent_id)
        overrides = submit.config_overrides
        model = services.models.get(submit.model_name or agent.model or None)
        names = submit.tool_names if submit.tool_names is not None else (agent.tools or None)
        specs = services.tools.specs(names)
        offered = {spec.name for spec in specs}
        return TurnInput(
            session_id=session.session_id,
            turn_id=self._running.turn_id,
            user_id=session.user_id,
            model=model,
            specs=specs,
            find_tool=lambda name: services.tools.get(name) if name in offered else None,
            history=self._history,
            system_prompt=overrides.get("system_prompt", agent.system_prompt or services.settings.llm.system_prompt),
            token=self._running.token,
            say=self._say,
            max_rounds=overrides.get("max_rounds", model.max_rounds),
            max_result_bytes=services.settings.tools.max_result_bytes,
            temperature=overrides.get("temperature"),
            max_output=overrides.get("max_output"),
            first_round=self._begin.next_round,
            open_calls=self._begin.open_calls,
            asked_us=self._begin.asked_us,
            usage=self._begin.usage,
        )

    def _say(self, kind: str, head: dict[str, Any], field: str, text: str) -> None:
        self._stream.say(self._running.turn_id, kind, head, field, text)


def _cancel_status(reason: str) -> TerminalStatus:
    return "interrupted" if reason == "interrupted" else "cancelled"
