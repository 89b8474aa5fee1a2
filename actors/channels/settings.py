"""Settings of channels, and what the outbox process is started with: it alone gets their secrets."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from actors.settings import ActorSettings, Count, Section
from storage.settings import Seconds

ChannelName = Literal["webhook", "slack", "telegram", "feishu", "whatsapp", "email"]
SessionStrategy = Literal["per_peer", "main", "thread"]


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


class ChannelAccountSettings(Section, frozen=True):
    """One entry of `channels.accounts`: which provider, its credentials, and how its messages are worked on.

    Which credentials a provider needs is in actors/channels/accounts.py. `messages_per_minute` and `max_active` of 0
    mean no limit.
    """

    channel: ChannelName = "webhook"
    enabled: bool = True
    agent: str = ""
    user_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:@-]{0,128}$")] = ""
    session: SessionStrategy = "per_peer"
    messages_per_minute: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    max_active: Annotated[int, Meta(ge=0, le=100_000)] = 0
    base_url: str = ""
    url: str = ""
    signing_secret: str = ""
    bot_token: str = ""
    secret_token: str = ""
    app_id: str = ""
    app_secret: str = ""
    encrypt_key: str = ""
    verification_token: str = ""
    access_token: str = ""
    phone_number_id: str = ""
    smtp_host: str = ""
    smtp_port: Annotated[int, Meta(ge=1, le=65_535)] = 587
    smtp_tls: Literal["starttls", "implicit", "none"] = "starttls"
    username: str = ""
    password: str = ""
    sender: str = ""


class ChannelBindingSettings(Section, frozen=True):
    """One entry of `channels.bindings`: messages that fit everything that is given go to this agent."""

    channel: Literal["", "webhook", "slack", "telegram", "feishu", "whatsapp", "email"] = ""
    account: str = ""
    peer_kind: Literal["", "direct", "group"] = ""
    peer: str = ""
    agent: str = ""
    session: Literal["", "per_peer", "main", "thread"] = ""


class ChannelsSettings(Section, frozen=True):
    """Accounts at messaging providers, and the ways out."""

    accounts: dict[str, ChannelAccountSettings] = msgspec.field(default_factory=dict)
    bindings: dict[str, ChannelBindingSettings] = msgspec.field(default_factory=dict)
    allow_hosts: tuple[str, ...] = ()
    max_body_bytes: Annotated[int, Meta(ge=1024)] = 1_048_576
    timeout_s: Seconds = 15.0
    accounts_cache_s: Seconds = 5.0
    outbox: OutboxSettings = OutboxSettings()
    webhooks: WebhooksSettings = WebhooksSettings()


class OutboxProcessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an outbox is started with."""

    actors: ActorSettings = ActorSettings()
    channels: ChannelsSettings = ChannelsSettings()
    secrets_keys: tuple[str, ...] = ()
