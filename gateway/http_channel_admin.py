"""HTTP handlers of /wunder/admin/channels: accounts kept by the API. Secrets go in and are never shown again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from actors.channels.account_book import AccountBook, masked, sealed
from actors.channels.accounts import MASK, SECRETS, Account, problems
from actors.channels.base import Lost, Outcome, Refused, Sent
from actors.channels.providers import Providers
from actors.channels.settings import ChannelAccountSettings
from actors.clock import Clock
from actors.errors import Conflict, InvalidRequest, NotFound
from actors.secrets import SecretBox
from gateway.auth import Auth
from gateway.http_common import ok, read_json
from gateway.turns import Turns
from storage.store import AsyncStorageBackend


class ChannelAccountBody(ChannelAccountSettings, frozen=True):
    """PUT /wunder/admin/channels/{account}: as an entry of `channels.accounts`."""


class ChannelAdminHandlers:
    """What the admin routes of channels need."""

    def __init__(
        self,
        auth: Auth,
        store: AsyncStorageBackend,
        book: AccountBook,
        box: SecretBox,
        providers: Providers,
        turns: Turns,
        clock: Clock,
    ) -> None:
        self._auth = auth
        self._store = store
        self._book = book
        self._box = box
        self._providers = providers
        self._turns = turns
        self._clock = clock

    async def list(self, request: web.Request) -> web.Response:
        await self._admin(request)
        found = await self._book.all()
        return ok({"items": [_view(found[name]) for name in sorted(found)]})

    async def put(self, request: web.Request) -> web.Response:
        """Replace an account; a secret that comes as its mask stays what it is."""
        await self._admin(request)
        given = await read_json(request, ChannelAccountBody)
        name = request.match_info["account"]
        self._book.forget()
        known = await self._book.account(name)
        if known is not None and known.from_file:
            raise Conflict("this account is in the settings file", field="account")
        settings = _with_kept_secrets(given, known)
        for setting, what in problems(settings):
            raise InvalidRequest(f"{setting}: {what}", field=setting)
        self._turns.check_agent(settings.agent or None)
        await self._store.put_channel_account(sealed(name, settings, self._box, self._clock.now_us()))
        self._book.forget()
        return ok(_view(Account(name=name, settings=settings, from_file=False)))

    async def delete(self, request: web.Request) -> web.Response:
        await self._admin(request)
        account = await self._found(request)
        if account.from_file:
            raise Conflict("this account is in the settings file", field="account")
        deleted = await self._store.delete_channel_account(account.name)
        self._book.forget()
        return ok({"deleted": deleted, "account": account.name})

    async def test(self, request: web.Request) -> web.Response:
        """Whether the provider takes the account's credentials."""
        await self._admin(request)
        account = await self._found(request)
        return ok({"account": account.name, **_outcome(await self._providers.check(account))})

    async def _admin(self, request: web.Request) -> None:
        self._auth.require_admin(await self._auth.authenticate(request))

    async def _found(self, request: web.Request) -> Account:
        account = await self._book.account(request.match_info["account"])
        if account is None:
            raise NotFound("there is no such account")
        return account


def _view(account: Account) -> Mapping[str, Any]:
    return {"account": account.name, "from_file": account.from_file, **masked(account.settings)}


def _with_kept_secrets(given: ChannelAccountSettings, known: Account | None) -> ChannelAccountSettings:
    kept = {
        name: getattr(known.settings, name)
        for name in SECRETS
        if known is not None and getattr(given, name) == MASK and getattr(known.settings, name)
    }
    return msgspec.structs.replace(given, **kept)


def _outcome(outcome: Outcome) -> dict[str, Any]:
    match outcome:
        case Sent():
            return {"works": True, "code": None, "detail": outcome.provider_id or ""}
        case Refused():
            return {"works": False, "code": outcome.code, "detail": outcome.detail}
        case Lost():
            return {"works": False, "code": "no_answer", "detail": outcome.detail}
