"""What is sent when a turn that came over a channel has ended: its answer in parts, or a short word that it failed.

Pure: the same task and end give the same deliveries with the same ids, so that recording them again changes nothing.
"""

from __future__ import annotations

import msgspec

from actors.channels.origin import ChannelOrigin
from actors.channels.outgoing import Outgoing
from actors.channels.split import Size, split, utf16_units
from storage.channel_records import ChannelCommand, ChatState
from storage.outbox_records import NewOutboxItem
from storage.records import TaskRecord, TurnId
from storage.turn_writer import Completion


def _slack_size(text: str) -> int:
    """As it is written, after `&`, `<` and `>` have become entities."""
    return len(text) + 4 * text.count("&") + 3 * (text.count("<") + text.count(">"))


LIMITS: dict[str, tuple[int, Size]] = {
    "slack": (4000, _slack_size),
    "telegram": (4096, utf16_units),
    "feishu": (8000, len),
    "whatsapp": (4096, len),
    "webhook": (20_000, len),
    "email": (200_000, len),
}
"""The longest text of one message, and how it is counted."""

WAYS_OUT = {"webhook": "callback"}
"""Channels whose way out has another name: `webhook` in the outbox are the completion webhooks."""

HELP = "/new begins a new conversation, /stop stops the answer that is being written, /help shows this."
NEW = "This is a new conversation."
STOPPED = "Stopped."
NOTHING = "There is nothing to stop."
EMPTY = "(The answer is empty.)"
FAILED = "Sorry, that did not work: {what} You can try again."
_WHAT = {
    "LLM_UNAVAILABLE": "the model cannot be reached.",
    "UPSTREAM_TIMEOUT": "the model took too long.",
    "SERVICE_UNAVAILABLE": "the service is busy.",
}
_OTHERWISE = "something went wrong on our side."


class _Request(msgspec.Struct):
    channel: ChannelOrigin | None = None


_requests = msgspec.json.Decoder(_Request)


class _Failure(msgspec.Struct):
    code: str = ""


def replies(task: TaskRecord, end: Completion) -> tuple[NewOutboxItem, ...]:
    """What the end of a task says to the chat it came from; nothing for others, and for what was cancelled.

    The ids are the turn's, the attempt's and the part's: a task that is tried again by hand answers again.
    """
    origin = _requests.decode(task.request).channel
    if origin is None or end.status in ("cancelled", "interrupted"):
        return ()
    text = (end.answer or "").strip() or EMPTY
    if end.status != "succeeded":
        code = msgspec.json.decode(end.error, type=_Failure).code if end.error else ""
        text = FAILED.format(what=_WHAT.get(code, _OTHERWISE))
    return messages(origin, end.turn_id, text, end.now_us, attempt=end.attempt)


def command_reply(
    origin: ChannelOrigin, turn_id: TurnId, command: ChannelCommand, state: ChatState, now_us: int
) -> tuple[NewOutboxItem, ...]:
    """What a command is answered with."""
    texts = {"help": HELP, "new": NEW, "stop": STOPPED if state.active is not None else NOTHING}
    return messages(origin, turn_id, texts[command], now_us)


def messages(
    origin: ChannelOrigin, turn_id: TurnId, text: str, now_us: int, *, attempt: int = 0
) -> tuple[NewOutboxItem, ...]:
    """A text as deliveries."""
    limit, size = LIMITS[origin.channel]
    parts = split(text, limit, size)
    return tuple(
        NewOutboxItem(
            delivery_id=f"{turn_id}-{attempt}-{number}",
            channel=WAYS_OUT.get(origin.channel, origin.channel),
            account=origin.account,
            peer=origin.peer,
            body=msgspec.json.encode(
                Outgoing(text=part, thread=origin.thread, reply_to=origin.reply_to, part=number, parts=len(parts))
            ),
            turn_id=turn_id,
            created_us=now_us,
        )
        for number, part in enumerate(parts, 1)
    )
