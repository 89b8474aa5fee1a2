"""HTTP handlers of /wunder and /wunder/chat: questions, sessions, messages, resume, events, cancel."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec
from aiohttp import web

from actors.clock import Clock
from actors.errors import (
    InvalidRequest,
    ServiceUnavailable,
    SessionNotFound,
    StorageError,
    UpstreamError,
    UpstreamTimeout,
    WunderError,
)
from actors.events import encode_json
from actors.messages import DropSession, ReadBuffer
from actors.owners import Owners
from actors.replies import Buffered, Done, Event
from gateway.answers import Wait
from gateway.auth import Auth, Principal
from gateway.connections import Connections
from gateway.http_common import json_response, ok, read_json
from gateway.protocol import (
    AskBody,
    CancelBody,
    CreateSessionBody,
    MessageBody,
    TurnOptions,
    UpdateSessionBody,
    cursor,
)
from gateway.settings import Settings
from gateway.sse import EventStream
from gateway.topics import Topics
from gateway.turns import Started, Turns
from gateway.views import event_view, impossible, message_view, queued_view, session_view, with_gaps
from storage.records import (
    SessionId,
    SessionRecord,
    TaskRecord,
    UserId,
)
from storage.store import AsyncStorageBackend

_RUNNING = ("queued", "running")
_ID = re.compile(r"[A-Za-z0-9_.:@-]{1,128}")


class ChatHandlers:
    """What the chat routes need."""

    def __init__(
        self,
        settings: Settings,
        store: AsyncStorageBackend,
        clock: Clock,
        auth: Auth,
        connections: Connections,
        topics: Topics,
        turns: Turns,
        owners: Owners,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._auth = auth
        self._connections = connections
        self._topics = topics
        self._turns = turns
        self._owners = owners

    # -- turns ---------------------------------------------------------------------------------------------------

    async def ask(self, request: web.Request) -> web.StreamResponse:
        principal = await self._auth.authenticate(request)
        body = await read_json(request, AskBody)
        user_id = self._auth.acting_user(principal, body.user_id)
        self._check_room(request, principal)
        started = await self._start(user_id, body.question, body, session_id=body.session_id, agent_id=body.agent_id)
        return await self._answer(request, principal, started, stream=body.stream)

    async def post_message(self, request: web.Request) -> web.StreamResponse:
        principal = await self._auth.authenticate(request)
        body = await read_json(request, MessageBody)
        session = await self._visible(request, principal)
        if principal.via != "api_key" and principal.user_id != session.user_id:
            # A turn runs as its session's owner: administrators may look at it, and speak in their own.
            raise SessionNotFound("there is no such session")
        self._check_room(request, principal)
        started = await self._start(session.user_id, body.content, body, session_id=session.session_id, agent_id=None)
        return await self._answer(request, principal, started, stream=body.stream)

    async def _start(
        self,
        user_id: UserId,
        content: str,
        options: TurnOptions,
        *,
        session_id: str | None,
        agent_id: str | None,
    ) -> Started:
        self._check_serving()
        return await self._turns.start(user_id, content, options, session_id=session_id, agent_id=agent_id)

    async def _answer(
        self, request: web.Request, principal: Principal, started: Started, *, stream: bool
    ) -> web.StreamResponse:
        submitted = started.submitted
        if stream:
            limits = {
                "cursor": submitted.after,
                "turn_id": submitted.turn_id,
                "until_turn": submitted.turn_id,
            }
            return await self._stream(request, principal).run(
                self._connections, self._topics, started.topic, first=[], limits=limits
            )
        if submitted.status == "queued":
            return json_response({"ok": True, "data": queued_view(submitted)}, 202)
        if submitted.status not in _RUNNING:
            task = await self._store.get_task(submitted.turn_id)
            if task is None:
                raise SessionNotFound("the turn is not there any more")
            return task_answer(task)
        wait = Wait(principal, self._auth.networks.network(request))
        answer = await wait.run(self._connections, self._topics, started.topic, submitted.turn_id, submitted.after)
        final = answer.final or {}
        return answer_response(
            submitted.session_id,
            answer.status,
            answer=final.get("answer"),
            usage=final.get("usage"),
            stop_reason=final.get("stop_reason"),
            error=answer.error,
        )

    async def cancel(self, request: web.Request) -> web.Response:
        principal = await self._auth.authenticate(request)
        session = await self._visible(request, principal)
        body = await read_json(request, CancelBody) if request.can_read_body else CancelBody()
        receipt = await self._turns.cancel(session.session_id, session.user_id, body.turn_id)
        return ok({"cancelled": receipt.cancelled, "turn_id": receipt.turn_id, "status": receipt.status})

    # -- sessions ------------------------------------------------------------------------------------------------

    async def create_session(self, request: web.Request) -> web.Response:
        principal = await self._auth.authenticate(request)
        body = await read_json(request, CreateSessionBody)
        self._turns.check_agent(body.agent_id)
        now_us = self._clock.now_us()
        record = await self._store.create_session(
            SessionRecord(
                session_id=SessionId(self._clock.new_id("ses")),
                user_id=self._auth.acting_user(principal, body.user_id),
                title=body.title,
                agent_id=body.agent_id,
                created_us=now_us,
                updated_us=now_us,
            )
        )
        return ok(session_view(record), 201)

    async def list_sessions(self, request: web.Request) -> web.Response:
        principal = await self._auth.authenticate(request)
        page = number(request.query, "page", default=1, low=1, high=1_000_000)
        size = number(request.query, "page_size", default=20, low=1, high=200)
        everybody = principal.is_admin and request.query.get("user_id") == "*"
        user_id = None if everybody else self._auth.acting_user(principal, request.query.get("user_id"))
        found = await self._store.list_sessions(
            user_id,
            agent_id=identifier(request.query, "agent_id"),
            offset=(page - 1) * size,
            limit=size,
        )
        return ok({"total": found.total, "items": [session_view(item) for item in found.items]})

    async def get_session(self, request: web.Request) -> web.Response:
        principal = await self._auth.authenticate(request)
        session = await self._visible(request, principal)
        limit = number(request.query, "limit", default=50, low=1, high=500)
        before = request.query.get("before")
        messages = await self._store.page_messages(
            session.session_id, before=cursor(before, "before") if before else None, limit=limit
        )
        active = await self._store.active_task(session.session_id)
        view = session_view(session)
        view["running"] = active is not None
        view["active_turn_id"] = active.turn_id if active else None
        return ok({"session": view, "messages": [message_view(m) for m in messages]})

    async def update_session(self, request: web.Request) -> web.Response:
        principal = await self._auth.authenticate(request)
        body = await read_json(request, UpdateSessionBody)
        session = await self._visible(request, principal)
        changed = await self._store.update_session(
            session.session_id,
            title=body.title,
            archived=body.archived,
            now_us=self._clock.now_us(),
        )
        return ok(session_view(changed or session))

    async def delete_session(self, request: web.Request) -> web.Response:
        principal = await self._auth.authenticate(request)
        session = await self._visible(request, principal)
        deleted = await self._store.delete_session(session.session_id)
        if session.owner_id is not None:
            await self._drop(session.session_id)
        return ok({"deleted": deleted, "session_id": session.session_id})

    async def _drop(self, session_id: SessionId) -> None:
        try:
            await self._owners.ask(session_id, DropSession(session_id=session_id), Done, timeout_s=2.0)
        except WunderError:
            # The row is gone: whatever its owner still writes is refused.
            return

    # -- reading -------------------------------------------------------------------------------------------------

    async def resume(self, request: web.Request) -> web.StreamResponse:
        self._check_serving()
        principal = await self._auth.authenticate(request)
        self._check_room(request, principal)
        session_id = SessionId(request.match_info["session_id"])
        # An EventSource that reconnects still has the first cursor in its URL; its header is newer.
        field = "Last-Event-ID" if "Last-Event-ID" in request.headers else "after_event_id"
        given = request.headers if field == "Last-Event-ID" else request.query
        after = cursor(given.get(field, "0"), field)
        watch = request.query.get("watch", "") in ("1", "true")
        user_id = None if principal.is_admin else principal.user_id
        topic, following = await self._topics.follow(session_id, user_id)
        first: list[Event] = []
        if after > following.latest:
            first.append(impossible(session_id, following.epoch, after, following.latest, self._clock))
            after = following.latest
        limits: dict[str, Any] = {"cursor": after}
        if not watch:
            limits["until_turn"] = following.active_turn
            limits["until_seq"] = None if following.active_turn else following.latest
        return await self._stream(request, principal).run(
            self._connections, self._topics, topic, first=first, limits=limits
        )

    async def events(self, request: web.Request) -> web.Response:
        principal = await self._auth.authenticate(request)
        session = await self._visible(request, principal)
        after = cursor(request.query.get("after", "0"), "after")
        limit = number(request.query, "limit", default=200, low=1, high=1000)
        records = await self._store.read_events(session.session_id, after=after, limit=limit, max_bytes=1_048_576)
        active = await self._store.active_task(session.session_id)
        last = records[-1].seq if records else min(after, await self._latest(session, after))
        events = with_gaps(records, after, last, self._clock.now_us())
        if last < after:
            events = [impossible(session.session_id, session.epoch, after, last, self._clock)]
        return ok(
            {
                "events": [event_view(event) for event in events],
                "running": active is not None,
                "last_event_id": last,
            }
        )

    async def _latest(self, session: SessionRecord, after: int) -> int:
        """The newest event if it is before `after`: the owner knows those that are not stored yet."""
        stored = await self._store.last_event_seq(session.session_id)
        if stored >= after or session.owner_id is None:
            return max(stored, session.reserved_seq)  # without an owner no number above the newest event is reserved
        try:
            command = ReadBuffer(session_id=session.session_id, after=after, max_bytes=1)
            buffered, _ = await self._owners.ask(session.session_id, command, Buffered)
        except (ServiceUnavailable, StorageError):
            return stored if after > session.reserved_seq else after
        return buffered.latest

    # -- helpers -------------------------------------------------------------------------------------------------

    def _stream(self, request: web.Request, principal: Principal) -> EventStream:
        network = self._auth.networks.network(request)
        return EventStream(request, principal, network, self._settings.gateway, self._clock)

    def _check_room(self, request: web.Request, principal: Principal) -> None:
        """Before a turn starts: a refusal must mean that nothing was started."""
        self._connections.check_room(principal, self._auth.networks.network(request))

    def _check_serving(self) -> None:
        if self._connections.draining:
            raise ServiceUnavailable("this gateway is draining", retry_after_s=1.0)

    async def _visible(self, request: web.Request, principal: Principal) -> SessionRecord:
        """The session in the path; for anybody else it does not exist."""
        session = await self._store.get_session(SessionId(request.match_info["session_id"]))
        if session is None or not principal.may_see(session.user_id):
            raise SessionNotFound("there is no such session")
        return session


def number(query: Mapping[str, str], name: str, *, default: int, low: int, high: int) -> int:
    """A whole number of the query string within bounds; `InvalidRequest` names it otherwise."""
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 12 or not low <= int(text) <= high:
        raise InvalidRequest(f"{name}: expected a number from {low} to {high}, got {text[:40]!r}", field=name)
    return int(text)


def identifier(query: Mapping[str, str], name: str) -> str | None:
    """An id of the query string; `InvalidRequest` names it if it cannot be one."""
    text = query.get(name)
    if text is not None and not _ID.fullmatch(text):
        raise InvalidRequest(f"{name}: 1 to 128 of A-Z a-z 0-9 _ . : @ -, got {text[:40]!r}", field=name)
    return text


def task_answer(task: TaskRecord) -> web.Response:
    """The answer of a turn that had ended before."""
    return answer_response(
        task.session_id,
        task.status,
        answer=task.answer,
        usage=msgspec.json.decode(task.usage) if task.usage else None,
        stop_reason=task.stop_reason,
        error=msgspec.json.decode(task.error) if task.error else None,
    )


def answer_response(
    session_id: str,
    status: str,
    *,
    answer: str | None,
    usage: Any,
    stop_reason: str | None,
    error: dict[str, Any] | None,
) -> web.Response:
    """200 with the answer; a failed turn is the error it failed with."""
    if status in ("failed", "dead"):
        raise_failed(error or {})
    body = {
        "session_id": session_id,
        "answer": answer,
        "usage": usage,
        "stop_reason": stop_reason or status,
    }
    return web.Response(body=encode_json(body), content_type="application/json")


def raise_failed(error: dict[str, Any]) -> NoReturn:
    """The error event of a turn, as an HTTP error."""
    message = str(error.get("message", "the turn failed"))
    if error.get("code") == UpstreamTimeout.code:
        raise UpstreamTimeout(message)
    if error.get("code") == UpstreamError.code:
        raise UpstreamError(message)
    raise WunderError(message)
