"""Sockets on which nothing is asked: they may neither stay for ever nor come in any number.

    connected ──whole head──► a request is served ──answered──► idle, for `keep_alive_s` (aiohttp's own timer)
        └─ no head within `auth_timeout_s`: closed             └─ too many of one address: the newest idle ones closed

A socket has the address of its peer; behind a trusted proxy only its requests tell whose it is (`Connections`).
"""

from __future__ import annotations

from collections import Counter

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from actors.clock import Clock
from actors.loop import Loop
from gateway.network import ClientNetworks
from gateway.settings import GatewaySettings

_LONGEST_INTERVAL_S = 1.0


class Lobby:
    """The sockets of one web server."""

    def __init__(self, settings: GatewaySettings, networks: ClientNetworks, clock: Clock) -> None:
        self._head_s = settings.auth_timeout_s
        self._per_address = settings.max_connections_per_address
        self._networks = networks
        self._clock = clock
        self._server: web.Server | None = None
        self._heard: set[web.RequestHandler] = set()
        self._busy: set[web.RequestHandler] = set()
        self._since_s: dict[web.RequestHandler, float] = {}
        self._upkeep = Loop("lobby", self.run_once, interval_s=min(_LONGEST_INTERVAL_S, self._head_s / 4))
        self.closed = 0

    def middleware(self) -> Middleware:
        """Notes which sockets have sent a request, and which have one served."""

        @web.middleware
        async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
            socket = request.protocol
            self._heard.add(socket)
            self._busy.add(socket)
            try:
                return await handler(request)
            finally:
                self._busy.discard(socket)

        return note

    def start(self, server: web.Server) -> None:
        self._server = server
        self._upkeep.start()

    async def stop(self) -> None:
        await self._upkeep.stop()

    async def run_once(self) -> None:
        """Close what has waited too long, and what is too many."""
        sockets = self._server.connections if self._server is not None else []
        now_s = self._clock.monotonic_s()
        counts: Counter[str] = Counter()
        silent: dict[web.RequestHandler, float] = {}
        for socket in sockets:  # the oldest first
            network = self._networks.of_peer(socket.peername)
            counts[network or ""] += 1
            many = network is not None and counts[network] > self._per_address
            since_s = self._since_s.get(socket, now_s)
            if socket in self._busy or (socket in self._heard and not many):
                continue
            if many or now_s - since_s >= self._head_s:
                self.closed += 1
                socket.force_close()
            else:
                silent[socket] = since_s
        self._since_s = silent
        self._heard.intersection_update(sockets)
