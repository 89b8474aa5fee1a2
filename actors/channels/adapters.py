"""The ways in, by channel: every provider that people can write from."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from actors.channels.feishu import FeishuEvents
from actors.channels.inbound import Adapter
from actors.channels.slack import SlackEvents
from actors.channels.standard_webhook import StandardWebhookEvents
from actors.channels.telegram import TelegramUpdates
from actors.channels.whatsapp import WhatsAppEvents

ADAPTERS: Mapping[str, Adapter] = MappingProxyType(
    {
        adapter.name: adapter
        for adapter in (StandardWebhookEvents(), SlackEvents(), TelegramUpdates(), FeishuEvents(), WhatsAppEvents())
    }
)
