"""What an account of each provider needs, and which of it is secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import msgspec

from actors.channels.settings import ChannelAccountSettings, ChannelName
from actors.channels.signing import SECRET_FORM, is_signing_secret

SECRETS = frozenset(
    (
        "signing_secret",
        "bot_token",
        "secret_token",
        "app_secret",
        "encrypt_key",
        "verification_token",
        "access_token",
        "password",
    )
)
"""The settings of an account that are encrypted at rest, never logged, and shown as `MASK`."""

ACCOUNT_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
MASK = "********"

NEEDED: dict[ChannelName, tuple[str, ...]] = {
    "webhook": ("signing_secret",),
    "slack": ("signing_secret", "bot_token"),
    "telegram": ("bot_token", "secret_token"),
    "feishu": ("app_id", "app_secret", "encrypt_key", "verification_token"),
    "whatsapp": ("app_secret", "verification_token", "access_token", "phone_number_id"),
    "email": ("smtp_host", "sender"),
}
"""Without these an account can neither check what comes in nor send."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's account under the name that an operator gave it."""

    name: str
    settings: ChannelAccountSettings
    from_file: bool


def problems(account: ChannelAccountSettings) -> Iterator[tuple[str, str]]:
    """What is wrong with an account: (setting, what was expected)."""
    for name in NEEDED[account.channel]:
        if not getattr(account, name):
            yield name, f"is needed for an account of {account.channel}"
    for name in ("base_url", "url"):
        if (given := getattr(account, name)) and not _is_http(given):
            yield name, "expected a URL such as https://host/path"
    if account.channel == "webhook" and account.signing_secret and not is_signing_secret(account.signing_secret):
        yield "signing_secret", f"expected {SECRET_FORM}"
    if account.smtp_tls == "none" and account.password:
        yield "smtp_tls", "expected starttls or implicit: the password would cross the network in clear"
    for name in SECRETS:
        if getattr(account, name) == MASK:
            yield name, "is the mask that stands for a secret, not a secret"


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False
