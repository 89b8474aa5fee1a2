"""Users, access tokens and tickets."""

from __future__ import annotations

from typing import Any

from storage.database import Runner
from storage.errors import Conflict
from storage.records import TicketRecord, TokenRecord, UserId, UserRecord
from storage.rows import plain_text, user_record
from storage.topic import StoreTopic

FIRST_ADMIN_LOCK = 0x61646D696E  # "admin" in ASCII


class UserTopic(StoreTopic):
    """`UserStorage` in SQL."""

    async def create_user(self, user: UserRecord) -> None:
        try:
            await self._db.execute("create_user", *_user_params(user))
        except Conflict as error:
            if await self.get_user(user.user_id) != user:
                raise Conflict("this username is taken", field="username") from error

    async def create_first_admin(self, user: UserRecord) -> bool:
        async def create(tx: Runner) -> bool:
            await tx.fetch("take_lock", FIRST_ADMIN_LOCK)
            row = await tx.fetchrow("has_admin")
            if row is not None and row["found"]:
                return await tx.fetchrow("get_user", user.user_id) is not None
            await tx.execute("create_user", *_user_params(user))
            return True

        try:
            return await self._db.transact(create)
        except Conflict as error:
            raise Conflict("this username is taken", field="username") from error

    async def has_admin(self) -> bool:
        row = await self._db.fetchrow("has_admin")
        return row is not None and bool(row["found"])

    async def find_user(self, username: str) -> UserRecord | None:
        row = await self._db.fetchrow("find_user", username_key(username))
        return None if row is None else user_record(row)

    async def get_user(self, user_id: UserId) -> UserRecord | None:
        row = await self._db.fetchrow("get_user", user_id)
        return None if row is None else user_record(row)

    async def update_user(
        self, user_id: UserId, *, email: str | None = None, password_hash: str | None = None
    ) -> UserRecord | None:
        row = await self._db.fetchrow("update_user", user_id, plain_text(email), password_hash)
        return None if row is None else user_record(row)

    async def change_password(self, user_id: UserId, password_hash: str, *, keep: str | None) -> list[str] | None:
        async def change(tx: Runner) -> list[str] | None:
            if await tx.fetchrow("update_user", user_id, None, password_hash) is None:
                return None
            rows = await tx.fetch("delete_user_tokens", user_id, keep or "")
            return [row["token_hash"] for row in rows]

        return await self._db.transact(change)

    async def put_token(self, token: TokenRecord) -> None:
        await self._db.execute("put_token", token.token_hash, token.user_id, token.created_us, token.expires_us)

    async def find_token(self, token_hash: str, now_us: int) -> tuple[TokenRecord, UserRecord] | None:
        row = await self._db.fetchrow("find_token", token_hash, now_us)
        if row is None:
            return None
        token = TokenRecord(
            token_hash=row["token_hash"],
            user_id=row["user_id"],
            created_us=row["token_created_us"],
            expires_us=row["expires_us"],
        )
        return token, user_record(row)

    async def delete_token(self, token_hash: str) -> bool:
        return await self._db.execute("delete_token", token_hash) > 0

    async def put_ticket(self, ticket: TicketRecord) -> None:
        await self._db.execute("put_ticket", ticket.ticket_hash, ticket.user_id, ticket.token_hash, ticket.expires_us)

    async def take_ticket(self, ticket_hash: str, now_us: int) -> tuple[TicketRecord, UserRecord] | None:
        row = await self._db.fetchrow("take_ticket", ticket_hash, now_us)
        if row is None:
            return None
        ticket = TicketRecord(
            ticket_hash=row["ticket_hash"],
            user_id=row["user_id"],
            token_hash=row["token_hash"],
            expires_us=row["expires_us"],
        )
        user = await self.get_user(ticket.user_id)
        return None if user is None else (ticket, user)

    async def delete_expired_credentials(self, now_us: int) -> int:
        tickets = await self._db.execute("delete_expired_tickets", now_us)
        return tickets + await self._db.execute("delete_expired_tokens", now_us)


def username_key(username: str) -> str:
    """What makes two usernames the same: case does not count."""
    return (plain_text(username) or "").casefold()


def _user_params(user: UserRecord) -> tuple[Any, ...]:
    return (
        user.user_id,
        plain_text(user.username),
        username_key(user.username),
        user.password_hash,
        plain_text(user.email),
        user.is_admin,
        user.created_us,
    )
