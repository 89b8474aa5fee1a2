"""How processes reach each other: `call` with an encoded command. Ray behind it in production, a method in tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from actors.errors import ServiceUnavailable, WunderError
from actors.messages import (
    Acquire,
    Command,
    Locate,
    Location,
    Passivated,
    Permit,
    PermitAnswers,
    PermitCalls,
    RegisterActor,
    RegisterGateway,
    Release,
    Reply,
    TokenEnded,
    decode_reply,
    encode,
)
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


async def _answer(call: Call, command: Command, timeout_s: float) -> bytes:
    try:
        async with asyncio.timeout(timeout_s):
            return await call(encode(command))
    except TimeoutError:
        raise ServiceUnavailable(
            f"no answer to {type(command).__name__} within {timeout_s:g} s", retry_after_s=1.0
        ) from None


class PermitLine:
    """Permit calls of one process to the directory, in order: what gathers while a call is under way is the next one.

    So the directory hears a session's release and its next request in that order, and under load one call serves many.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._waiting: list[tuple[Acquire | Release, asyncio.Future[Permit | None]]] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, command: Acquire | Release) -> Permit | None:
        """The directory's answer; `ServiceUnavailable` if there is none."""
        future: asyncio.Future[Permit | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, future))
        if self._task is None:
            self._task = asyncio.create_task(self._send(), name="permit-line")
        return await future

    async def _send(self) -> None:
        gathered: list[tuple[Acquire | Release, asyncio.Future[Permit | None]]] = []
        try:
            while self._waiting:
                gathered, self._waiting = self._waiting, []
                command = PermitCalls(calls=tuple(command for command, _ in gathered))
                try:
                    answers = (await ask(self._call, command, PermitAnswers)).permits
                except WunderError as error:
                    self._fail(gathered, error)
                    continue
                for (_, future), answer in zip(gathered, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
        finally:
            self._task = None
            self._fail([*gathered, *self._waiting], ServiceUnavailable("the process stops"))
            self._waiting = []

    @staticmethod
    def _fail(gathered: list[tuple[Acquire | Release, asyncio.Future[Permit | None]]], error: WunderError) -> None:
        for _, future in gathered:
            if not future.done():
                future.set_exception(error)
                future.exception()  # whoever waited may have left


class DirectoryHandle:
    """The directory, typed."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self._permits = PermitLine(call)

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

    async def passivated(self, actor: str, session_ids: tuple[SessionId, ...]) -> None:
        await tell(self.call, Passivated(actor=actor, session_ids=session_ids))

    async def register_actor(self, command: RegisterActor) -> None:
        await tell(self.call, command)

    async def register_gateway(self, gateway: str, node_id: str, address: str) -> None:
        await tell(self.call, RegisterGateway(gateway=gateway, node_id=node_id, address=address))

    async def token_ended(self, token_hashes: tuple[str, ...]) -> None:
        await tell(self.call, TokenEnded(token_hashes=token_hashes))
