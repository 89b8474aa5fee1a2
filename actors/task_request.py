"""What a task's `request` says: the accepted command, its question, its agent; and how a command becomes a task."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from actors.events import encode_json
from actors.messages import Submit
from actors.settings import ActorSettings, AgentSettings
from actors.transcript import user_message
from storage.records import TaskRecord


def task_of(command: Submit, status: Literal["queued", "running"], after: int, now_us: int) -> TaskRecord:
    """The task of a command; `after` is the event number before its first."""
    running = status == "running"
    return TaskRecord(
        turn_id=command.turn_id,
        session_id=command.session_id,
        user_id=command.user_id,
        status=status,
        attempt=1 if running else 0,
        request=encode_json({**msgspec.to_builtins(command), "after": after}),
        idempotency_key=command.idempotency_key,
        created_us=now_us,
        started_us=now_us if running else None,
        attempt_started_us=now_us if running else None,
    )


def request_of(task: TaskRecord) -> Submit:
    """The command that was accepted as this task."""
    return msgspec.json.decode(task.request, type=Submit)


def agent_of(settings: ActorSettings, agent_id: str | None) -> AgentSettings:
    """The agent's settings; the gateway has refused unknown ones."""
    return settings.llm.agents.get(agent_id or "", AgentSettings())


def question_of(task: TaskRecord) -> dict[str, Any]:
    """The message that the task asks with."""
    command = request_of(task)
    return user_message(command.content, command.attachments)


def request_cursor(task: TaskRecord) -> int:
    """The event number before the turn's first."""
    return int(msgspec.json.decode(task.request).get("after", 0))


def hopeless(task: TaskRecord, settings: ActorSettings, now_us: int) -> str | None:
    """Why a turn is not run (again), if it is not."""
    if task.crashes > settings.sessions.max_crashes:
        return f"The turn was given up after {task.crashes} crashes."
    waited_s, ttl_s = (now_us - task.created_us) / 1e6, settings.agent_queue.task_ttl_s
    if task.origin == "task" and task.attempt == 1 and task.run_at_us is None and 0 < ttl_s < waited_s:
        return f"The task waited for {waited_s:.0f} s, longer than agent_queue.task_ttl_s."
    return None
