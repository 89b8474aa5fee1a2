"""Pages by key: where one ended, as text for the client to give back."""

from __future__ import annotations

import base64
import binascii

from actors.clock import isoformat
from actors.errors import InvalidRequest


def next_cursor(us: int, id_: str) -> str:
    """The cursor behind the last item of a page."""
    return base64.urlsafe_b64encode(f"{us}:{id_}".encode()).decode().rstrip("=")


def page_cursor(text: str | None) -> tuple[int, str] | None:
    """Where a page ended; `InvalidRequest` for anything that no page has given."""
    if text is None:
        return None
    try:
        us, separator, id_ = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().partition(":")
        if separator and id_ and us.isdigit() and len(us) < 18:
            return int(us), id_
    except (binascii.Error, ValueError):
        pass
    raise InvalidRequest("cursor: not a cursor that a page has given", field="cursor")


def time_of(us: int | None) -> str | None:
    """A time as the API shows it."""
    return None if us is None else isoformat(us)
