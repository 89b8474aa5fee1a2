"""Slack: the Events API in (`v0` signatures, the challenge, messages to the bot), chat.postMessage out.

A mention in a channel comes as `app_mention` and, if the app listens to the channel, as `message` besides: both have
the channel and `ts` of one message, which is why these make its id, and not the event's own id.
"""

from __future__ import annotations

import html
import re
from typing import Any, ClassVar, Literal

import msgspec

from actors.channels.base import Delivery, Outcome, Refused, Sent
from actors.channels.inbound import HttpRequest, Inbound, Reception, Ref, convert, decode, reception
from actors.channels.outgoing import Answer, Outgoing, call, short, unreadable
from actors.channels.sender import ApiChannel
from actors.channels.settings import ChannelAccountSettings
from actors.channels.signatures import check_equal, check_window, hmac_sha256

_MENTION = re.compile(r"^\s*<@[A-Z0-9]+(?:\|[^>]*)?>")


class _Envelope(msgspec.Struct):
    type: str = ""
    challenge: str = ""
    event: dict[str, Any] = {}


class _Message(msgspec.Struct):
    type: Literal["message", "app_mention"]
    channel: Ref
    ts: Ref
    user: Ref
    text: str = ""
    thread_ts: Ref | None = None
    channel_type: str = ""


class SlackEvents:
    """Requests of one Slack app."""

    name: ClassVar[str] = "slack"
    methods: ClassVar[frozenset[str]] = frozenset({"POST"})

    def receive(self, account: ChannelAccountSettings, request: HttpRequest, now_s: float) -> Reception:
        timestamp = request.header("x-slack-request-timestamp")
        check_window(timestamp, now_s)
        mac = hmac_sha256(account.signing_secret, b"v0:", timestamp.encode(), b":", request.body)
        check_equal(request.header("x-slack-signature"), f"v0={mac.hexdigest()}", "signature")
        envelope = decode(request.body, _Envelope)
        if envelope.type == "url_verification":
            return Reception(answer=msgspec.json.encode({"challenge": envelope.challenge}))
        event = envelope.event
        if envelope.type != "event_callback" or event.get("type") not in ("message", "app_mention"):
            return Reception(omitted=("unsupported",))
        if event.get("bot_id") or event.get("app_id"):
            return Reception(omitted=("own",))
        if event.get("subtype") or "user" not in event:
            return Reception(omitted=("unsupported",))
        return _message(convert(event, _Message))


def _message(event: _Message) -> Reception:
    direct = event.channel_type == "im" or (not event.channel_type and event.channel.startswith("D"))
    text = event.text if direct else _MENTION.sub("", event.text, count=1)
    return reception(
        Inbound(
            message_id=f"{event.channel}:{event.ts}",
            peer=event.channel,
            peer_kind="direct" if direct else "group",
            sender=event.user,
            text=html.unescape(text),
            thread=event.thread_ts or event.ts,
            reply_thread=event.thread_ts if direct else event.thread_ts or event.ts,
        )
    )


class SlackChannel(ApiChannel):
    """chat.postMessage; Slack answers 200 with `ok: false` for most errors, and 429 with Retry-After."""

    name = "slack"
    base_url = "https://slack.com/api"

    async def deliver(self, account: ChannelAccountSettings, delivery: Delivery, body: Outgoing) -> Outcome:
        message = {"channel": delivery.peer, "text": escape(body.text), "unfurl_links": False}
        if body.thread is not None:
            message["thread_ts"] = body.thread
        return await self._call(account, "chat.postMessage", message)

    async def check(self, account: ChannelAccountSettings) -> Outcome:
        return await self._call(account, "auth.test", {})

    async def _call(self, account: ChannelAccountSettings, method: str, body: dict[str, Any]) -> Outcome:
        headers = {"Authorization": f"Bearer {account.bot_token}"}
        answer = await call(
            self._client, "POST", self.url(account, method), headers=headers, body=msgspec.json.encode(body)
        )
        if not isinstance(answer, Answer):
            return answer
        if answer.data is None or not isinstance(answer.data.get("ok"), bool):
            return unreadable(answer)
        if answer.data["ok"]:
            return Sent(provider_id=short(answer.data.get("ts") or answer.data.get("team_id") or ""), status=200)
        code = short(answer.data.get("error", "unknown_error"))
        return Refused(status=answer.status, code=code, detail=code, retry_after_s=answer.retry_after_s)


def escape(text: str) -> str:
    """Slack's three control characters as they are written in text."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
