"""The first admin: there are no default accounts."""

from __future__ import annotations

import secrets

import msgspec

from actors.clock import Clock
from actors.logs import log
from gateway.password_rules import PasswordRules
from gateway.passwords import PasswordHasher
from storage.records import UserId, UserRecord
from storage.store import UserStorage

ADMIN_USERNAME = "admin"


class FirstAdmin(msgspec.Struct, frozen=True):
    """The admin that was made; `password` only if nobody chose it: print it once, it is kept nowhere."""

    username: str
    password: str | None = None


async def bootstrap_admin(
    store: UserStorage,
    hasher: PasswordHasher,
    rules: PasswordRules,
    clock: Clock,
    *,
    configured_password: str = "",
) -> FirstAdmin | None:
    """Make the first admin if there is none. Of several processes that try at once, one gets an answer."""
    if await store.has_admin():
        return None
    if configured_password:
        rules.check(configured_password, username=ADMIN_USERNAME, field="security.bootstrap_admin_password")
    password = configured_password or secrets.token_urlsafe(18)
    user = UserRecord(
        user_id=UserId(clock.new_id("user")),
        username=ADMIN_USERNAME,
        password_hash=await hasher.hash(password),
        is_admin=True,
        created_us=clock.now_us(),
    )
    if not await store.create_first_admin(user):
        return None
    log.info("first_admin_created", user_id=user.user_id)
    return FirstAdmin(ADMIN_USERNAME, None if configured_password else password)
