"""What a provider's webhook request is turned into: verified first, on the raw body, then parsed.

HttpRequest ──verify──► SignatureRejected (401)
                └──parse──► Unreadable (400) | Reception: an answer to give, messages, what was left out
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar

import msgspec
from msgspec import Meta

from actors.channels.settings import ChannelAccountSettings
from actors.errors import WunderError

PeerKind = Literal["direct", "group"]
Omission = Literal["unsupported", "own", "empty", "too_long"]
Ref = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\u0000]*$")]
"""An id that a provider gives: of a message, a chat, a sender, a thread."""

MAX_TEXT_CHARS = 100_000
T = TypeVar("T")


class SignatureRejected(WunderError):
    """The request does not prove that the provider sent it, or is older or newer than the window allows."""

    code = "AUTH_REQUIRED"
    status = 401


class Unreadable(WunderError):
    """It was signed, but is not what the provider documents."""

    code = "INVALID_REQUEST"
    status = 400


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it came; header names in any case, repeated ones kept."""

    method: str
    headers: tuple[tuple[str, str], ...]
    query: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def header(self, name: str) -> str:
        """The only value of a header; `SignatureRejected` if there is none or more than one."""
        found = [value for key, value in self.headers if key.lower() == name]
        if len(found) != 1:
            raise SignatureRejected(f"the header {name} is {'missing' if not found else 'there more than once'}")
        return found[0]

    def parameter(self, name: str) -> str:
        """The only value of a query parameter, as `header`."""
        found = [value for key, value in self.query if key == name]
        if len(found) != 1:
            raise SignatureRejected(f"the parameter {name} is {'missing' if not found else 'there more than once'}")
        return found[0]


class Inbound(msgspec.Struct, frozen=True, kw_only=True):
    """One message of a person. `peer` is the chat it is in, `thread` a conversation inside that chat.

    `message_id` is what the provider repeats when it delivers again. A reply goes to `reply_thread` of the peer, and
    names the message `reply_to` where the provider can quote one.
    """

    message_id: Ref
    peer: Ref
    peer_kind: PeerKind
    sender: Ref
    text: str
    thread: str | None = None
    reply_thread: str | None = None
    reply_to: str | None = None


class Reception(msgspec.Struct, frozen=True, kw_only=True):
    """What a verified request holds; `answer` is the body that the provider waits for (a challenge)."""

    messages: tuple[Inbound, ...] = ()
    omitted: tuple[Omission, ...] = ()
    answer: bytes | None = None
    content_type: str = "application/json"


class Adapter(Protocol):
    """The way in of one provider: pure, so that the same request gives the same reception."""

    name: ClassVar[str]
    methods: ClassVar[frozenset[str]]

    def receive(self, account: ChannelAccountSettings, request: HttpRequest, now_s: float) -> Reception:
        """`SignatureRejected` or `Unreadable`, else what the request holds."""


def decode(body: bytes, type_: type[T]) -> T:
    """JSON as `type_`; unknown fields are ignored."""
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(f"not what the provider documents: {str(error)[:200]}") from None


def convert(value: Any, type_: type[T]) -> T:
    """Decoded JSON as `type_`."""
    try:
        return msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        raise Unreadable(f"not what the provider documents: {str(error)[:200]}") from None


def reception(message: Inbound) -> Reception:
    """A message with its text cleaned, or why it is left out."""
    text = message.text.replace("\0", "").strip()
    if not text:
        return Reception(omitted=("empty",))
    if len(text) > MAX_TEXT_CHARS:
        return Reception(omitted=("too_long",))
    return Reception(messages=(msgspec.structs.replace(message, text=text),))
