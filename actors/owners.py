"""Asks a session's owner, wherever it is: locations are cached, and a stale one costs a retry."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TypeVar

import msgspec

from actors.clock import Clock
from actors.errors import OwnedElsewhere, ServiceUnavailable, StaleEpoch, WunderError
from actors.handles import DirectoryHandle, Reach, ask
from actors.messages import Command, Submit
from actors.replies import Reply
from storage.records import OwnerId, SessionId

R = TypeVar("R", bound=Reply)

_MAX_CACHED = 50_000
_ATTEMPT_S = 6.0
_FIRST_DELAY_S = 0.02
_MAX_DELAY_S = 0.5


class Owners:
    """The session actors, as one gateway sees them."""

    def __init__(self, directory: DirectoryHandle, reach: Reach, clock: Clock, *, timeout_s: float) -> None:
        self._directory = directory
        self._reach = reach
        self._clock = clock
        self._timeout_s = timeout_s
        self._actors: OrderedDict[SessionId, str] = OrderedDict()

    def last_seen(self, session_id: SessionId) -> str | None:
        """The actor that had the session when it was last asked."""
        return self._actors.get(session_id)

    def forget(self, session_id: SessionId) -> None:
        """The session is not where it was."""
        self._actors.pop(session_id, None)

    async def ask(
        self,
        session_id: SessionId,
        command: Command,
        reply: type[R],
        *,
        avoid: str | None = None,
        hint: OwnerId | None = None,
        timeout_s: float | None = None,
    ) -> tuple[R, str]:
        """The owner's reply and its name; `ServiceUnavailable` when no owner answered within the deadline.

        `hint` is the owner that the database has just named.
        """
        deadline_s = self._clock.monotonic_s() + (timeout_s or self._timeout_s)
        delay_s = _FIRST_DELAY_S
        last: WunderError
        while True:
            actor = None
            try:
                actor = await self._locate(session_id, hint, avoid)
                left_s = max(0.05, deadline_s - self._clock.monotonic_s())
                answer = await ask(self._reach.actor(actor), command, reply, timeout_s=min(left_s, _ATTEMPT_S))
                return answer, actor
            except OwnedElsewhere as error:
                hint, last = _owner(error), error
            except (ServiceUnavailable, StaleEpoch) as error:
                # This actor is gone, hung, or not the owner any more: ask where the session is now.
                hint, last, avoid = None, error, actor
            self.forget(session_id)
            if self._clock.monotonic_s() + delay_s > deadline_s:
                raise ServiceUnavailable("the session's owner is not answering", retry_after_s=2.0) from last
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _MAX_DELAY_S)
            if isinstance(command, Submit) and not command.again:
                command = msgspec.structs.replace(command, again=True)

    async def _locate(self, session_id: SessionId, hint: OwnerId | None, avoid: str | None) -> str:
        cached = self._actors.get(session_id)
        if cached is not None and cached != avoid and hint is None:
            self._actors.move_to_end(session_id)
            return cached
        actor = await self._directory.locate(session_id, owner_hint=hint, avoid=avoid)
        self._actors[session_id] = actor
        if len(self._actors) > _MAX_CACHED:
            self._actors.popitem(last=False)
        return actor


def _owner(error: WunderError) -> OwnerId | None:
    owner = (error.detail or {}).get("owner_id")
    return OwnerId(owner) if owner else None
