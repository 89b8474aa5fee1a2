"""Which web pages may call us: an exact allow-list, and the pages we serve ourselves."""

from __future__ import annotations

from aiohttp import web

from gateway.errors import PermissionDenied
from gateway.network import ClientNetworks
from gateway.settings import Settings, is_local, is_loopback

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


class Origins:
    """Compares whole origins byte by byte: no wildcards, suffixes, other ports, upper case, or `null`.

    A request without an Origin does not come from a page of another site; that is fine because credentials
    are never taken from cookies. A server that listens on loopback only takes its own pages under a loopback
    name: a foreign name that resolves to 127.0.0.1 (DNS rebinding) is a foreign page.
    """

    def __init__(self, settings: Settings, networks: ClientNetworks) -> None:
        self._allowed = frozenset(settings.gateway.allowed_origins)
        self._networks = networks
        self._loopback_only = is_local(settings)

    def is_listed(self, origin: str) -> bool:
        """Whether the origin is in `gateway.allowed_origins` (these also get CORS headers)."""
        return origin in self._allowed

    def check(self, request: web.Request) -> None:
        """`PermissionDenied` for a page that may not call us."""
        origins = request.headers.getall("Origin", [])
        if not origins:
            return
        if len(origins) > 1 or not (self.is_listed(origins[0]) or self._is_own(origins[0], request)):
            raise PermissionDenied(
                "this origin may not call the service",
                hint="add it to gateway.allowed_origins, written exactly as the browser sends it",
            )

    def _is_own(self, origin: str, request: web.Request) -> bool:
        scheme = self._networks.scheme(request)
        host = request.headers.get("Host", "").removesuffix(_DEFAULT_PORTS[scheme])
        if not host or origin != f"{scheme}://{host}":
            return False
        return not self._loopback_only or _is_loopback_name(host)


def _is_loopback_name(host: str) -> bool:
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.startswith("127."):
        return name.replace(".", "").isdigit()
    return is_loopback(name)
