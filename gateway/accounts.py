"""Accounts: register, sign in, change password and profile. Knows nothing of HTTP."""

from __future__ import annotations

import re

import msgspec

from actors.clock import Clock
from actors.errors import ServiceUnavailable
from actors.logs import log
from gateway.auth import Auth, Principal
from gateway.errors import AuthRequired, PermissionDenied
from gateway.login_throttle import LoginThrottle
from gateway.password_rules import PasswordRules
from gateway.passwords import PasswordHasher
from storage.errors import InvalidRequest, StorageError
from storage.records import TokenRecord, UserId, UserRecord
from storage.store import UserStorage

_USERNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,63}")
_EMAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,190}")
_RESERVED = frozenset({"admin", "administrator", "root", "system", "wunder", "api_key"})


class SignedIn(msgspec.Struct, frozen=True):
    """A fresh token and whose it is."""

    token: str
    record: TokenRecord
    user: UserRecord


class Accounts:
    """Every way to make or use a password goes through the throttle and the hashing pool."""

    def __init__(
        self,
        *,
        store: UserStorage,
        auth: Auth,
        hasher: PasswordHasher,
        throttle: LoginThrottle,
        rules: PasswordRules,
        clock: Clock,
        registration_open: bool,
    ) -> None:
        self._store = store
        self._auth = auth
        self._hasher = hasher
        self._throttle = throttle
        self._rules = rules
        self._clock = clock
        self._registration_open = registration_open

    async def register(self, username: str, password: str, email: str | None, *, network: str) -> SignedIn:
        """Create an account and sign in; `Conflict` for a taken name, `PermissionDenied` when closed."""
        if not self._registration_open:
            raise PermissionDenied("registration is closed", hint="ask an administrator for an account")
        if username.casefold() in _RESERVED:
            raise InvalidRequest("username: this name is reserved", field="username")
        self._throttle.take_network(network)
        user = await self.create_user(username, password, email=email)
        self._throttle.succeeded(_account(username), network)
        return await self._sign_in(user)

    async def create_user(
        self, username: str, password: str, *, email: str | None = None, is_admin: bool = False
    ) -> UserRecord:
        """Add an account (also for admins, whatever the registration setting)."""
        if not _USERNAME.fullmatch(username):
            raise InvalidRequest("username: 1 to 64 of A-Z a-z 0-9 _ . @ + -", field="username")
        self._rules.check(password, username=username)
        user = UserRecord(
            user_id=UserId(self._clock.new_id("user")),
            username=username,
            password_hash=await self._hasher.hash(password),
            email=_checked_email(email) or None,
            is_admin=is_admin,
            created_us=self._clock.now_us(),
        )
        await self._store.create_user(user)
        log.info("user_created", user_id=user.user_id, is_admin=is_admin)
        return user

    async def login(self, username: str, password: str, *, network: str) -> SignedIn:
        """Sign in; the same `AuthRequired` after the same work for an unknown name and a wrong password."""
        user = await self._check(username, password, network=network)
        if user is None:
            log.warning("login_failed", network=network)
            raise AuthRequired("the username or the password is wrong")
        user = await self._rehash(user, password)
        signed_in = await self._sign_in(user)
        if not await self._still_right(user, password):
            await self._auth.end_token(signed_in.record.token_hash)
            raise AuthRequired("the username or the password is wrong")
        log.info("login", user_id=user.user_id, network=network)
        return signed_in

    async def logout(self, principal: Principal) -> None:
        """End the caller's token."""
        if principal.token_hash is None:
            raise PermissionDenied("an API key cannot sign out")
        await self._auth.end_token(principal.token_hash)
        log.info("logout", user_id=principal.user_id)

    async def change_password(self, principal: Principal, current: str, new: str, *, network: str) -> int:
        """Set a new password and end the user's other tokens; how many ended."""
        user = await self.get(principal)
        self._rules.check(new, username=user.username, field="new_password")
        if await self._check(user.username, current, network=network) is None:
            log.warning("password_change_refused", user_id=user.user_id, network=network)
            raise PermissionDenied("the current password is wrong", field="current_password")
        password_hash = await self._hasher.hash(new)
        ended = await self._auth.change_password(user.user_id, password_hash, keep=principal.token_hash)
        log.info("password_changed", user_id=user.user_id, ended=len(ended))
        return len(ended)

    async def get(self, principal: Principal) -> UserRecord:
        """The caller's account; `PermissionDenied` for an API key, `AuthRequired` if it is gone."""
        if principal.token_hash is None:
            raise PermissionDenied("an API key has no account")
        user = await self._store.get_user(principal.user_id)
        if user is None:
            raise AuthRequired("the account does not exist any more")
        return user

    async def change_email(self, principal: Principal, email: str) -> UserRecord:
        """Set the caller's email address; "" removes it."""
        await self.get(principal)
        user = await self._store.update_user(principal.user_id, email=_checked_email(email))
        if user is None:
            raise AuthRequired("the account does not exist any more")
        return user

    async def _check(self, username: str, password: str, *, network: str) -> UserRecord | None:
        """The user if the password is right. Same steps whether or not there is such a user."""
        account = _account(username)
        self._throttle.begin(account, network)
        try:
            user = await self._store.find_user(username)
            right = await self._hasher.verify(user.password_hash if user else None, password)
        except (ServiceUnavailable, StorageError):
            self._throttle.abandoned(account, network)
            raise
        if not right or user is None:
            return None
        self._throttle.succeeded(account, network)
        return user

    async def _rehash(self, user: UserRecord, password: str) -> UserRecord:
        """Raise an old hash to today's parameters, unless the password was changed meanwhile."""
        if not self._hasher.needs_rehash(user.password_hash):
            return user
        password_hash = await self._hasher.hash(password)
        fresh = await self._store.get_user(user.user_id)
        if fresh is None or fresh.password_hash != user.password_hash:
            return user
        return await self._store.update_user(user.user_id, password_hash=password_hash) or user

    async def _sign_in(self, user: UserRecord) -> SignedIn:
        token, record = await self._auth.issue_token(user)
        return SignedIn(token, record, user)

    async def _still_right(self, user: UserRecord, password: str) -> bool:
        """A password that was changed while we checked the old one must not leave a token behind."""
        fresh = await self._store.get_user(user.user_id)
        if fresh is None:
            return False
        if fresh.password_hash == user.password_hash:
            return True
        return await self._hasher.verify(fresh.password_hash, password)


def _account(username: str) -> str:
    return username.casefold()


def _checked_email(email: str | None) -> str | None:
    if not email or _EMAIL.fullmatch(email):
        return email
    raise InvalidRequest("email: not an email address", field="email")
