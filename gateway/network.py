"""Who is calling: the client's address, and the network that limits are counted by."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aiohttp import web

Address = IPv4Address | IPv6Address
_MAX_HOPS = 16


class ClientNetworks:
    """Finds the client behind trusted proxies; without any, the peer is the client.

    `X-Forwarded-For` is read from the right: each trusted proxy vouches for the address before it, and the
    first address that is not a trusted proxy is the client. What a client writes there itself is not reached.
    """

    def __init__(self, trusted_proxies: Iterable[str] = ()) -> None:
        self._trusted: list[IPv4Network | IPv6Network] = [ip_network(proxy, strict=False) for proxy in trusted_proxies]

    def address(self, request: web.Request) -> Address | None:
        """The client's address; None for a peer without one (a local socket)."""
        client = _parse(request.remote or "")
        if client is None or not self._is_trusted(client):
            return client
        hops = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
        for hop in reversed(hops[-_MAX_HOPS:]):
            forwarded = _parse(hop.strip())
            if forwarded is None:
                break
            client = forwarded
            if not self._is_trusted(client):
                break
        return client

    def network(self, request: web.Request) -> str:
        """The key that limits are counted by: one IPv4 address, or an IPv6 /64."""
        return network_of(self.address(request))

    def of_peer(self, peername: object) -> str | None:
        """The key of a socket's other end; None for a trusted proxy, which speaks for many."""
        address = _parse(str(peername[0])) if isinstance(peername, tuple) and peername else None
        return None if address is not None and self._is_trusted(address) else network_of(address)

    def scheme(self, request: web.Request) -> str:
        """`http` or `https` as the client sees it."""
        peer = _parse(request.remote or "")
        if peer is not None and self._is_trusted(peer):
            forwarded = request.headers.get("X-Forwarded-Proto", "").rpartition(",")[2].strip()
            if forwarded in {"http", "https"}:
                return forwarded
        return "https" if request.secure else "http"

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def network_of(address: Address | None) -> str:
    """`192.0.2.7` for IPv4, `2001:db8::/64` for IPv6, `local` without an address."""
    if address is None:
        return "local"
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address) >> 64 << 64, 64)))
    return str(address)


def _parse(text: str) -> Address | None:
    """An address, perhaps with a port or brackets; IPv4 inside IPv6 counts as IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
