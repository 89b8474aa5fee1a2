"""What each run of a schedule asks: its `request`, and how a run becomes a task."""

from __future__ import annotations

from typing import Any

import msgspec

from actors.clock import Clock
from actors.messages import Submit
from actors.task_intake import WantedTask
from actors.transcript import title_of
from storage.records import SessionId, TurnId
from storage.schedule_records import ScheduleRecord


class ScheduledTask(msgspec.Struct, frozen=True, kw_only=True):
    """The body of each task: what `POST /wunder/tasks` takes, without session and time."""

    question: str
    agent_id: str | None = None
    model_name: str | None = None
    tool_names: tuple[str, ...] | None = None
    attachments: tuple[dict[str, Any], ...] = ()
    config_overrides: dict[str, Any] = {}
    priority: int = 0
    max_attempts: int | None = None


def request_of(schedule: ScheduleRecord) -> ScheduledTask:
    """What each run asks."""
    return msgspec.json.decode(schedule.request, type=ScheduledTask)


def run_of(schedule: ScheduleRecord, due_us: int | None, clock: Clock) -> WantedTask:
    """The task for one due time (without one: a run by hand). Its key keeps a due time from becoming two tasks."""
    request = request_of(schedule)
    create = schedule.session_id is None
    command = Submit(
        session_id=schedule.session_id or SessionId(clock.new_id("ses")),
        user_id=schedule.user_id,
        turn_id=TurnId(clock.new_id("turn")),
        content=request.question,
        create=create,
        title=(schedule.name or title_of(request.question)) if create else "",
        agent_id=request.agent_id,
        model_name=request.model_name,
        tool_names=request.tool_names,
        attachments=request.attachments,
        config_overrides=request.config_overrides,
        idempotency_key=None if due_us is None else f"schedule:{schedule.schedule_id}:{due_us}",
    )
    return WantedTask(command=command, priority=request.priority, max_attempts=request.max_attempts or 0)
