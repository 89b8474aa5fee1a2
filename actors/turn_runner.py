"""Runs one turn of a session: announces and commits its steps, and records its end, whatever that is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from actors.cancellation import Cancelled
from actors.clock import Clock
from actors.errors import StaleEpoch, UpstreamError, WunderError
from actors.events import TERMINAL, encode_json
from actors.logs import log
from actors.messages import Submit
from actors.models.registry import Models
from actors.session import RunningTurn, Session
from actors.session_stream import Draft, SessionStream
from actors.settings import ActorSettings, AgentSettings
from actors.tools.registry import Tools
from actors.transcript import Unfinished, partial_message
from actors.turn import Announced, Finished, RoundDone, Spoken, Step, ToolDone, Turn, TurnInput, closing
from storage.records import EventRecord, MessageRecord, TaskRecord, TerminalStatus
from storage.store import AsyncStorageBackend


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What every session of a process shares."""

    settings: ActorSettings
    store: AsyncStorageBackend
    clock: Clock
    models: Models
    tools: Tools


class TurnRunner:
    """One running turn. `history` is the session's transcript in memory; it grows with what is committed."""

    def __init__(
        self,
        services: Services,
        session: Session,
        stream: SessionStream,
        history: list[dict[str, Any]],
        running: RunningTurn,
        *,
        begin: Unfinished,
    ) -> None:
        self._services = services
        self._session = session
        self._stream = stream
        self._history = history
        self._running = running
        self._begin = begin
        self._turn: Turn | None = None

    async def run(self) -> None:
        """To the end, which is recorded and announced; raises only when the session has to be given up."""
        try:
            self._running.token.raise_if_cancelled()
            self._turn = turn = Turn(self._input())
            async with closing(turn.run()) as steps:
                async for step in steps:
                    await self._apply(step)
        except Cancelled as cancelled:
            await self._finish(_cancel_status(cancelled.reason), error=None)
        except UpstreamError as error:
            await self._finish("failed", error=error)
        except WunderError as error:
            if error.retryable:
                raise
            await self._finish("failed", error=error)
        except Exception as error:
            log.exception("turn_failed", error, turn=self._running.turn_id)
            await self._finish("failed", error=WunderError("The turn failed for an internal reason."))

    async def give_up(self) -> None:
        """End a turn that took its owner down too often, so that it hurts nobody else."""
        error = WunderError(f"The turn was given up after {self._running.task.crashes} crashes.")
        await self._finish("failed", error=error)

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
            return await self._services.store.finish_turn(
                self._session.fence,
                running.turn_id,
                running.task.attempt,
                status=status,
                answer=answer,
                error=error,
                usage=usage,
                stop_reason=stop_reason,
                messages=records,
                events=rows,
                now_us=self._services.clock.now_us(),
            )

        if not await self._stream.commit([*drafts, terminal], write):
            return False
        self._committed(messages)
        running.status = status
        return True

    def _messages(self, number: int, bodies: list[dict[str, Any]]) -> list[MessageRecord]:
        now_us = self._services.clock.now_us()
        return [
            MessageRecord(
                session_id=self._session.session_id,
                position=self._session.next_position + index,
                turn_id=self._running.turn_id,
                round=number,
                role=body["role"],
                body=encode_json(body),
                created_us=now_us,
            )
            for index, body in enumerate(bodies)
        ]

    def _committed(self, bodies: list[dict[str, Any]]) -> None:
        self._session.next_position += len(bodies)
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
            usage=self._begin.usage,
        )

    def _say(self, kind: str, head: dict[str, Any], field: str, text: str) -> None:
        self._stream.say(self._running.turn_id, kind, head, field, text)


def request_of(task: TaskRecord) -> Submit:
    """The command that was accepted as this task."""
    return msgspec.json.decode(task.request, type=Submit)


def agent_of(settings: ActorSettings, agent_id: str | None) -> AgentSettings:
    """The agent's settings; the gateway has refused unknown ones."""
    return settings.llm.agents.get(agent_id or "", AgentSettings())


def _cancel_status(reason: str) -> TerminalStatus:
    return "interrupted" if reason == "interrupted" else "cancelled"
