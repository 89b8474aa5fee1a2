"""How processes reach each other: `call` with an encoded command. Ray behind it in production, a method in tests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from actors.background import Background
from actors.errors import ServiceUnavailable, WunderError
from actors.gathering import Gathering
from actors.messages import (
    Acquire,
    Command,
    DrainNode,
    Locate,
    Passivated,
    PermitCalls,
    RegisterActor,
    RegisterGateway,
    RegisterOutbox,
    Release,
    TokenEnded,
    WakeOutboxes,
    WakePools,
    encode,
)
from actors.replies import Draining, Location, Permit, PermitAnswers, Reply, decode_reply
from storage.records import OwnerId, SessionId, UserId

R = TypeVar("R", bound=Reply)

Call = Callable[[bytes], Awaitable[bytes]]
"""One encoded command to one process. Raises `ServiceUnavailable` when the process is not there (any more)."""


class Reach(Protocol):
    """Finds processes by name."""

    def actor(self, name: str) -> Call:
        """The process with this name; calls fail with `ServiceUnavailable` if there is none."""

    async def gone(self, name: str) -> None:
        """Return once the process has ended (or is not there)."""


CALL_TIMEOUT_S = 15.0
"""A process that does not answer for this long is treated as not there (it may be hung)."""


async def ask(call: Call, command: Command, reply: type[R], *, timeout_s: float = CALL_TIMEOUT_S) -> R:
    """Send a command and expect one kind of reply; errors of the other side are raised here."""
    answer = decode_reply(await _answer(call, command, timeout_s))
    if not isinstance(answer, reply):
        raise TypeError(f"expected {reply.__name__}, got {type(answer).__name__}")
    return answer


async def tell(call: Call, command: Command, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
    """Send a command whose reply says nothing."""
    decode_reply(await _answer(call, command, timeout_s))


async def quietly(call: Awaitable[object]) -> None:
    """Await what is made up for elsewhere if it fails."""
    with contextlib.suppress(WunderError):
        await call


async def _answer(call: Call, command: Command, timeout_s: float) -> bytes:
    try:
        async with asyncio.timeout(timeout_s):
            return await call(encode(command))
    except TimeoutError:
        raise ServiceUnavailable(
            f"no answer to {type(command).__name__} within {timeout_s:g} s", retry_after_s=1.0
        ) from None


class DirectoryHandle:
    """The directory, typed."""

    def __init__(self, call: Call) -> None:
        self.call = call
        # So the directory hears a session's release and its next request in that order.
        self._permits: Gathering[Acquire | Release, Permit | None] = Gathering("permit-calls", self._ask_permits)
        self._wakes: Gathering[None, float | None] = Gathering("wake-pools", self._wake_pools)
        self._rings: Gathering[None, None] = Gathering("ring-outboxes", self._ring_outboxes)
        self._ringing = Background()

    async def locate(
        self,
        session_id: SessionId,
        *,
        owner_hint: OwnerId | None = None,
        avoid: str | None = None,
        orphaned: bool = False,
    ) -> str:
        """The name of the session actor to ask."""
        command = Locate(session_id=session_id, owner_hint=owner_hint, avoid=avoid, orphaned=orphaned)
        return (await ask(self.call, command, Location)).actor

    async def acquire(self, session_id: SessionId, user_id: UserId, actor: str, *, wait: bool) -> Permit:
        permit = await self._permits.ask(Acquire(session_id=session_id, user_id=user_id, actor=actor, wait=wait))
        if permit is None:
            raise TypeError("expected a Permit, got None")
        return permit

    async def release(self, session_id: SessionId, actor: str) -> None:
        await self._permits.ask(Release(session_id=session_id, actor=actor))

    async def _ask_permits(self, calls: list[Acquire | Release]) -> tuple[Permit | None, ...]:
        return (await ask(self.call, PermitCalls(calls=tuple(calls)), PermitAnswers)).permits

    async def wake_pools(self) -> float | None:
        """There are tasks for the pools; a burst of these is few calls. How many leave them per second, if known."""
        return await self._wakes.ask(None)

    async def _wake_pools(self, wakes: list[None]) -> list[float | None]:
        return [(await ask(self.call, WakePools(), Draining)).per_s] * len(wakes)

    def ring_outboxes(self) -> None:
        """Deliveries were recorded. Nobody waits for this: outboxes also look by themselves."""
        if len(self._ringing) <= 1:  # one under way and one behind it tell of all
            self._ringing.start(quietly(self._rings.ask(None)), "ring-outboxes")

    async def _ring_outboxes(self, rings: list[None]) -> list[None]:
        await tell(self.call, WakeOutboxes())
        return rings

    async def register_outbox(self, outbox: str, node_id: str, owner_id: OwnerId) -> None:
        await tell(self.call, RegisterOutbox(outbox=outbox, node_id=node_id, owner_id=owner_id))

    async def passivated(self, actor: str, session_ids: tuple[SessionId, ...]) -> None:
        await tell(self.call, Passivated(actor=actor, session_ids=session_ids))

    async def register_actor(self, command: RegisterActor) -> None:
        await tell(self.call, command)

    async def register_gateway(self, gateway: str, node_id: str, address: str) -> None:
        await tell(self.call, RegisterGateway(gateway=gateway, node_id=node_id, address=address))

    async def drain_node(self, node_id: str, *, undo: bool) -> None:
        await tell(self.call, DrainNode(node_id=node_id, undo=undo))

    async def token_ended(self, token_hashes: tuple[str, ...]) -> None:
        await tell(self.call, TokenEnded(token_hashes=token_hashes))
