"""Telegram's Bot API. The webhook has the secret token of setWebhook in a header, and one update a request.

Telegram signs nothing: the token is the whole proof, and there is no time to check. A message is known by its chat and
its number there.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from actors.channels.base import Delivery, Outcome, Refused, Sent
from actors.channels.inbound import HttpRequest, Inbound, Reception, convert, decode, reception
from actors.channels.outgoing import Answer, Outgoing, call, seconds, short, unreadable
from actors.channels.sender import ApiChannel
from actors.channels.settings import ChannelAccountSettings
from actors.channels.signatures import check_equal


class _Chat(msgspec.Struct):
    id: int
    type: str


class _Sender(msgspec.Struct):
    id: int
    is_bot: bool = False


class _Message(msgspec.Struct):
    message_id: int
    chat: _Chat
    sender: _Sender | None = msgspec.field(name="from", default=None)
    text: str | None = None
    message_thread_id: int | None = None
    is_topic_message: bool = False


class TelegramUpdates:
    """Updates of one bot."""

    name: ClassVar[str] = "telegram"
    methods: ClassVar[frozenset[str]] = frozenset({"POST"})

    def receive(self, account: ChannelAccountSettings, request: HttpRequest, now_s: float) -> Reception:
        given = request.header("x-telegram-bot-api-secret-token")
        check_equal(given, account.secret_token, "secret token")
        update = decode(request.body, dict[str, Any])
        if "message" not in update:
            return Reception(omitted=("unsupported",))
        message = convert(update["message"], _Message)
        if message.sender is not None and message.sender.is_bot:
            return Reception(omitted=("own",))
        if message.text is None or message.sender is None:
            return Reception(omitted=("unsupported",))
        topic = str(message.message_thread_id) if message.is_topic_message else None
        return reception(
            Inbound(
                message_id=f"{message.chat.id}:{message.message_id}",
                peer=str(message.chat.id),
                peer_kind="direct" if message.chat.type == "private" else "group",
                sender=str(message.sender.id),
                text=message.text,
                thread=topic,
                reply_thread=topic,
                reply_to=None if message.chat.type == "private" else str(message.message_id),
            )
        )


class TelegramChannel(ApiChannel):
    """sendMessage; errors are `{"ok": false, "error_code", "description", "parameters": {"retry_after"}}`."""

    name = "telegram"
    base_url = "https://api.telegram.org"

    async def deliver(self, account: ChannelAccountSettings, delivery: Delivery, body: Outgoing) -> Outcome:
        message: dict[str, Any] = {"chat_id": delivery.peer, "text": body.text}
        if (topic := _number(body.thread)) is not None:
            message["message_thread_id"] = topic
        if (quoted := _number(body.reply_to)) is not None:
            message["reply_parameters"] = {"message_id": quoted, "allow_sending_without_reply": True}
        return await self._call(account, "sendMessage", message)

    async def check(self, account: ChannelAccountSettings) -> Outcome:
        return await self._call(account, "getMe", {})

    async def _call(self, account: ChannelAccountSettings, method: str, body: dict[str, Any]) -> Outcome:
        url = self.url(account, f"bot{account.bot_token}/{method}")
        answer = await call(self._client, "POST", url, body=msgspec.json.encode(body))
        if not isinstance(answer, Answer):
            return answer
        data = answer.data
        if data is None or not isinstance(data.get("ok"), bool):
            return unreadable(answer)
        if data["ok"]:
            result = data.get("result")
            found = result.get("message_id", result.get("id")) if isinstance(result, dict) else None
            return Sent(provider_id=short(found), status=answer.status)
        parameters = data.get("parameters")
        wait = parameters.get("retry_after") if isinstance(parameters, dict) else None
        code = data.get("error_code")
        return Refused(
            status=code if isinstance(code, int) else answer.status,
            code=short(code if code is not None else f"http_{answer.status}"),
            detail=short(data.get("description", "")),
            retry_after_s=seconds(str(wait)) if wait is not None else answer.retry_after_s,
        )


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 20 else None
