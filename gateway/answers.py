"""Waiting for a turn's answer, for callers that do not stream."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from actors.errors import ServiceUnavailable, WunderError
from actors.events import TERMINAL
from actors.messages import Event
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


async def wait_for_answer(topics: Topics, topic: Topic, turn_id: str, after: int) -> Answer:
    """The end of a turn, from its events."""
    answer = Answer()
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

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
