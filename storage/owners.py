"""Owners and their leases, in the database's own time.

    register (lease 15 s) ── renew every 4 s ──> live ── no renewal in time ──> lapsed: cannot renew,
                                                   └── expire_owner ─────────>  its sessions are free to take

A lapsed owner stays lapsed: it registers again under a new id. Leases use a connection of their own, so that a
busy pool cannot make them lapse.
"""

from __future__ import annotations

from storage.records import OwnerId, SessionId
from storage.topic import StoreTopic

SECOND_US = 1_000_000


class OwnerTopic(StoreTopic):
    """The owners' part of `SessionStorage` in SQL."""

    async def register_owner(self, owner_id: OwnerId, node_id: str, *, lease_s: float) -> None:
        await self._db.execute_reserved("register_owner", owner_id, node_id, round(lease_s * SECOND_US))

    async def renew_owner(self, owner_id: OwnerId, *, lease_s: float) -> bool:
        return await self._db.execute_reserved("renew_owner", owner_id, round(lease_s * SECOND_US)) > 0

    async def expire_owner(self, owner_id: OwnerId) -> None:
        await self._db.execute("expire_owner", owner_id)

    async def live_owners(self) -> list[OwnerId]:
        return [row["owner_id"] for row in await self._db.fetch("live_owners")]

    async def delete_lapsed_owners(self, *, older_than_s: float) -> int:
        return await self._db.execute("delete_lapsed_owners", round(older_than_s * SECOND_US))

    async def owned_sessions(self) -> list[tuple[SessionId, OwnerId]]:
        return [(row["session_id"], row["owner_id"]) for row in await self._db.fetch("owned_sessions")]

    async def orphaned_sessions(self, *, limit: int, now_us: int, ready: bool = True) -> list[SessionId]:
        return [row["session_id"] for row in await self._db.fetch("orphaned_sessions", limit, ready, now_us)]
