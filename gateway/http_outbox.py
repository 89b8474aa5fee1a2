"""HTTP handlers of /wunder/admin/outbox: look at deliveries, send them again, drop them. For administrators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, get_args

import msgspec
from aiohttp import web

from actors.clock import Clock
from actors.errors import Conflict, InvalidRequest, NotFound
from actors.handles import DirectoryHandle
from gateway.auth import Auth
from gateway.http_chat import number
from gateway.http_common import ok, read_json
from gateway.pages import next_cursor, page_cursor, time_of
from gateway.protocol import OutboxBody
from storage.outbox_records import OutboxAttempt, OutboxFilter, OutboxItem, OutboxState
from storage.store import AsyncStorageBackend

_STATES = get_args(OutboxState)
_BATCH = 100
Ids = list[str]
Change = Callable[[Ids], Awaitable[Ids]]


class OutboxHandlers:
    """What the outbox routes need."""

    def __init__(self, store: AsyncStorageBackend, auth: Auth, directory: DirectoryHandle, clock: Clock) -> None:
        self._store = store
        self._auth = auth
        self._directory = directory
        self._clock = clock

    async def list(self, request: web.Request) -> web.Response:
        await self._authorize(request)
        query = request.query
        wanted = _filter(query.get("state"), query.get("channel"), query.get("account"))
        limit = number(query, "limit", default=50, low=1, high=200)
        items = await self._store.list_outbox(wanted, before=page_cursor(query.get("cursor")), limit=limit)
        following = next_cursor(items[-1].created_us, items[-1].delivery_id) if len(items) == limit else None
        return ok({"items": [delivery_view(item) for item in items], "next": following})

    async def inspect(self, request: web.Request) -> web.Response:
        await self._authorize(request)
        item = await self._named(request)
        attempts = await self._store.outbox_attempts(item.delivery_id)
        shown = {**delivery_view(item), "body": body_view(item.body)}
        return ok({**shown, "attempts": [attempt_view(attempt) for attempt in attempts]})

    async def retry_one(self, request: web.Request) -> web.Response:
        await self._authorize(request)
        return await self._change_one(request, self._retry, "it is being sent now")

    async def drop_one(self, request: web.Request) -> web.Response:
        await self._authorize(request)
        return await self._change_one(request, self._drop, "only one that waits, or is dead, can be dropped")

    async def retry_many(self, request: web.Request) -> web.Response:
        await self._authorize(request)
        return await self._change_many(await read_json(request, OutboxBody), self._retry)

    async def drop_many(self, request: web.Request) -> web.Response:
        await self._authorize(request)
        return await self._change_many(await read_json(request, OutboxBody), self._drop)

    async def _authorize(self, request: web.Request) -> None:
        self._auth.require_admin(await self._auth.authenticate(request))

    async def _named(self, request: web.Request) -> OutboxItem:
        item = await self._store.get_outbox(request.match_info["delivery_id"])
        if item is None:
            raise NotFound("there is no such delivery")
        return item

    async def _retry(self, delivery_ids: Ids) -> Ids:
        changed = await self._store.retry_outbox(delivery_ids, now_us=self._clock.now_us())
        self._directory.ring_outboxes()
        return changed

    async def _drop(self, delivery_ids: Ids) -> Ids:
        changed = await self._store.drop_outbox(delivery_ids, now_us=self._clock.now_us())
        self._directory.ring_outboxes()  # what waited behind it may go
        return changed

    async def _change_one(self, request: web.Request, change: Change, otherwise: str) -> web.Response:
        item = await self._named(request)
        if not await change([item.delivery_id]):
            raise Conflict(f"delivery_id: {otherwise}; this one is {item.state}", field="delivery_id")
        return ok(delivery_view(await self._named(request)))

    async def _change_many(self, body: OutboxBody, change: Change) -> web.Response:
        """Those that are named, or the newest that fit; `more` says that others may fit."""
        chosen, more = [*(body.delivery_ids or ())], False
        if body.delivery_ids is None:
            if body.state is None:
                raise InvalidRequest("state: expected a state, or delivery_ids", field="state")
            wanted = _filter(body.state, body.channel, body.account)
            found = await self._store.list_outbox(wanted, before=None, limit=body.limit)
            chosen, more = [item.delivery_id for item in found], len(found) == body.limit
        changed: Ids = []
        for start in range(0, len(chosen), _BATCH):
            changed += await change(chosen[start : start + _BATCH])
        return ok({"delivery_ids": changed, "more": more})


def delivery_view(item: OutboxItem) -> dict[str, Any]:
    """A delivery as the API shows it."""
    return {
        "delivery_id": item.delivery_id,
        "channel": item.channel,
        "account": item.account,
        "peer": item.peer,
        "task_id": item.turn_id,
        "state": item.state,
        "attempt": item.attempt,
        "failures": item.failures,
        "code": item.code,
        "due_at": time_of(item.due_us) if item.state == "pending" else None,
        "created_at": time_of(item.created_us),
        "first_attempt_at": time_of(item.first_us),
        "finished_at": time_of(item.finished_us),
    }


def attempt_view(attempt: OutboxAttempt) -> dict[str, Any]:
    """An attempt as the API shows it; `detail` is the head of the answer."""
    return {
        "attempt": attempt.attempt,
        "outcome": attempt.outcome,
        "status": attempt.status,
        "code": attempt.code,
        "detail": attempt.detail,
        "started_at": time_of(attempt.started_us),
        "finished_at": time_of(attempt.finished_us),
    }


def body_view(body: bytes) -> Any:
    """What is sent, without the secret that signs it, sealed or not."""
    try:
        shown = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return {name: value for name, value in shown.items() if name != "secret"} if isinstance(shown, dict) else shown


def _filter(state: str | None, channel: str | None, account: str | None) -> OutboxFilter:
    if state is not None and state not in _STATES:
        raise InvalidRequest(f"state: expected one of {', '.join(_STATES)}, got {state[:40]!r}", field="state")
    return OutboxFilter(state=state, channel=channel, account=account)  # type: ignore[arg-type]
