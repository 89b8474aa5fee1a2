"""HTTP handlers of /wunder/tasks: submit, list, inspect, cancel, retry."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
from aiohttp import web

from actors.errors import InvalidRequest, NotFound
from gateway.auth import Auth, Principal
from gateway.http_chat import identifier, number
from gateway.http_common import ok, read_json
from gateway.pages import next_cursor, page_cursor, time_of
from gateway.protocol import AnswerBody, TaskBody
from gateway.tasks import Tasks
from gateway.turns import Turns
from storage.records import AttemptRecord, SessionId, ShownStatus, TaskRecord, TurnId
from storage.store import AsyncStorageBackend

_STATUSES = get_args(ShownStatus)
_MOST_CHILDREN = 1000


class TaskHandlers:
    """What the task routes need."""

    def __init__(self, store: AsyncStorageBackend, auth: Auth, tasks: Tasks, turns: Turns) -> None:
        self._store = store
        self._auth = auth
        self._tasks = tasks
        self._turns = turns

    async def submit(self, request: web.Request) -> web.Response:
        principal = await self._auth.authenticate(request)
        body = await read_json(request, TaskBody)
        recorded = await self._tasks.submit(self._auth.acting_user(principal, body.user_id), body)
        task = recorded.task
        data = {
            "task_id": task.turn_id,
            "session_id": task.session_id,
            "status": task.shown_status,
            "position": recorded.position,
        }
        return ok(data, 202)

    async def list(self, request: web.Request) -> web.Response:
        principal = await self._auth.authenticate(request)
        query = request.query
        status = query.get("status")
        if status is not None and status not in _STATUSES:
            known = ", ".join(_STATUSES)
            raise InvalidRequest(f"status: expected one of {known}, got {status[:40]!r}", field="status")
        session_id = identifier(query, "session_id")
        everybody = principal.is_admin and query.get("user_id") == "*"
        tasks = await self._store.list_tasks(
            None if everybody else self._auth.acting_user(principal, query.get("user_id")),
            status=status,
            session_id=SessionId(session_id) if session_id else None,
            before=page_cursor(query.get("cursor")),
            limit=(limit := number(query, "limit", default=50, low=1, high=200)),
        )
        following = next_cursor(tasks[-1].created_us, tasks[-1].turn_id) if len(tasks) == limit else None
        return ok({"items": [task_view(task) for task in tasks], "next": following})

    async def inspect(self, request: web.Request) -> web.Response:
        task = await self._visible(request, await self._auth.authenticate(request))
        attempts = await self._store.list_attempts(task.turn_id)
        children = await self._store.list_children(task.turn_id, limit=_MOST_CHILDREN)
        shown = [{"task_id": child.turn_id, "status": child.shown_status} for child in children]
        return ok({**task_view(task), "attempts": attempts_view(task, attempts), "children": shown})

    async def cancel(self, request: web.Request) -> web.Response:
        task = await self._visible(request, await self._auth.authenticate(request))
        receipt = await self._turns.cancel(task.session_id, task.user_id, task.turn_id)
        return ok({"cancelled": receipt.cancelled, "task_id": task.turn_id, "status": receipt.status or task.status})

    async def answer(self, request: web.Request) -> web.Response:
        principal = await self._auth.authenticate(request)
        task = await self._visible(request, principal)
        body = await read_json(request, AnswerBody)
        answered = await self._tasks.answer(task, principal.user_id, body.call_id, body.answer)
        return ok(task_view(answered), 202)

    async def retry(self, request: web.Request) -> web.Response:
        task = await self._visible(request, await self._auth.authenticate(request))
        return ok(task_view(await self._tasks.retry(task)), 202)

    async def _visible(self, request: web.Request, principal: Principal) -> TaskRecord:
        """The task in the path; for anybody else it does not exist."""
        task = await self._store.get_task(TurnId(request.match_info["task_id"]))
        if task is None or not principal.may_see(task.user_id):
            raise NotFound("there is no such task")
        return task


def task_view(task: TaskRecord) -> dict[str, Any]:
    """A task as the API shows it."""
    return {
        "task_id": task.turn_id,
        "session_id": task.session_id,
        "user_id": task.user_id,
        "origin": task.origin,
        "status": task.shown_status,
        "parent_id": task.parent_id,
        "waiting": msgspec.Raw(task.waiting) if task.waiting and task.shown_status == "waiting" else None,
        "priority": task.priority,
        "attempt": task.attempt,
        "max_attempts": task.max_attempts,
        "crashes": task.crashes,
        "answer": task.answer,
        "error": msgspec.Raw(task.error) if task.error else None,
        "usage": msgspec.Raw(task.usage) if task.usage else None,
        "stop_reason": task.stop_reason,
        "run_at": time_of(task.run_at_us),
        "created_at": time_of(task.created_us),
        "started_at": time_of(task.started_us),
        "finished_at": time_of(task.finished_us),
    }


def attempts_view(task: TaskRecord, attempts: list[AttemptRecord]) -> list[dict[str, Any]]:
    """Every attempt, the last one as the task tells it."""
    found = [
        {
            "attempt": attempt.attempt,
            "outcome": attempt.outcome,
            "error": msgspec.Raw(attempt.error) if attempt.error else None,
            "started_at": time_of(attempt.started_us),
            "finished_at": time_of(attempt.finished_us),
        }
        for attempt in attempts
    ]
    if task.attempt and task.attempt not in {attempt.attempt for attempt in attempts}:
        last = {
            "attempt": task.attempt,
            "outcome": task.shown_status,
            "error": msgspec.Raw(task.error) if task.error else None,
        }
        found.append({**last, "started_at": time_of(task.started_us), "finished_at": time_of(task.finished_us)})
    return found
