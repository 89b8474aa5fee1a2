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
    webhooks, most = settings.channels.webhooks, settings.channels.outbox.max_in_flight
    found: list[Channel] = [WebhookChannel(webhooks, secrets, clock, max_in_flight=most)]
    return {channel.name: channel for channel in found}
