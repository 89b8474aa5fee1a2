"""What Wunder asks of a database about its outbox; see `outbox_writer` for what `ready` means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from storage.outbox_records import NewOutboxItem, OutboxAttempt, OutboxFilter, OutboxItem, OutboxResult
from storage.records import OwnerId


class OutboxStorage(Protocol):
    """Deliveries, in lines by peer. Those that tell of a turn's end are recorded by its completion."""

    async def post_outbox(self, items: Sequence[NewOutboxItem]) -> int:
        """Record deliveries at the ends of their lines; how many were new. `Conflict` if another does just that."""

    async def ready_routes(self) -> list[tuple[str, int]]:
        """Each route that has something ready, with when its next may be sent."""

    async def claim_outbox(
        self, owner_id: OwnerId, routes: Sequence[tuple[str, int]], *, now_us: int
    ) -> list[OutboxItem]:
        """Begin attempts at what is due, of each route at most so many. Nothing without a live lease.

        Of concurrent claimers exactly one gets a delivery, and none waits for another.
        """

    async def record_outbox(self, results: Sequence[OutboxResult]) -> tuple[list[bool], int]:
        """End attempts; False for one that is not under way any more. Also how many others became ready by it.

        Repeating an end that was recorded gives True again.
        """

    async def abandoned_outbox(self, owner_id: OwnerId, *, limit: int) -> list[OutboxItem]:
        """What is being sent by owners without a live lease, and what the caller has claimed itself."""

    async def get_outbox(self, delivery_id: str) -> OutboxItem | None: ...
    async def outbox_attempts(self, delivery_id: str) -> list[OutboxAttempt]: ...
    async def list_outbox(
        self, wanted: OutboxFilter, *, before: tuple[int, str] | None, limit: int
    ) -> list[OutboxItem]:
        """Newest first, older than `before` (created_us, delivery_id)."""

    async def retry_outbox(self, delivery_ids: Sequence[str], *, now_us: int) -> list[str]:
        """Send finished ones again, at the ends of their lines, and waiting ones now; those that it did."""

    async def drop_outbox(self, delivery_ids: Sequence[str], *, now_us: int) -> list[str]:
        """Send waiting ones not any more, and dismiss dead ones; those that it did."""

    async def outbox_states(self) -> dict[tuple[str, str], tuple[int, int]]:
        """By channel and state (pending, sending, dead): how many, and when the oldest was recorded."""

    async def delete_outbox(self, *, before_us: int, limit: int) -> int:
        """Retention: remove at most so many that were sent or dropped before then."""
