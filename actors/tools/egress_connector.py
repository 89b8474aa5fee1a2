"""The connector of guarded requests: three checks of the address, each alone enough.

resolver: answers that may not be reached are dropped      (a name that leads inside)
socket:   no socket is made for such an address            (an address in the URL, a resolver that lies)
peer:     the connected peer is looked at before a byte    (anything the first two missed)
"""

from __future__ import annotations

import socket
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from actors.tools.egress_policy import EgressPolicy
from actors.tools.lookups import LookupResolver

MAX_CONNECTIONS = 100


class AddressBlocked(OSError):
    """The address may not be reached."""


class GuardedResolver(AbstractResolver):
    """Another resolver, without the answers that the policy forbids."""

    def __init__(self, policy: EgressPolicy, inner: AbstractResolver) -> None:
        self._policy = policy
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        answers = await self._inner.resolve(host, port, family)
        allowed = [a for a in answers if self._policy.address_allowed(a["host"], port)]
        if answers and not allowed:
            raise AddressBlocked("every address of the host is blocked")
        return allowed

    async def close(self) -> None:
        await self._inner.close()


class GuardedConnector(aiohttp.TCPConnector):
    """Every connection is new: what was checked is what is used."""

    def __init__(
        self, policy: EgressPolicy, resolver: AbstractResolver | None = None, *, limit: int = MAX_CONNECTIONS
    ) -> None:
        self._policy = policy
        self._guarded = GuardedResolver(policy, resolver or LookupResolver())
        super().__init__(
            resolver=self._guarded,
            use_dns_cache=False,
            force_close=True,
            limit=limit,
            socket_factory=self._make_socket,
        )

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        connection = await super().connect(req, traces, timeout)
        transport = connection.transport
        peer = transport.get_extra_info("peername") if transport is not None else None
        if not peer or not self._policy.address_allowed(peer[0], peer[1]):
            connection.close()
            raise AddressBlocked("the peer's address is blocked")
        return connection

    async def close(self, *, abort_ssl: bool = False) -> None:
        await super().close(abort_ssl=abort_ssl)
        await self._guarded.close()

    def _make_socket(self, addr_info: Any) -> socket.socket:
        family, kind, protocol, _, address = addr_info
        if not self._policy.address_allowed(address[0], address[1]):
            raise AddressBlocked("the address is blocked")
        return socket.socket(family, kind, protocol)
