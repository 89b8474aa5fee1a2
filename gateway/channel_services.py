"""Builds what a gateway needs for channels, and puts their routes into the application."""

from __future__ import annotations

from aiohttp import web

from actors.channels.account_book import AccountBook
from actors.channels.providers import Providers
from actors.clock import Clock
from actors.handles import DirectoryHandle
from actors.metrics import GatewayMetrics
from actors.secrets import SecretBox
from actors.task_intake import TaskIntake
from gateway.auth import Auth
from gateway.channel_inbox import ChannelInbox
from gateway.channel_replies import ChannelReplies
from gateway.http_channel_admin import ChannelAdminHandlers
from gateway.http_channels import ChannelHandlers
from gateway.settings import Settings
from gateway.turns import Turns
from storage.store import AsyncStorageBackend

_ACCOUNT = "{account:[A-Za-z0-9_.-]{1,64}}"
_CHANNEL = "/wunder/channel/{channel:[a-z0-9_-]{1,32}}/webhook"
_ADMIN = "/wunder/admin/channels"


class ChannelServices:
    """The accounts, the ways out for trying them, and the handlers."""

    def __init__(
        self,
        settings: Settings,
        store: AsyncStorageBackend,
        clock: Clock,
        directory: DirectoryHandle,
        auth: Auth,
        intake: TaskIntake,
        turns: Turns,
        metrics: GatewayMetrics,
    ) -> None:
        box = SecretBox(settings.security.secrets_keys)
        book = AccountBook(settings.channels, store, box, clock)
        self._inbox = ChannelInbox(settings, store, clock, directory, intake, turns)
        self.replies = ChannelReplies(book)
        self._providers = Providers(settings.channels, book, clock)
        self._handlers = ChannelHandlers(settings, book, self._inbox, clock, metrics)
        self._admin = ChannelAdminHandlers(auth, store, book, box, self._providers, turns, clock)

    def add_routes(self, app: web.Application) -> None:
        router = app.router
        for path in (_CHANNEL, f"{_CHANNEL}/{_ACCOUNT}"):
            router.add_post(path, self._handlers.webhook)
            router.add_get(path, self._handlers.webhook, allow_head=False)  # a provider checks that the URL is ours
        router.add_get(_ADMIN, self._admin.list)
        router.add_put(f"{_ADMIN}/{_ACCOUNT}", self._admin.put)
        router.add_delete(f"{_ADMIN}/{_ACCOUNT}", self._admin.delete)
        router.add_post(f"{_ADMIN}/{_ACCOUNT}/test", self._admin.test)

    async def close(self) -> None:
        await self._inbox.close()
        await self._providers.close()
