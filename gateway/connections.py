"""The open WebSockets, event streams and waits of a gateway: counted, limited, closed with their token or a drain."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from collections import Counter
from typing import Protocol

from aiohttp import web

from actors.errors import WunderError
from actors.loop import Loop
from gateway.auth import Auth, Principal
from gateway.errors import RateLimited
from gateway.protocol import CloseCode
from gateway.settings import GatewaySettings


class Connection(Protocol):
    """A long-lived response."""

    kind: str
    principal: Principal
    network: str

    def close(self, code: int, reason: str) -> None:
        """Begin to close; the client may resume elsewhere unless the code says otherwise."""

    def stalled_s(self) -> float:
        """How long its socket has taken nothing."""


class Connections:
    """Every long-lived response of this gateway."""

    def __init__(self, settings: GatewaySettings, auth: Auth, *, revalidate_s: float) -> None:
        self._settings = settings
        self._auth = auth
        self._open: set[Connection] = set()
        self._counts: Counter[tuple[str, str]] = Counter()
        self.draining = False
        self._upkeep = Loop("connections-upkeep", self._keep, interval_s=5.0)
        # With its jitter this is below half of the time: the other half is the cache's, at the opening.
        self._revalidate = Loop("revalidate", self._revalidate_all, interval_s=revalidate_s * 0.4)
        auth.on_token_ended(self.end_token)

    def start(self) -> None:
        self._upkeep.start()
        self._revalidate.start()

    async def stop(self) -> None:
        await self._upkeep.stop()
        await self._revalidate.stop()

    def __len__(self) -> int:
        return len(self._open)

    def count(self, kind: str) -> int:
        return sum(c.kind == kind for c in self._open)

    def check_room(self, principal: Principal, network: str) -> None:
        """`RateLimited` when the gateway, the user or the client's address has too many connections."""
        if len(self._open) >= self._settings.max_connections:
            raise RateLimited("this gateway has too many connections", retry_after_s=5.0)
        if self._counts["user", principal.user_id] >= self._settings.max_connections_per_user:
            raise RateLimited("this user has too many connections", retry_after_s=5.0)
        if self._counts["network", network] >= self._settings.max_connections_per_address:
            raise RateLimited("this address has too many connections", retry_after_s=5.0)

    def add(self, connection: Connection) -> None:
        self._open.add(connection)
        self._counts.update(_keys(connection))

    def remove(self, connection: Connection) -> None:
        if connection in self._open:
            self._open.remove(connection)
            for key in _keys(connection):
                self._counts[key] -= 1
                if not self._counts[key]:
                    del self._counts[key]

    async def look_again(self, connection: Connection) -> None:
        """Close what was just added if its token has ended, or a drain has begun, since that was looked at."""
        if self.draining:
            connection.close(CloseCode.DRAINING, "draining")
        elif not await self._auth.revalidate(connection.principal):
            connection.close(CloseCode.TOKEN_ENDED, "token ended")

    def end_token(self, token_hash: str) -> None:
        """Close what was opened with a token that has ended."""
        for connection in [c for c in self._open if c.principal.token_hash == token_hash]:
            connection.close(CloseCode.TOKEN_ENDED, "token ended")

    def drain(self) -> None:
        """Send everybody elsewhere: they resume there."""
        self.draining = True
        for connection in list(self._open):
            connection.close(CloseCode.DRAINING, "draining")

    async def _keep(self) -> None:
        for connection in list(self._open):
            if connection.stalled_s() > self._settings.slow_client_timeout_s:
                connection.close(CloseCode.TOO_SLOW, "too slow")

    async def _revalidate_all(self) -> None:
        """Ask the store about each token once: the cache may be as old as the last look."""
        principals = {c.principal.token_hash: c.principal for c in self._open}
        for token_hash, principal in principals.items():
            with contextlib.suppress(WunderError):
                if token_hash is not None and not await self._auth.revalidate(principal, fresh=True):
                    self.end_token(token_hash)


def _keys(connection: Connection) -> list[tuple[str, str]]:
    return [("user", connection.principal.user_id), ("network", connection.network)]


def bound_send_buffer(request: web.Request, size: int) -> None:
    """Keep the kernel from hiding megabytes of a reader that does not read."""
    transport = request.transport
    sock = transport.get_extra_info("socket") if transport is not None else None
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)


def unread_bytes(transport: asyncio.Transport | None) -> int:
    """What was written and the other side has not acknowledged: in the transport and in the kernel."""
    if transport is None:
        return 0
    sock = transport.get_extra_info("socket")
    with contextlib.suppress(OSError, ValueError):
        if sock is not None and sock.fileno() >= 0:
            answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4)
            return transport.get_write_buffer_size() + int(struct.unpack("i", answer)[0])
    return transport.get_write_buffer_size()
