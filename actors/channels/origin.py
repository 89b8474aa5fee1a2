"""Where a turn came from, if it came over a channel: it is kept with its task, and the answer goes there."""

from __future__ import annotations

import msgspec


class ChannelOrigin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A chat of an account; `thread` and `reply_to` are where in it the answer belongs."""

    channel: str
    account: str
    peer: str
    thread: str | None = None
    reply_to: str | None = None
