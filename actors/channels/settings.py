"""Settings of channels, and what the outbox process is started with: it alone gets their secrets."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from actors.settings import ActorSettings, Count, Section
from storage.settings import Seconds


class ChannelLimits(Section, frozen=True):
    """One entry of `channels.outbox.per_channel`."""

    per_account: Count = 8


class OutboxSettings(Section, frozen=True):
    """How many deliveries are under way at a time, and when a provider is left alone."""

    enabled: bool = True
    max_in_flight: Annotated[int, Meta(ge=1, le=10_000)] = 256
    per_account: Count = 8
    per_channel: dict[str, ChannelLimits] = msgspec.field(default_factory=lambda: {"webhook": ChannelLimits()})
    poll_interval_ms: Annotated[float, Meta(ge=100, le=600_000)] = 5000.0
    send_timeout_s: Seconds = 60.0
    breaker_failures: Count = 5
    breaker_rest_s: Seconds = 5.0
    breaker_max_rest_s: Seconds = 300.0
    max_retry_after_s: Seconds = 3600.0

    def limit_of(self, channel: str) -> int:
        """How many deliveries of one account of a channel may be under way at a time."""
        chosen = self.per_channel.get(channel)
        return self.per_account if chosen is None else chosen.per_account


class WebhooksSettings(Section, frozen=True):
    """Completion webhooks: what signs those without a secret of their own, and where they may go."""

    secret: str = ""
    old_secrets: tuple[str, ...] = ()
    timeout_s: Seconds = 15.0
    allow_hosts: tuple[str, ...] = ()
    public: bool = True


class ChannelsSettings(Section, frozen=True):
    """The ways out."""

    outbox: OutboxSettings = OutboxSettings()
    webhooks: WebhooksSettings = WebhooksSettings()


class OutboxProcessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an outbox is started with."""

    actors: ActorSettings = ActorSettings()
    channels: ChannelsSettings = ChannelsSettings()
    secrets_keys: tuple[str, ...] = ()
