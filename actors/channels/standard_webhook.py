"""The generic webhook: signed as Standard Webhooks (https://www.standardwebhooks.com) says, in a body of our own.

webhook-id: msg_1            what a repetition repeats
webhook-timestamp: 1614265330
webhook-signature: v1,<base64 of HMAC-SHA256 over "id.timestamp.body"> [another key's ...]
{"text": "Hello", "peer": "room-7", "peer_kind": "group", "thread": "t1", "sender": "ann"}
"""

from __future__ import annotations

import hmac
from typing import Any, ClassVar

import msgspec

from actors.channels.base import Delivery, Outcome, Refused, Sent
from actors.channels.inbound import HttpRequest, Inbound, PeerKind, Reception, Ref, SignatureRejected, decode, reception
from actors.channels.outgoing import Accounts, Answer, Outgoing, call
from actors.channels.sender import ApiChannel
from actors.channels.settings import ChannelAccountSettings
from actors.channels.signatures import check_window, raw
from actors.channels.signing import is_signing_secret, signed_headers
from actors.clock import Clock, isoformat
from actors.tools.egress import GuardedClient

_MAX_SIGNATURES = 10


class _Message(msgspec.Struct):
    text: str
    peer: Ref = "default"
    peer_kind: PeerKind = "direct"
    thread: Ref | None = None
    sender: Ref | None = None


class StandardWebhookEvents:
    """Requests of any system that signs with the account's secret."""

    name: ClassVar[str] = "webhook"
    methods: ClassVar[frozenset[str]] = frozenset({"POST"})

    def receive(self, account: ChannelAccountSettings, request: HttpRequest, now_s: float) -> Reception:
        message_id = request.header("webhook-id")
        verify(account.signing_secret, request, now_s)
        message = decode(request.body, _Message)
        return reception(
            Inbound(
                message_id=message_id,
                peer=message.peer,
                peer_kind=message.peer_kind,
                sender=message.sender or message.peer,
                text=message.text,
                thread=message.thread,
                reply_thread=message.thread,
                reply_to=message_id,
            )
        )


def verify(secret: str, request: HttpRequest, now_s: float) -> None:
    """`SignatureRejected` unless one of the signatures is that of this id, time and body."""
    message_id, timestamp = request.header("webhook-id"), request.header("webhook-timestamp")
    check_window(timestamp, now_s)
    if not 0 < len(message_id) <= 200 or not message_id.isprintable():
        raise SignatureRejected("the header webhook-id is not an id")
    if not is_signing_secret(secret):
        raise SignatureRejected("the account's secret is none that can sign")
    try:
        expected = signed_headers((secret,), message_id, request.body, now_us=int(timestamp) * 1_000_000)
    except UnicodeDecodeError:
        raise SignatureRejected("the body is not UTF-8") from None
    given = request.header("webhook-signature").split(" ")[:_MAX_SIGNATURES]
    wanted = raw(expected["webhook-signature"])
    if sum(hmac.compare_digest(raw(one), wanted) for one in given) == 0:
        raise SignatureRejected("the signature is wrong")


class CallbackChannel(ApiChannel):
    """A POST to the account's `url`, signed like what comes in; any 2xx means that it was taken."""

    name = "callback"
    channel = "webhook"

    def __init__(self, accounts: Accounts, client: GuardedClient, clock: Clock) -> None:
        super().__init__(accounts, client)
        self._clock = clock

    async def deliver(self, account: ChannelAccountSettings, delivery: Delivery, body: Outgoing) -> Outcome:
        data = {"peer": delivery.peer, **msgspec.to_builtins(body)}
        return await self._post(account, delivery.delivery_id, {"type": "message.reply", "data": data})

    async def check(self, account: ChannelAccountSettings) -> Outcome:
        return await self._post(account, self._clock.new_id("test"), {"type": "test", "data": {}})

    async def _post(self, account: ChannelAccountSettings, message_id: str, body: dict[str, Any]) -> Outcome:
        if not account.url:
            return Refused(status=400, code="no_url", detail="the account has no url to send to")
        now_us = self._clock.now_us()
        content = msgspec.json.encode({**body, "timestamp": isoformat(now_us)})
        if not is_signing_secret(account.signing_secret):
            return Refused(status=400, code="bad_secret", detail="the account's secret is none that can sign")
        headers = signed_headers((account.signing_secret,), message_id, content, now_us=now_us)
        answer = await call(self._client, "POST", account.url, headers=headers, body=content)
        if not isinstance(answer, Answer):
            return answer
        if 200 <= answer.status < 300:
            return Sent(status=answer.status)
        return Refused(
            status=answer.status, code=f"http_{answer.status}", detail=answer.head, retry_after_s=answer.retry_after_s
        )
