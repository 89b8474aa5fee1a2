"""`MemoryUsers`: the users, tokens and tickets of a store, in memory and without a database."""

from __future__ import annotations

import msgspec

from storage.errors import Conflict, StorageUnavailable
from storage.records import TicketRecord, TokenRecord, UserId, UserRecord


class MemoryUsers:
    """`UserStorage` in dicts. `reads` counts look-ups; `down` makes every call fail."""

    def __init__(self) -> None:
        self.users: dict[UserId, UserRecord] = {}
        self.tokens: dict[str, TokenRecord] = {}
        self.tickets: dict[str, TicketRecord] = {}
        self.reads = 0
        self.down = False

    async def create_user(self, user: UserRecord) -> None:
        self._check()
        if await self.find_user(user.username) is not None:
            raise Conflict("this username is taken", field="username")
        self.users[user.user_id] = user

    async def create_first_admin(self, user: UserRecord) -> bool:
        if await self.has_admin():
            return False
        await self.create_user(user)
        return True

    async def has_admin(self) -> bool:
        self._check()
        return any(user.is_admin for user in self.users.values())

    async def find_user(self, username: str) -> UserRecord | None:
        self._check()
        key = username.casefold()
        return next((u for u in self.users.values() if u.username.casefold() == key), None)

    async def get_user(self, user_id: UserId) -> UserRecord | None:
        self._check()
        return self.users.get(user_id)

    async def update_user(
        self, user_id: UserId, *, email: str | None = None, password_hash: str | None = None
    ) -> UserRecord | None:
        self._check()
        user = self.users.get(user_id)
        if user is None:
            return None
        self.users[user_id] = msgspec.structs.replace(
            user,
            email=user.email if email is None else email,
            password_hash=password_hash or user.password_hash,
        )
        return self.users[user_id]

    async def change_password(self, user_id: UserId, password_hash: str, *, keep: str | None) -> list[str] | None:
        if await self.update_user(user_id, password_hash=password_hash) is None:
            return None
        ended = [h for h, token in self.tokens.items() if token.user_id == user_id and h != keep]
        for token_hash in ended:
            del self.tokens[token_hash]
        return ended

    async def put_token(self, token: TokenRecord) -> None:
        self._check()
        self.tokens[token.token_hash] = token

    async def find_token(self, token_hash: str, now_us: int) -> tuple[TokenRecord, UserRecord] | None:
        self._check()
        token = self.tokens.get(token_hash)
        if token is None or token.expires_us <= now_us:
            return None
        return token, self.users[token.user_id]

    async def delete_token(self, token_hash: str) -> bool:
        self._check()
        return self.tokens.pop(token_hash, None) is not None

    async def put_ticket(self, ticket: TicketRecord) -> None:
        self._check()
        self.tickets[ticket.ticket_hash] = ticket

    async def take_ticket(self, ticket_hash: str, now_us: int) -> tuple[TicketRecord, UserRecord] | None:
        self._check()
        ticket = self.tickets.pop(ticket_hash, None)
        if ticket is None or ticket.expires_us <= now_us:
            return None
        return ticket, self.users[ticket.user_id]

    async def delete_expired_credentials(self, now_us: int) -> int:
        self._check()
        old_tokens = [h for h, token in self.tokens.items() if token.expires_us <= now_us]
        old_tickets = [h for h, ticket in self.tickets.items() if ticket.expires_us <= now_us]
        for token_hash in old_tokens:
            del self.tokens[token_hash]
        for ticket_hash in old_tickets:
            del self.tickets[ticket_hash]
        return len(old_tokens) + len(old_tickets)

    def _check(self) -> None:
        self.reads += 1
        if self.down:
            raise StorageUnavailable("the database is down")
