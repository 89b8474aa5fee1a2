"""What every provider's way out shares: the body of an outbox item, and one API call with every ending it can have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from actors.channels.accounts import Account
from actors.channels.base import Delivery, Lost, Refused
from actors.channels.retries import EGRESS_REFUSED, UNREADABLE
from actors.tools.egress import EgressFailed, EgressRefused, EgressUnreachable, GuardedClient

_DETAIL_CHARS = 200
_JSON = {"Content-Type": "application/json; charset=utf-8", "Accept": "application/json"}


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """One part of an answer, as it stands in the outbox; where it goes is the delivery's `peer`."""

    text: str
    thread: str | None = None
    reply_to: str | None = None
    part: int = 1
    parts: int = 1


class Accounts(Protocol):
    """Finds an account by its name."""

    async def account(self, name: str) -> Account | None: ...


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What an API said: `data` is its JSON object, None if it was something else."""

    status: int
    headers: Mapping[str, str]
    data: dict[str, Any] | None
    head: str

    @property
    def retry_after_s(self) -> float | None:
        return seconds(self.headers.get("Retry-After"))


async def call(
    client: GuardedClient,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Answer | Refused | Lost:
    """One request to an API. What never left is `Refused`, what had no answer is `Lost`."""
    try:
        response = await client.request(
            method, url, headers={**_JSON, **(headers or {})}, body=body, follow_redirects=False
        )
    except EgressRefused as error:
        return Refused(status=None, code=EGRESS_REFUSED, detail=error.message)
    except EgressUnreachable as error:
        return Refused(status=None, code="unreachable", detail=error.message)
    except EgressFailed as error:
        return Lost(detail=error.message)
    try:
        data = msgspec.json.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        data = None
    return Answer(
        status=response.status,
        headers=response.headers,
        data=data if isinstance(data, dict) else None,
        head=response.body[:_DETAIL_CHARS].decode("utf-8", "replace"),
    )


def unreadable(answer: Answer) -> Refused | Lost:
    """For an answer without the API's JSON: an error's status tells, a 2xx may or may not have had its effect."""
    if 200 <= answer.status < 300:
        return Lost(detail=f"answered {answer.status} with something that is not its API's JSON")
    return Refused(
        status=answer.status, code=f"http_{answer.status}", detail=answer.head, retry_after_s=answer.retry_after_s
    )


def outgoing(delivery: Delivery) -> Outgoing | Refused:
    """The delivery's body; one that nobody of ours wrote is refused."""
    try:
        return msgspec.json.decode(delivery.body, type=Outgoing)
    except msgspec.DecodeError as error:
        return Refused(status=None, code=UNREADABLE, detail=str(error)[:_DETAIL_CHARS])


def seconds(text: str | None) -> float | None:
    """A header's number of seconds, if it is one."""
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def short(value: object) -> str:
    """The head of something that a provider said."""
    return str(value)[:_DETAIL_CHARS]


NO_ACCOUNT = Refused(status=None, code="no_account", detail="there is no such account, or it is disabled")
