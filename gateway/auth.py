"""Who is calling, and for whom they may act.

    Authorization: Bearer / X-API-Key / subprotocol / ?ticket=  ->  Auth.authenticate  ->  Principal
                                         cache (<= auth.revalidate_s) | store

Ending a token removes it from the cache and tells listeners, which close its sockets (4401). Gateways on
other nodes are told by `on_ended_here` listeners and then call `forget`; a gateway that was not reached
notices within `auth.revalidate_s`.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable
from typing import Literal

import msgspec
from aiohttp import web

from actors.clock import Clock
from actors.logs import log
from gateway.credentials import (
    TICKET_PREFIX,
    TOKEN_PREFIX,
    Credential,
    find_credential,
    hash_secret,
    is_well_formed,
    new_secret,
)
from gateway.errors import AuthRequired, PermissionDenied, RateLimited
from gateway.network import ClientNetworks
from gateway.origins import Origins
from gateway.rate_limit import RecentMap, TokenBuckets
from gateway.settings import Settings
from gateway.token_cache import TokenCache
from storage.database import settle
from storage.errors import Conflict, InvalidRequest, StorageUnavailable
from storage.records import TicketRecord, TokenRecord, UserId, UserRecord
from storage.store import UserStorage

API_KEY_USER = UserId("api_key")
_KEY_NETWORK_S = 86_400.0
_USER_ID = re.compile(r"[A-Za-z0-9_.@:-]{1,128}")

TokenListener = Callable[[str], None]


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """The caller of one request or connection. `expires_us` is None for the API key."""

    user_id: UserId
    username: str
    is_admin: bool
    token_hash: str | None
    via: Literal["token", "api_key", "ticket"]
    expires_us: int | None = None

    def may_see(self, owner: UserId) -> bool:
        """Whether things of this owner exist for the caller."""
        return self.is_admin or self.user_id == owner


class Auth:
    """Issues, checks and ends tokens and tickets; one per gateway."""

    def __init__(self, store: UserStorage, settings: Settings, clock: Clock, *, max_cached: int = 65_536) -> None:
        self._store = store
        self._clock = clock
        self._auth = settings.auth
        self._allow_query_token = settings.security.allow_query_token
        self._api_key_hash = hash_secret(settings.security.api_key) if settings.security.api_key else ""
        self._cache = TokenCache(store.find_token, clock, keep_s=settings.auth.revalidate_s / 2, max_entries=max_cached)
        self._guesses = TokenBuckets(
            clock,
            rate_per_minute=settings.auth.network_rate_per_minute,
            burst=settings.auth.network_burst,
            max_debt=settings.auth.network_burst,
        )
        self._key_networks: RecentMap[str, bool] = RecentMap(clock, keep_s=_KEY_NETWORK_S, max_entries=4096)
        self.networks = ClientNetworks(settings.server.trusted_proxies)
        self.origins = Origins(settings, self.networks)
        self._listeners: list[TokenListener] = []
        self._local_listeners: list[TokenListener] = []

    # -- who is calling ------------------------------------------------------------------------------------

    async def authenticate(self, request: web.Request) -> Principal:
        """The caller; `AuthRequired` without a valid credential. A ticket is used up by this."""
        credential = find_credential(request, allow_query_token=self._allow_query_token)
        principal = self._peek(credential)
        if principal is None:
            network = self.networks.network(request)
            principal = self._match_api_key(credential, network) or await self._look_up(credential, network)
        if principal is None:
            raise AuthRequired("the credential is not valid, or not any more", hint="sign in again")
        return principal

    async def revalidate(self, principal: Principal, *, fresh: bool = False) -> bool:
        """Whether the caller's credential still holds: as the store has it now (`fresh`), or as it lately had it.

        While the store is unreachable a credential that has not expired counts as valid. A connection calls
        this once after it has registered itself (the token may have ended since `authenticate`), then
        periodically.
        """
        if principal.token_hash is None:
            return True
        try:
            look = self._cache.refresh if fresh else self._cache.get
            return await look(principal.token_hash) is not None
        except StorageUnavailable:
            return principal.expires_us is None or principal.expires_us > self._clock.now_us()

    def acting_user(self, principal: Principal, requested_user_id: str | None) -> UserId:
        """For whom the caller acts: a user for itself only, the API key for anybody it names."""
        if principal.via != "api_key":
            if requested_user_id is None or requested_user_id == principal.user_id:
                return principal.user_id
            raise PermissionDenied("a user can only act for itself", field="user_id")
        if requested_user_id is None:
            raise InvalidRequest("user_id: needed with an API key: for whom?", field="user_id")
        if not _USER_ID.fullmatch(requested_user_id):
            raise InvalidRequest("user_id: 1 to 128 of A-Z a-z 0-9 _ . @ : -", field="user_id")
        return UserId(requested_user_id)

    def require_admin(self, principal: Principal) -> None:
        """`PermissionDenied` unless the caller is an admin or has the API key."""
        if not principal.is_admin:
            raise PermissionDenied("this is for admins")

    def check_origin(self, request: web.Request) -> None:
        """`PermissionDenied` for a web page that may not call us (see gateway/origins.py)."""
        self.origins.check(request)

    # -- tokens and tickets --------------------------------------------------------------------------------

    async def issue_token(self, user: UserRecord) -> tuple[str, TokenRecord]:
        """A new token (given once; only its hash is stored) and its record."""
        token = new_secret(TOKEN_PREFIX)
        now_us = self._clock.now_us()
        record = TokenRecord(
            token_hash=hash_secret(token),
            user_id=user.user_id,
            created_us=now_us,
            expires_us=now_us + int(self._auth.token_ttl_s * 1_000_000),
        )
        await self._store.put_token(record)
        return token, record

    async def issue_ticket(self, principal: Principal) -> tuple[str, TicketRecord]:
        """A single-use credential for `?ticket=`, bound to the caller's token."""
        if principal.token_hash is None:
            raise PermissionDenied("tickets are for signed-in users", hint="send the API key in a header")
        ticket = new_secret(TICKET_PREFIX)
        record = TicketRecord(
            ticket_hash=hash_secret(ticket),
            user_id=principal.user_id,
            token_hash=principal.token_hash,
            expires_us=self._clock.now_us() + int(self._auth.ticket_ttl_s * 1_000_000),
        )
        try:
            await self._store.put_ticket(record)
        except Conflict:  # the token ended on another node and the news has not come yet
            self.forget(principal.token_hash)
            raise AuthRequired("the credential is not valid any more", hint="sign in again") from None
        return ticket, record

    async def end_token(self, token_hash: str) -> bool:
        """End a token everywhere; False if it had ended already."""
        ended = await self._store.delete_token(token_hash)
        self._ended_here([token_hash])
        return ended

    async def change_password(self, user_id: UserId, password_hash: str, *, keep: str | None) -> list[str]:
        """Set a password and end the user's tokens except `keep`; their hashes. All of it or nothing."""

        async def change() -> list[str]:
            hashes = await self._store.change_password(user_id, password_hash, keep=keep)
            self._ended_here(hashes or ())
            return hashes or []

        return await settle(change())

    def forget(self, token_hash: str) -> None:
        """A token ended on some node: drop it here and tell the listeners."""
        self._cache.forget(token_hash)
        _tell(self._listeners, token_hash)

    def refresh(self, token_hash: str) -> None:
        """The token's user changed: read it again at the next use (nothing is closed)."""
        self._cache.forget(token_hash)

    def on_token_ended(self, listener: TokenListener) -> None:
        """Call `listener(token_hash)` whenever a token ended, here or (by `forget`) elsewhere."""
        self._listeners.append(listener)

    def on_ended_here(self, listener: TokenListener) -> None:
        """Call `listener(token_hash)` when this gateway ended a token: what other gateways must be told."""
        self._local_listeners.append(listener)

    def cached_tokens(self) -> int:
        """How many tokens are in memory."""
        return len(self._cache)

    def sweep(self) -> None:
        """Remove entries that are too old to be used."""
        self._cache.sweep()
        self._guesses.sweep()
        self._key_networks.sweep()

    # -- inside --------------------------------------------------------------------------------------------

    def _match_api_key(self, credential: Credential, network: str) -> Principal | None:
        """Where the key was used lately it is never refused: others' guesses must not shut its owner out."""
        if not self._api_key_hash or credential.kind not in {"bearer", "api_key"}:
            return None
        if self._key_networks.get(network) is None:
            self._check_guesses(network)
        if not hmac.compare_digest(hash_secret(credential.secret), self._api_key_hash):
            return None
        self._key_networks.put(network, True)
        return _api_key_principal()

    def _peek(self, credential: Credential) -> Principal | None:
        """The way of almost every request: a token that is known already."""
        if credential.kind not in {"bearer", "token"}:
            return None
        found = self._cache.peek(hash_secret(credential.secret))
        return None if found is None else _principal(*found, via="token")

    async def _look_up(self, credential: Credential, network: str) -> Principal | None:
        """Ask the store. A wrong credential costs its network a token: guessing cannot load it, nor go on."""
        self._check_guesses(network)
        principal = None
        if credential.kind != "api_key" and is_well_formed(credential.secret, _prefix(credential)):
            principal = await self._find(credential)
        if principal is None:
            self._guesses.charge(network)
        return principal

    def _check_guesses(self, network: str) -> None:
        wait_s = self._guesses.wait_s(network)
        if wait_s:
            raise RateLimited("too many credentials that are not valid", retry_after_s=wait_s)

    async def _find(self, credential: Credential) -> Principal | None:
        secret_hash = hash_secret(credential.secret)
        if credential.kind != "ticket":
            found = await self._cache.get(secret_hash)
            return None if found is None else _principal(*found, via="token")
        taken = await self._store.take_ticket(secret_hash, self._clock.now_us())
        if taken is None:
            return None
        found = await self._cache.get(taken[0].token_hash)
        return None if found is None else _principal(*found, via="ticket")

    def _ended_here(self, token_hashes: Iterable[str]) -> None:
        for token_hash in token_hashes:
            self.forget(token_hash)
            _tell(self._local_listeners, token_hash)


AUTH = web.AppKey("auth", Auth)


def _prefix(credential: Credential) -> str:
    return TICKET_PREFIX if credential.kind == "ticket" else TOKEN_PREFIX


def _api_key_principal() -> Principal:
    return Principal(user_id=API_KEY_USER, username="api_key", is_admin=True, token_hash=None, via="api_key")


def _principal(token: TokenRecord, user: UserRecord, *, via: Literal["token", "ticket"]) -> Principal:
    return Principal(
        user_id=user.user_id,
        username=user.username,
        is_admin=user.is_admin,
        token_hash=token.token_hash,
        via=via,
        expires_us=token.expires_us,
    )


def _tell(listeners: list[TokenListener], token_hash: str) -> None:
    """One listener's failure does not keep the others from closing their sockets."""
    for listener in listeners:
        try:
            listener(token_hash)
        except Exception as error:
            log.exception("token_listener_failed", error)
