"""What a task's `request` says: the accepted command, its question, its agent; and how a command becomes a task."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from actors.events import encode_json
from actors.messages import Submit
from actors.settings import ActorSettings, AgentQueueSettings, AgentSettings
from actors.transcript import title_of, user_message
from storage.records import NewTask, SessionRecord, TaskRecord


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
    )


def background_task(
    command: Submit,
    settings: AgentQueueSettings,
    *,
    position: int,
    now_us: int,
    run_at_us: int | None = None,
    priority: int = 0,
    max_attempts: int | None = None,
) -> NewTask:
    """A command as a task for the queue; with `command.create` its session comes with it."""
    later = run_at_us is not None and run_at_us > now_us
    task = msgspec.structs.replace(
        task_of(command, "queued", 0, now_us),
        origin="task",
        priority=priority,
        run_at_us=run_at_us if later else None,
        max_attempts=max_attempts or settings.max_retries + 1,
    )
    session = None
    if command.create:
        session = SessionRecord(
            session_id=command.session_id,
            user_id=command.user_id,
            title=command.title or title_of(command.content),
            agent_id=command.agent_id,
            created_us=now_us,
            updated_us=now_us,
        )
    event = encode_json({"position": position, "reason": "run_at" if later else "background"})
    return NewTask(task=task, session=session, event=event)


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
