"""The requests of one WebSocket: what each type of frame does."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec

from actors.clock import Clock, isoformat
from actors.errors import Conflict, InvalidRequest, ServiceUnavailable, WunderError
from actors.replies import Following
from gateway.auth import Auth, Principal
from gateway.connections import Connections
from gateway.errors import RateLimited
from gateway.http_common import decode_json
from gateway.protocol import (
    PAYLOADS,
    PROTOCOL_VERSION,
    CancelPayload,
    ClientFrame,
    ConnectPayload,
    EventFrames,
    ResumePayload,
    StartPayload,
    WatchPayload,
    cursor,
    frame,
)
from gateway.subscriptions import Sink, Subscription, Topic
from gateway.topics import Topics
from gateway.turns import Turns
from gateway.views import impossible
from storage.records import SessionId


class _Live:
    """A request that has a stream."""

    __slots__ = ("answered", "kind", "session_id", "subscription", "turn_id")

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.session_id = ""
        self.turn_id: str | None = None
        self.subscription: Subscription | None = None
        self.answered = asyncio.Event()


class RequestServices(msgspec.Struct, frozen=True):
    """What the requests of every connection share."""

    auth: Auth
    topics: Topics
    turns: Turns
    connections: Connections
    clock: Clock


class Requests:
    """Live requests by id. `fail(error, request_id)` tells the client."""

    def __init__(self, services: RequestServices, principal: Principal, sink: Sink, fail: Any, *, limit: int) -> None:
        self._services = services
        self._principal = principal
        self._sink = sink
        self._fail = fail
        self._limit = limit
        self._live: dict[str, _Live] = {}

    def __len__(self) -> int:
        return len(self._live)

    def handler(self, received: ClientFrame) -> Coroutine[Any, Any, None]:
        """The coroutine that serves a frame; a wrong frame raises at once."""
        payload_type = PAYLOADS.get(received.type)
        if payload_type is None:
            known = ", ".join(PAYLOADS)
            raise InvalidRequest(f"type: expected one of {known}, got {received.type!r}", field="type")
        payload = _decode_payload(received, payload_type)
        if isinstance(payload, StartPayload):
            return self._start(received, payload)
        if isinstance(payload, ResumePayload):
            return self._resume(received, payload)
        if isinstance(payload, WatchPayload):
            return self._watch(received, payload)
        if isinstance(payload, CancelPayload):
            return self._cancel(received, payload)
        assert isinstance(payload, ConnectPayload)  # noqa: S101 - PAYLOADS has nothing else
        return self._ping(received) if received.type == "ping" else self._connect(received, payload)

    def heartbeat(self) -> None:
        """Tell watchers that nothing has happened and that we are here."""
        now = isoformat(self._services.clock.now_us())
        for request_id, live in self._live.items():
            if live.kind == "watch" and live.subscription is not None:
                data = {"session_id": live.session_id, "turn_id": "", "timestamp": now, "data": {}}
                payload = {"event": "heartbeat", "id": live.subscription.cursor, "data": data}
                self._sink.put(frame("event", request_id, payload))

    def end(self) -> None:
        """The connection is closed; no turn is cancelled by that."""
        for live in list(self._live.values()):
            if live.subscription is not None:
                live.subscription.end()
        self._live.clear()

    # -- frames --------------------------------------------------------------------------------------------------

    async def _connect(self, received: ClientFrame, payload: ConnectPayload) -> None:
        low = payload.min_protocol_version or payload.protocol_version or PROTOCOL_VERSION
        high = payload.max_protocol_version or payload.protocol_version or PROTOCOL_VERSION
        if not low <= PROTOCOL_VERSION <= high:
            raise InvalidRequest(
                f"protocol_version: this server speaks {PROTOCOL_VERSION}, got {low} to {high}",
                field="protocol_version",
            )
        protocol = {"version": PROTOCOL_VERSION, "min": PROTOCOL_VERSION, "max": PROTOCOL_VERSION}
        self._sink.put(frame("ack", received.request_id, {"protocol": protocol}))

    async def _ping(self, received: ClientFrame) -> None:
        ts = self._services.clock.now_us() // 1000
        self._sink.put(frame("pong", received.request_id, {"ts": ts}))

    async def _start(self, received: ClientFrame, payload: StartPayload) -> None:
        services = self._services
        if services.connections.draining:
            raise ServiceUnavailable("this gateway is draining", retry_after_s=1.0)
        content = payload.content or payload.question
        if content is None:
            raise InvalidRequest("content: this field is required", field="content")
        request_id, live = self._register(received, "start")
        try:
            user_id = services.auth.acting_user(self._principal, payload.user_id)
            started = await services.turns.start(
                user_id,
                content,
                payload,
                session_id=payload.session_id or received.session_id,
                agent_id=payload.agent_id,
            )
        except BaseException:
            self._live.pop(request_id, None)
            live.answered.set()
            raise
        submitted = started.submitted
        live.session_id, live.turn_id = submitted.session_id, submitted.turn_id
        live.answered.set()
        ack = {
            "turn_id": submitted.turn_id,
            "session_id": submitted.session_id,
            "queued": submitted.status == "queued",
            "position": submitted.position,
            "after_event_id": submitted.after,
        }
        self._sink.put(frame("ack", request_id, ack))
        if not payload.stream:
            self._live.pop(request_id, None)
            return
        self._subscribe(
            request_id,
            live,
            started.topic,
            cursor=submitted.after,
            turn_id=submitted.turn_id,
            until_turn=submitted.turn_id,
        )

    async def _resume(self, received: ClientFrame, payload: ResumePayload) -> None:
        after = cursor(payload.after_event_id)
        session_id = _session_id(received, payload.session_id)
        request_id, live = self._register(received, "resume")
        topic, following = await self._follow(request_id, live, session_id)
        self._acknowledge(request_id, live, following, after)
        after = self._possible(request_id, live, following, after)
        until_seq = None if following.active_turn else following.latest
        self._subscribe(
            request_id,
            live,
            topic,
            cursor=after,
            until_turn=following.active_turn,
            until_seq=until_seq,
        )

    async def _watch(self, received: ClientFrame, payload: WatchPayload) -> None:
        after = None if payload.after_event_id is None else cursor(payload.after_event_id)
        session_id = _session_id(received, payload.session_id)
        request_id, live = self._register(received, "watch")
        topic, following = await self._follow(request_id, live, session_id)
        if after is None:
            after = following.latest
        self._acknowledge(request_id, live, following, after)
        after = self._possible(request_id, live, following, after)
        self._subscribe(request_id, live, topic, cursor=after)

    async def _cancel(self, received: ClientFrame, payload: CancelPayload) -> None:
        target = payload.request_id
        if target is None and payload.session_id is None and payload.turn_id is None:
            target = received.request_id
        live = self._live.get(target) if target is not None else None
        if live is not None and live.kind != "start":
            if live.subscription is not None:
                live.subscription.end()
            self._live.pop(str(target), None)
            self._sink.put(frame("ack", received.request_id or target, {"cancelled": True}))
            return
        if live is not None:
            await live.answered.wait()  # a cancel may come right behind its start
        session_id = payload.session_id or received.session_id or (live.session_id if live else None)
        turn_id = payload.turn_id or (live.turn_id if live else None)
        if not session_id:
            raise InvalidRequest(
                "request_id: no live request has this id, and no session_id was given",
                field="request_id",
            )
        owner = None if self._principal.is_admin else self._principal.user_id
        receipt = await self._services.turns.cancel(session_id, owner, turn_id)
        answer = {
            "cancelled": receipt.cancelled,
            "turn_id": receipt.turn_id,
            "status": receipt.status,
        }
        self._sink.put(frame("ack", received.request_id or target, answer))

    # -- helpers -------------------------------------------------------------------------------------------------

    def _register(self, received: ClientFrame, kind: str) -> tuple[str, _Live]:
        request_id = received.request_id or self._services.clock.new_id("req")
        if request_id in self._live:
            raise Conflict(f"request_id: {request_id!r} is in use", field="request_id")
        if len(self._live) >= self._limit:
            raise RateLimited(f"too many live requests on this connection (limit {self._limit})")
        live = self._live[request_id] = _Live(kind)
        return request_id, live

    async def _follow(self, request_id: str, live: _Live, session_id: SessionId) -> tuple[Topic, Following]:
        owner = None if self._principal.is_admin else self._principal.user_id
        try:
            topic, following = await self._services.topics.follow(session_id, owner)
        except BaseException:
            self._live.pop(request_id, None)
            raise
        live.session_id = session_id
        return topic, following

    def _acknowledge(self, request_id: str, live: _Live, following: Following, after: int) -> None:
        """Tells where the stream stands: a resume of a session without a turn ends at `last_event_id`."""
        if self._live.get(request_id) is not live:
            return
        ack = {
            "session_id": live.session_id,
            "turn_id": following.active_turn,
            "after_event_id": after,
            "last_event_id": following.latest,
        }
        self._sink.put(frame("ack", request_id, ack))

    def _possible(self, request_id: str, live: _Live, following: Following, after: int) -> int:
        if after <= following.latest:
            return after
        missing = impossible(SessionId(live.session_id), following.epoch, after, following.latest, self._services.clock)
        self._sink.put(EventFrames(request_id)(missing))
        return following.latest

    def _subscribe(
        self,
        request_id: str,
        live: _Live,
        topic: Topic,
        *,
        cursor: int,
        turn_id: str | None = None,
        until_turn: str | None = None,
        until_seq: int | None = None,
    ) -> None:
        if self._live.get(request_id) is not live:
            return  # cancelled while the session was being followed

        def ended(error: WunderError | None) -> None:
            if self._live.get(request_id) is live:
                del self._live[request_id]
            if error is not None:
                self._fail(error, request_id)

        live.subscription = self._services.topics.subscribe(
            topic,
            self._sink,
            EventFrames(request_id),
            cursor=cursor,
            turn_id=turn_id,
            until_turn=until_turn,
            until_seq=until_seq,
            on_end=ended,
        )
        live.subscription.start()


def _decode_payload(received: ClientFrame, payload_type: type[msgspec.Struct]) -> msgspec.Struct:
    try:
        return decode_json(bytes(received.payload) or b"{}", payload_type)
    except InvalidRequest as error:
        field = f"payload.{error.field}" if error.field else "payload"
        raise InvalidRequest(f"payload: {error.message}", field=field, hint=error.hint) from None


def _session_id(received: ClientFrame, given: str | None) -> SessionId:
    session_id = given or received.session_id
    if session_id is None:
        raise InvalidRequest("session_id: this field is required", field="session_id")
    return SessionId(session_id)
