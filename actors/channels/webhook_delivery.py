"""What is recorded of a completion webhook; `webhook` sends it."""

from __future__ import annotations

import msgspec

WEBHOOK = "webhook"
"""The channel's name."""


class WebhookDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """Where to, the sealed secret (None: the one of the settings), and the event, which is sent byte for byte."""

    url: str
    secret: str | None = None
    event: msgspec.Raw
