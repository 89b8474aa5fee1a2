"""Schedules for tests, with only what a test cares about."""

from __future__ import annotations

from typing import Any

from storage.records import NewTask, SessionId, SessionRecord, TaskRecord, TurnId, UserId
from storage.schedule_records import Firing, ScheduleId, ScheduleRecord

SECOND = 1_000_000
USER = UserId("u1")


def a_schedule(schedule_id: str = "sch_1", **fields: Any) -> ScheduleRecord:
    """Every ten seconds from 0, unless the test says otherwise."""
    values: dict[str, Any] = {
        "user_id": USER,
        "name": "",
        "kind": "every",
        "expression": "10",
        "zone": "UTC",
        "anchor_us": 0,
        "request": b'{"question":"echo hi"}',
        "grace_us": 60 * SECOND,
        "next_run_us": 10 * SECOND,
        "created_us": 1,
        "updated_us": 1,
        **fields,
    }
    return ScheduleRecord(schedule_id=ScheduleId(schedule_id), **values)


def a_run(turn_id: str, session_id: str = "", *, key: str | None = None, user_id: str = USER) -> NewTask:
    """A task, in a session of its own unless one is named."""
    own = SessionId(session_id or f"ses_{turn_id}")
    task = TaskRecord(
        turn_id=TurnId(turn_id),
        session_id=own,
        user_id=UserId(user_id),
        status="queued",
        request=b"{}",
        idempotency_key=key,
        created_us=5,
        origin="task",
    )
    session = None
    if not session_id:
        session = SessionRecord(session_id=own, user_id=UserId(user_id), created_us=5, updated_us=5)
    return NewTask(task=task, session=session, event=b'{"position":1,"reason":"background"}')


def a_firing(schedule: ScheduleRecord, turn_id: str, **fields: Any) -> Firing:
    """Run what is due and go on ten seconds later."""
    due_us = schedule.next_run_us
    assert due_us is not None
    values: dict[str, Any] = {
        "due_us": due_us,
        "next_run_us": due_us + 10 * SECOND,
        "item": a_run(turn_id, schedule.session_id or "", key=f"schedule:{schedule.schedule_id}:{due_us}"),
        **fields,
    }
    return Firing(schedule=schedule, **values)
