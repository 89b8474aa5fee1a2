"""What the providers' signatures have in common: a window around now, and comparing without telling how far it got."""

from __future__ import annotations

import hashlib
import hmac

from actors.channels.inbound import SignatureRejected

WINDOW_S = 300
"""How old, or how far ahead of our clock, a signed request may be."""


def check_window(timestamp: str, now_s: float) -> None:
    """`SignatureRejected` unless this is a whole number of seconds within the window."""
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        raise SignatureRejected("the timestamp is not a number of seconds")
    if abs(now_s - int(timestamp)) > WINDOW_S:
        raise SignatureRejected(f"the timestamp is more than {WINDOW_S} s away from now")


def check_equal(given: str, expected: str, what: str) -> None:
    """`SignatureRejected` unless both are the same; an empty expectation never is."""
    if not expected or not hmac.compare_digest(raw(given), raw(expected)):
        raise SignatureRejected(f"the {what} is wrong")


def raw(text: str) -> bytes:
    """The bytes of a header, also of one that is not UTF-8."""
    return text.encode("utf-8", "surrogateescape")


def hmac_sha256(secret: str | bytes, *parts: bytes) -> hmac.HMAC:
    """HMAC-SHA256 of the parts one after the other; an empty secret proves nothing and is refused."""
    if not secret:
        raise SignatureRejected("the account has no secret")
    mac = hmac.new(secret if isinstance(secret, bytes) else raw(secret), digestmod=hashlib.sha256)
    for part in parts:
        mac.update(part)
    return mac
