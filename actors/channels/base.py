"""What the outbox asks of a channel: send one delivery, once, and say what became of it.

Sent      the provider has it
Refused   the provider (or our own guard) said no; the retry table of `retries` says whether that is for good
Lost      the request left and no answer came: it may have had its effect
"""

from __future__ import annotations

from typing import Protocol

import msgspec


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One outbox item on its way; `delivery_id` is the same at every attempt, `body` is the channel's own JSON.

    Deliveries to one `peer` (a chat, an address, an endpoint) of an account are sent in order.
    """

    delivery_id: str
    attempt: int
    account: str
    peer: str
    body: bytes


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """Accepted by the provider, who calls it `provider_id`."""

    provider_id: str | None = None
    status: int | None = None


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """Not accepted. `code` is the provider's own word for the reason, `detail` the head of its answer."""

    status: int | None
    code: str
    detail: str = ""
    retry_after_s: float | None = None


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """No answer: whether the provider has it is unknown."""

    detail: str


Outcome = Sent | Refused | Lost


class Channel(Protocol):
    """One provider's way out; one object serves all accounts, many deliveries at once."""

    name: str

    async def send(self, delivery: Delivery) -> Outcome:
        """Never raises for what a provider or the network does; bounded in time by the outbound client."""

    async def close(self) -> None: ...
