"""HTTP handlers of /wunder/channel: what providers send. Their own signature is the credential."""

from __future__ import annotations

from typing import Literal

from aiohttp import web

from actors.channels.account_book import AccountBook
from actors.channels.adapters import ADAPTERS
from actors.channels.inbound import Adapter, HttpRequest, Reception, SignatureRejected, Unreadable
from actors.clock import Clock
from actors.errors import NotFound, PayloadTooLarge, WunderError
from actors.metrics import GatewayMetrics
from gateway.channel_inbox import ChannelInbox
from gateway.errors import MethodNotAllowed
from gateway.http_common import ok, read_body
from gateway.settings import Settings

Result = Literal[
    "accepted",
    "duplicate",
    "command",
    "answered",
    "left_out",
    "unknown_account",
    "bad_signature",
    "unreadable",
    "too_big",
    "failed",
]
UNKNOWN = "unknown"
"""The metric's label for a channel that does not exist."""


class ChannelHandlers:
    """What the channel routes need."""

    def __init__(
        self, settings: Settings, book: AccountBook, inbox: ChannelInbox, clock: Clock, metrics: GatewayMetrics
    ) -> None:
        self._max_bytes = settings.channels.max_body_bytes
        self._book = book
        self._inbox = inbox
        self._clock = clock
        self._metrics = metrics

    async def webhook(self, request: web.Request) -> web.Response:
        """Verify, record, answer: the turn runs later. Whatever is answered with 2xx is durable, or never will be."""
        channel = request.match_info["channel"]
        adapter = ADAPTERS.get(channel)
        label = channel if adapter is not None else UNKNOWN
        try:
            if adapter is None:
                raise NotFound("there is no such channel")
            return await self._receive(request, adapter)
        except WunderError as error:
            self._count(label, _result(error))
            raise

    async def _receive(self, request: web.Request, adapter: Adapter) -> web.Response:
        name = request.match_info.get("account")
        account = await (self._book.account(name) if name else self._book.only_of(adapter.name))
        if account is None or account.settings.channel != adapter.name or not account.settings.enabled:
            raise NotFound("there is no such account of this channel")
        if request.method not in adapter.methods:
            raise MethodNotAllowed("this channel does not take this method")
        body = await read_body(request, max_bytes=self._max_bytes)
        received = adapter.receive(account.settings, _as_it_came(request, body), self._clock.now_us() / 1e6)
        if received.answer is not None:
            self._count(adapter.name, "answered")
            return web.Response(body=received.answer, content_type=received.content_type)
        for message in received.messages:
            self._count(adapter.name, await self._inbox.take(account, message))
        for _ in received.omitted:
            self._count(adapter.name, "left_out")
        return ok(_summary(received))

    def _count(self, channel: str, result: Result) -> None:
        self._metrics.channel_messages.labels(channel, result).inc()


def _as_it_came(request: web.Request, body: bytes) -> HttpRequest:
    return HttpRequest(
        method=request.method,
        headers=tuple(request.headers.items()),
        query=tuple(request.query.items()),
        body=body,
    )


def _summary(received: Reception) -> dict[str, int]:
    return {"messages": len(received.messages), "left_out": len(received.omitted)}


def _result(error: WunderError) -> Result:
    match error:
        case SignatureRejected():
            return "bad_signature"
        case Unreadable():
            return "unreadable"
        case PayloadTooLarge():
            return "too_big"
        case NotFound():
            return "unknown_account"
        case _:
            return "failed"
