"""Pages of lists that are in order of time: cursors that only we can have made, and times as clients read them."""

from __future__ import annotations

import base64
import binascii

from actors.clock import isoformat
from actors.errors import InvalidRequest


def time_text(us: int | None) -> str | None:
    """Microseconds as clients read them."""
    return None if us is None else isoformat(us)


def encode_cursor(created_us: int, key: str) -> str:
    """Where a page ended: when its last entry was made, and its id."""
    return base64.urlsafe_b64encode(f"{created_us}:{key}".encode()).decode().rstrip("=")


def decode_cursor(text: str | None) -> tuple[int, str] | None:
    """Where a page ended; `InvalidRequest` for anything that no page has given."""
    if text is None:
        return None
    try:
        created, separator, key = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().partition(":")
        if separator and key and created.isdigit() and len(created) < 18:
            return int(created), key
    except (binascii.Error, ValueError):
        pass
    raise InvalidRequest("cursor: not a cursor that a page has given", field="cursor")
