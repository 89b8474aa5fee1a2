"""HTTP handlers of /wunder/tasks: submit, list, inspect, cancel, retry."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
from aiohttp import web

from actors.errors import InvalidRequest, NotFound
from gateway.auth import Auth, Principal
from gateway.channel_replies import ChannelReplies
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

    def __init__(
        self, store: AsyncStorageBackend, auth: Auth, tasks: Tasks, turns: Turns, replies: ChannelReplies
    ) -> None:
        self._store = store
        self._auth = auth
        self._tasks = tasks
        self._turns = turns
        self._replies = replies

    async def submit(self, request: web.Request) -> web.Response:
        principal = await self._auth.authenticate(request)
        body = await read_json(request, TaskBody)
        user_id, reply = self._auth.acting_user(principal, body.user_id), None
        if body.reply is not None:
            self._auth.require_admin(principal)
            reply = await self._replies.accepted(body.reply)
        recorded = await self._tasks.submit(user_id, body, reply)
        task = recorded.task
        data = {
            "task_id": task.turn_id,
            "session_id": task.session_id,
            "status": task.shown_status,
            "position": recorded.position,
            "estimated_wait_s": recorded.estimated_wait_s,
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
        position, wait_s = await self._tasks.place(task)
        place = {"position": position, "estimated_wait_s": wait_s}
        return ok({**task_view(task), **place, "attempts": attempts_view(task, attempts), "children": shown})

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
    """Every attempt, the last one as the task tells it while no other may follow."""
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
    last_is_open = task.attempt > 0 and task.shown_status != "queued"
    if last_is_open and task.attempt not in {attempt.attempt for attempt in attempts}:
        last = {
            "attempt": task.attempt,
            "outcome": task.shown_status,
            "error": msgspec.Raw(task.error) if task.error else None,
        }
        found.append({**last, "started_at": time_of(task.attempt_started_us), "finished_at": time_of(task.finished_us)})
    return found
