"""WhatsApp Cloud: Meta's `X-Hub-Signature-256`, the GET that checks the URL, and many messages in one request.

Meta signs the body alone and delivers again for days, so there is no window: what keeps a repetition out is the id of
the message.
"""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import quote

import msgspec

from actors.channels.base import Delivery, Outcome, Refused, Sent
from actors.channels.inbound import (
    HttpRequest,
    Inbound,
    Omission,
    Reception,
    Ref,
    SignatureRejected,
    convert,
    decode,
    reception,
)
from actors.channels.outgoing import Answer, Outgoing, call, short, unreadable
from actors.channels.sender import ApiChannel
from actors.channels.settings import ChannelAccountSettings
from actors.channels.signatures import check_equal, hmac_sha256, raw

_RATE_LIMITS = frozenset((4, 80007, 130429, 131048, 131056, 133016))
"""Of the app, the business account, the number's throughput, spam, one pair of numbers: with status 400 or 429."""


class _Text(msgspec.Struct):
    body: str


class _Metadata(msgspec.Struct):
    phone_number_id: str


class _Value(msgspec.Struct):
    metadata: _Metadata
    messages: list[dict[str, Any]] = []


class _Change(msgspec.Struct):
    field: str
    value: dict[str, Any] = {}


class _Entry(msgspec.Struct):
    changes: list[_Change] = []


class _Body(msgspec.Struct):
    object: str = ""
    entry: list[_Entry] = []


class _Message(msgspec.Struct):
    id: Ref
    type: str
    sender: Ref = msgspec.field(name="from")
    text: _Text | None = None


class WhatsAppEvents:
    """Webhooks of one business phone number."""

    name: ClassVar[str] = "whatsapp"
    methods: ClassVar[frozenset[str]] = frozenset({"GET", "POST"})

    def receive(self, account: ChannelAccountSettings, request: HttpRequest, now_s: float) -> Reception:
        if request.method == "GET":
            return _subscribe(account, request)
        mac = hmac_sha256(account.app_secret, request.body)
        check_equal(request.header("x-hub-signature-256"), f"sha256={mac.hexdigest()}", "signature")
        body = decode(request.body, _Body)
        if body.object != "whatsapp_business_account":
            return Reception(omitted=("unsupported",))
        found = [_change(account, change) for entry in body.entry for change in entry.changes]
        return Reception(
            messages=tuple(message for one in found for message in one.messages),
            omitted=tuple(omission for one in found for omission in one.omitted),
        )


def _subscribe(account: ChannelAccountSettings, request: HttpRequest) -> Reception:
    check_equal(request.parameter("hub.verify_token"), account.verification_token, "verify token")
    if request.parameter("hub.mode") != "subscribe":
        raise SignatureRejected("the mode is not subscribe")
    return Reception(answer=raw(request.parameter("hub.challenge")), content_type="text/plain")


def _change(account: ChannelAccountSettings, change: _Change) -> Reception:
    """Other numbers of the same app, and receipts (`statuses`), are left out."""
    if change.field != "messages":
        return Reception(omitted=("unsupported",))
    value = convert(change.value, _Value)
    if value.metadata.phone_number_id != account.phone_number_id or not value.messages:
        return Reception(omitted=("unsupported",))
    messages: list[Inbound] = []
    omitted: list[Omission] = []
    for one in value.messages:
        message = convert(one, _Message)
        if message.type != "text" or message.text is None:
            omitted.append("unsupported")
            continue
        inbound = Inbound(
            message_id=message.id,
            peer=message.sender,
            peer_kind="direct",
            sender=message.sender,
            text=message.text.body,
        )
        found = reception(inbound)
        messages.extend(found.messages)
        omitted.extend(found.omitted)
    return Reception(messages=tuple(messages), omitted=tuple(omitted))


class WhatsAppChannel(ApiChannel):
    """Messages of the Cloud API; errors are `{"error": {"code", "message", ...}}`, whose code tells more than the
    status."""

    name = "whatsapp"
    base_url = "https://graph.facebook.com/v23.0"

    async def deliver(self, account: ChannelAccountSettings, delivery: Delivery, body: Outgoing) -> Outcome:
        message: dict[str, Any] = {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": delivery.peer,
            "type": "text",
            "text": {"body": body.text, "preview_url": False},
        }
        if body.reply_to is not None:
            message["context"] = {"message_id": body.reply_to}
        return await self._call(account, "POST", "/messages", message)

    async def check(self, account: ChannelAccountSettings) -> Outcome:
        return await self._call(account, "GET", "?fields=id", None)

    async def _call(
        self, account: ChannelAccountSettings, method: str, path: str, body: dict[str, Any] | None
    ) -> Outcome:
        url = self.url(account, f"{quote(account.phone_number_id, safe='')}{path}")
        headers = {"Authorization": f"Bearer {account.access_token}"}
        encoded = None if body is None else msgspec.json.encode(body)
        answer = await call(self._client, method, url, headers=headers, body=encoded)
        if not isinstance(answer, Answer):
            return answer
        error = answer.data.get("error") if answer.data is not None else None
        if answer.data is None or (error is None and answer.status >= 300):
            return unreadable(answer)
        if isinstance(error, dict):
            code = error.get("code")
            limited = isinstance(code, int) and code in _RATE_LIMITS
            return Refused(
                status=429 if limited else answer.status,
                code=short(code),
                detail=short(error.get("message", "")),
                retry_after_s=answer.retry_after_s,
            )
        sent = answer.data.get("messages") or [answer.data]
        found = sent[0].get("id") if isinstance(sent, list) and isinstance(sent[0], dict) else None
        return unreadable(answer) if found is None else Sent(provider_id=short(found), status=answer.status)
