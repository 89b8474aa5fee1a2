"""Which channels an outbox sends through."""

from __future__ import annotations

from actors.channels.account_book import AccountBook, AccountStorage
from actors.channels.base import Channel
from actors.channels.providers import Providers
from actors.channels.settings import OutboxProcessSettings
from actors.channels.webhook import WebhookChannel
from actors.clock import Clock
from actors.secrets import SecretBox


def channels_of(settings: OutboxProcessSettings, store: AccountStorage, clock: Clock) -> dict[str, Channel]:
    """Completion webhooks, and the way out to every provider, by name."""
    secrets = SecretBox(settings.secrets_keys)
    accounts = AccountBook(settings.channels, store, secrets, clock)
    most = settings.channels.outbox.max_in_flight
    found: list[Channel] = [
        WebhookChannel(settings.channels.webhooks, secrets, clock, max_in_flight=most),
        *Providers(settings.channels, accounts, clock).channels.values(),
    ]
    return {channel.name: channel for channel in found}
