"""Rows of channels, and the Protocol of their storage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import msgspec

from storage.outbox_records import NewOutboxItem
from storage.records import Enqueued, NewTask, SessionId, TurnId, UserId


class ChannelAccountRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An account kept by the API: `settings` is JSON without secrets, `secrets` their sealed JSON."""

    name: str
    channel: str
    settings: bytes
    secrets: str | None
    created_us: int
    updated_us: int


class ChatKey(msgspec.Struct, frozen=True, kw_only=True):
    """What has a session of its own: a chat of an account, a thread in it, or the whole account."""

    channel: str
    account: str
    peer_key: str


class ChannelMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A verified message: `message_id` is the provider's, `session_id` the session to begin if its chat has none."""

    chat: ChatKey
    message_id: str
    turn_id: TurnId
    session_id: SessionId
    user_id: UserId
    received_us: int


class ChannelPace(msgspec.Struct, frozen=True, kw_only=True):
    """An account's limits: a message every `interval_us`, `burst_us` of them ahead; so many turns at once. 0: none."""

    interval_us: int = 0
    burst_us: int = 0
    max_active: int = 0


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """How a message's task is to be queued: in which session, when it may start, and whether it gives way."""

    session_id: SessionId
    run_at_us: int | None = None
    gives_way: bool = False


class ChannelAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a message; `enqueued` is None for one that came before."""

    enqueued: Enqueued | None = None


class ChatState(msgspec.Struct, frozen=True, kw_only=True):
    """A chat when it gives a command: its session, and the turn of it that runs, or is the next to run."""

    session_id: SessionId | None = None
    user_id: UserId | None = None
    active: TurnId | None = None


ChannelCommand = Literal["new", "stop", "help"]
MakeTask = Callable[[Admission], NewTask]
"""The task of a message, with the session that is to be made if there is none; pure."""


MakeReply = Callable[[ChatState], Sequence[NewOutboxItem]]
"""What a command is answered with; pure."""


class ChannelStorage(Protocol):
    """Accounts, and messages that come in."""

    async def put_channel_account(self, account: ChannelAccountRecord) -> None: ...
    async def delete_channel_account(self, name: str) -> bool: ...
    async def list_channel_accounts(self) -> list[ChannelAccountRecord]: ...
    async def accept_channel_message(
        self, message: ChannelMessage, pace: ChannelPace, make: MakeTask, *, now_us: int
    ) -> ChannelAccepted:
        """Record a message and its task in one transaction; nothing if the message came before.

        Of concurrent callers with the same message exactly one enqueues. Repeating the call gives the same answer.
        """

    async def accept_channel_command(
        self, message: ChannelMessage, command: ChannelCommand, reply: MakeReply
    ) -> ChatState | None:
        """Record a message that is a command, its effect and its answer in one transaction; None if it came before.

        `new`: the chat has no session any more. `stop`: a cancel of its active turn is requested.
        """

    async def delete_channel_messages(self, before_us: int) -> int: ...
