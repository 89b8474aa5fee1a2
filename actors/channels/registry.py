"""Which channels an outbox sends through."""

from __future__ import annotations

from actors.channels.base import Channel
from actors.channels.settings import OutboxProcessSettings
from actors.channels.webhook import WebhookChannel
from actors.clock import Clock
from actors.secrets import SecretBox


def channels_of(settings: OutboxProcessSettings, clock: Clock) -> dict[str, Channel]:
    """Every channel of the settings, by name."""
    secrets = SecretBox(settings.secrets_keys)
    found: list[Channel] = [WebhookChannel(settings.channels.webhooks, secrets, clock)]
    return {channel.name: channel for channel in found}
