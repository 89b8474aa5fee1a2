"""POST /wunder/auth/{register,login,logout,password,ticket} and GET, PATCH /wunder/auth/me."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from actors.clock import isoformat
from gateway.accounts import Accounts, SignedIn
from gateway.auth import Auth, Principal
from gateway.http_common import ok, read_json
from storage.records import UserRecord

_MAX_BODY_BYTES = 16_384

Name = Annotated[str, Meta(max_length=128)]
Password = Annotated[str, Meta(max_length=1024)]
Email = Annotated[str, Meta(max_length=256)]


class RegisterBody(msgspec.Struct):
    username: Name
    password: Password
    email: Email | None = None


class LoginBody(msgspec.Struct):
    username: Name
    password: Password


class PasswordBody(msgspec.Struct):
    current_password: Password
    new_password: Password


class ProfileBody(msgspec.Struct):
    email: Email | None = None


class AuthHandlers:
    """The handlers of sign-in; all rules are in gateway/accounts.py."""

    def __init__(self, auth: Auth, accounts: Accounts) -> None:
        self._auth = auth
        self._accounts = accounts

    async def register(self, request: web.Request) -> web.Response:
        body = await read_json(request, RegisterBody, max_bytes=_MAX_BODY_BYTES)
        network = self._auth.networks.network(request)
        signed_in = await self._accounts.register(body.username, body.password, body.email, network=network)
        return ok(_signed_in(signed_in))

    async def login(self, request: web.Request) -> web.Response:
        body = await read_json(request, LoginBody, max_bytes=_MAX_BODY_BYTES)
        network = self._auth.networks.network(request)
        return ok(_signed_in(await self._accounts.login(body.username, body.password, network=network)))

    async def logout(self, request: web.Request) -> web.Response:
        await self._accounts.logout(await self._auth.authenticate(request))
        return ok({"signed_out": True})

    async def password(self, request: web.Request) -> web.Response:
        principal = await self._auth.authenticate(request)
        body = await read_json(request, PasswordBody, max_bytes=_MAX_BODY_BYTES)
        ended = await self._accounts.change_password(
            principal, body.current_password, body.new_password, network=self._auth.networks.network(request)
        )
        return ok({"changed": True, "ended_tokens": ended})

    async def ticket(self, request: web.Request) -> web.Response:
        ticket, record = await self._auth.issue_ticket(await self._auth.authenticate(request))
        return ok({"ticket": ticket, "expires_at": isoformat(record.expires_us)})

    async def get_me(self, request: web.Request) -> web.Response:
        principal = await self._auth.authenticate(request)
        if principal.token_hash is None:
            return ok(_api_key_view(principal))
        return ok(user_view(await self._accounts.get(principal)))

    async def patch_me(self, request: web.Request) -> web.Response:
        principal = await self._auth.authenticate(request)
        body = await read_json(request, ProfileBody, max_bytes=_MAX_BODY_BYTES)
        if body.email is None:
            return ok(user_view(await self._accounts.get(principal)))
        return ok(user_view(await self._accounts.change_email(principal, body.email)))


def add_auth_routes(app: web.Application, auth: Auth, accounts: Accounts) -> None:
    """Put the sign-in routes into the app."""
    handlers = AuthHandlers(auth, accounts)
    app.router.add_post("/wunder/auth/register", handlers.register)
    app.router.add_post("/wunder/auth/login", handlers.login)
    app.router.add_post("/wunder/auth/logout", handlers.logout)
    app.router.add_post("/wunder/auth/password", handlers.password)
    app.router.add_post("/wunder/auth/ticket", handlers.ticket)
    app.router.add_get("/wunder/auth/me", handlers.get_me)
    app.router.add_patch("/wunder/auth/me", handlers.patch_me)


def user_view(user: UserRecord) -> dict[str, Any]:
    """A user as the API shows it: never the hash."""
    return {
        "user_id": user.user_id,
        "username": user.username,
        "email": user.email or None,
        "is_admin": user.is_admin,
        "created_at": isoformat(user.created_us),
    }


def _api_key_view(principal: Principal) -> dict[str, Any]:
    return {
        "user_id": principal.user_id,
        "username": principal.username,
        "email": None,
        "is_admin": principal.is_admin,
        "created_at": None,
    }


def _signed_in(signed_in: SignedIn) -> dict[str, Any]:
    return {
        "access_token": signed_in.token,
        "expires_at": isoformat(signed_in.record.expires_us),
        "user": user_view(signed_in.user),
    }
