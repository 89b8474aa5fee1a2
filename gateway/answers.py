"""Waiting for a turn's answer, for callers that do not stream."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from actors.errors import ServiceUnavailable, WunderError
from actors.events import TERMINAL
from actors.replies import Event
from gateway.auth import Principal
from gateway.connections import Connections
from gateway.errors import AuthRequired
from gateway.protocol import CloseCode
from gateway.subscriptions import Topic
from gateway.topics import Topics

_DATA = msgspec.json.Decoder()


class Answer(msgspec.Struct):
    """What a turn ended with."""

    status: str = ""
    final: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


class _Unbounded:
    """The collector keeps two events, so its sink needs no bound."""

    full = False

    def put(self, frame: bytes) -> None:
        return

    async def writable(self) -> None:
        return


class Wait:
    """A request that is answered when its turn has ended: a connection like those that stream."""

    kind = "wait"

    def __init__(self, principal: Principal, network: str) -> None:
        self.principal = principal
        self.network = network
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def close(self, code: int, reason: str) -> None:
        """A token that ended gets no answer; a drain lets the turn end first, as far as the gateway's stop allows."""
        if code == CloseCode.TOKEN_ENDED and not self.done.done():
            self.done.set_exception(AuthRequired("the credential is not valid any more", hint="sign in again"))
            self.done.exception()  # whoever waited may have left

    def stalled_s(self) -> float:
        """Nothing is written before the end."""
        return 0.0

    async def run(self, connections: Connections, topics: Topics, topic: Topic, turn_id: str, after: int) -> Answer:
        """The turn's end."""
        connections.add(self)
        try:
            await connections.look_again(self)
            return await wait_for_answer(topics, topic, turn_id, after, self.done)
        finally:
            connections.remove(self)
            self.done.cancel()


async def wait_for_answer(topics: Topics, topic: Topic, turn_id: str, after: int, done: asyncio.Future[None]) -> Answer:
    """The end of a turn, from its events; sooner with the error that somebody else puts into `done`."""
    answer = Answer()

    def see(event: Event) -> bytes:
        if event.turn_id == turn_id and event.kind in ("final", "error", TERMINAL):
            data = _DATA.decode(event.body)["data"]
            if event.kind == "final":
                answer.final = data
            elif event.kind == "error":
                answer.error = data
            else:
                answer.status = data["status"]
        return b""

    def end(error: WunderError | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(None)

    subscription = topics.subscribe(
        topic, _Unbounded(), see, cursor=after, turn_id=turn_id, until_turn=turn_id, on_end=end
    )
    subscription.start()
    try:
        await done
    finally:
        subscription.end()
    if not answer.status:
        # This gateway stops; the turn goes on, and its idempotency key finds it elsewhere.
        raise ServiceUnavailable("this gateway is stopping", retry_after_s=1.0)
    return answer
