"""Signatures of Standard Webhooks (standardwebhooks.com): who has the secret can tell that we sent the body, and when.

webhook-id         the delivery's id: the same at every attempt
webhook-timestamp  seconds since the epoch, of this attempt
webhook-signature  `v1,<base64 of HMAC-SHA256 over id.timestamp.body>`, one for each secret, separated by spaces
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

PREFIX = "whsec_"
SECRET_FORM = f"{PREFIX} followed by 24 to 64 bytes in base64"


def is_signing_secret(text: str) -> bool:
    """Whether a text is a secret that can sign."""
    if not text.startswith(PREFIX):
        return False
    try:
        return 24 <= len(base64.b64decode(text.removeprefix(PREFIX), validate=True)) <= 64
    except (binascii.Error, ValueError):
        return False


def signed_headers(secrets: Sequence[str], delivery_id: str, body: bytes, *, now_us: int) -> dict[str, str]:
    """The three headers of one attempt; several secrets sign while receivers change from one to the other."""
    when = datetime.fromtimestamp(now_us // 1_000_000, UTC)
    signatures = [Webhook(secret).sign(delivery_id, when, body.decode()) for secret in secrets]
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(now_us // 1_000_000),
        "webhook-signature": " ".join(signatures),
    }
