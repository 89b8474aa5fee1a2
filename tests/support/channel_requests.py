"""Requests as the providers send them, signed with the code of their documentation and not with ours."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from actors.channels.inbound import HttpRequest, Inbound
from actors.channels.settings import ChannelAccountSettings

NOW_S = 1_800_000_000
SIGNING_KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

ACCOUNTS = {
    "webhook": ChannelAccountSettings(channel="webhook", signing_secret=SIGNING_KEY, url="https://receiver.example/in"),
    "slack": ChannelAccountSettings(channel="slack", signing_secret="slack-signing-secret", bot_token="xoxb-token"),
    "telegram": ChannelAccountSettings(channel="telegram", bot_token="1234:bot-token", secret_token="telegram-secret"),
    "feishu": ChannelAccountSettings(
        channel="feishu",
        app_id="cli_app",
        app_secret="feishu-app-secret",
        encrypt_key="feishu-encrypt-key",
        verification_token="feishu-verification",
    ),
    "whatsapp": ChannelAccountSettings(
        channel="whatsapp",
        app_secret="whatsapp-app-secret",
        verification_token="whatsapp-verify",
        access_token="EAAG-token",
        phone_number_id="106540352242922",
    ),
}


def standard_webhook(body: bytes, now_s: int, *, message_id: str = "msg_1") -> HttpRequest:
    key = base64.b64decode(SIGNING_KEY.removeprefix("whsec_"))
    digest = hmac.new(key, f"{message_id}.{now_s}.".encode() + body, hashlib.sha256).digest()
    signature = "v1," + base64.b64encode(digest).decode()
    return request(
        body, ("webhook-id", message_id), ("webhook-timestamp", str(now_s)), ("webhook-signature", signature)
    )


def slack(body: bytes, now_s: int) -> HttpRequest:
    digest = hmac.new(b"slack-signing-secret", f"v0:{now_s}:".encode() + body, hashlib.sha256).hexdigest()
    return request(body, ("X-Slack-Request-Timestamp", str(now_s)), ("X-Slack-Signature", f"v0={digest}"))


def telegram(body: bytes, now_s: int) -> HttpRequest:
    return request(body, ("X-Telegram-Bot-Api-Secret-Token", "telegram-secret"))


def feishu(body: bytes, now_s: int) -> HttpRequest:
    encrypted = feishu_encrypted(body)
    digest = hashlib.sha256(f"{now_s}nonce-1feishu-encrypt-key".encode() + encrypted).hexdigest()
    return request(
        encrypted,
        ("X-Lark-Request-Timestamp", str(now_s)),
        ("X-Lark-Request-Nonce", "nonce-1"),
        ("X-Lark-Signature", digest),
    )


def feishu_encrypted(body: bytes, key: str = "feishu-encrypt-key") -> bytes:
    room = 16 - len(body) % 16
    vector = hashlib.md5(body, usedforsecurity=False).digest()
    cipher = Cipher(AES(hashlib.sha256(key.encode()).digest()), CBC(vector)).encryptor()
    data = vector + cipher.update(body + bytes([room]) * room) + cipher.finalize()
    return json.dumps({"encrypt": base64.b64encode(data).decode()}).encode()


def whatsapp(body: bytes, now_s: int) -> HttpRequest:
    digest = hmac.new(b"whatsapp-app-secret", body, hashlib.sha256).hexdigest()
    return request(body, ("X-Hub-Signature-256", f"sha256={digest}"))


def request(body: bytes, *headers: tuple[str, str], method: str = "POST") -> HttpRequest:
    return HttpRequest(method=method, headers=(*headers, ("Content-Type", "application/json")), body=body)


@dataclass(frozen=True)
class Case:
    """One provider: how it signs, what it sends for one message, and what that is to us."""

    name: str
    sign: Callable[[bytes, int], HttpRequest]
    payload: dict[str, Any]
    expected: Inbound
    signature: str
    timestamp: str | None
    unsupported: tuple[dict[str, Any], ...] = ()
    own: tuple[dict[str, Any], ...] = ()
    account: ChannelAccountSettings = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "account", ACCOUNTS[self.name])

    def body(self, payload: dict[str, Any] | None = None) -> bytes:
        return json.dumps(payload if payload is not None else self.payload).encode()


def slack_event(**event: Any) -> dict[str, Any]:
    """The envelope of Slack's documentation around an event."""
    message = {"type": "message", "channel": "D024BE91L", "user": "U2147483697", "text": "Live long and prospect."}
    message |= {"ts": "1355517523.000005", "channel_type": "im", "event_ts": "1355517523.000005"}
    return {
        "token": "one-long-verification-token",
        "team_id": "T061EG9R6",
        "api_app_id": "A0PNCHHK2",
        "event": message | event,
        "type": "event_callback",
        "event_id": "Ev0PV52K21",
        "event_time": 1355517523,
    }


def telegram_update(**message: Any) -> dict[str, Any]:
    sender = {"id": 1111111, "is_bot": False, "first_name": "Test", "username": "Test"}
    chat = {"id": 1111111, "type": "private", "first_name": "Test", "username": "Test"}
    plain = {"date": 1441645532, "chat": chat, "message_id": 1365, "from": sender, "text": "/start"}
    return {"update_id": 10000, "message": plain | message}


def feishu_event(sender_type: str = "user", **message: Any) -> dict[str, Any]:
    sender = {"sender_id": {"union_id": "on_8ed6", "user_id": "e33ggbyz", "open_id": "ou_84aad35d"}}
    plain = {
        "message_id": "om_5ce6d572455d361153b7cb51da133945",
        "root_id": "",
        "chat_id": "oc_5ce6d572455d361153b7xx51da133945",
        "chat_type": "p2p",
        "message_type": "text",
        "content": json.dumps({"text": "hello"}),
        "create_time": "1609073151345",
    }
    return {
        "schema": "2.0",
        "header": {
            "event_id": "5e3702a84e847582be8db7fb73283c02",
            "event_type": "im.message.receive_v1",
            "create_time": "1608725989000",
            "token": "feishu-verification",
            "app_id": "cli_app",
            "tenant_key": "2ca1d211f64f6438",
        },
        "event": {"sender": sender | {"sender_type": sender_type}, "message": plain | message},
    }


def whatsapp_value(*messages: dict[str, Any], **value: Any) -> dict[str, Any]:
    metadata = {"display_phone_number": "15550783881", "phone_number_id": "106540352242922"}
    found = {"messaging_product": "whatsapp", "metadata": metadata} | ({"messages": list(messages)} if messages else {})
    change = {"field": "messages", "value": found | value}
    return {"object": "whatsapp_business_account", "entry": [{"id": "102290129340398", "changes": [change]}]}


def whatsapp_text(text: str = "Does it come in another color?", message_id: str = "wamid.HBgL") -> dict[str, Any]:
    return {"from": "16505551234", "id": message_id, "timestamp": "1749416383", "type": "text", "text": {"body": text}}


CASES = (
    Case(
        name="webhook",
        sign=standard_webhook,
        payload={"text": "Hello", "peer": "room-7", "peer_kind": "group", "thread": "t1", "sender": "ann"},
        expected=Inbound(
            message_id="msg_1",
            peer="room-7",
            peer_kind="group",
            sender="ann",
            text="Hello",
            thread="t1",
            reply_thread="t1",
            reply_to="msg_1",
        ),
        signature="webhook-signature",
        timestamp="webhook-timestamp",
    ),
    Case(
        name="slack",
        sign=slack,
        payload=slack_event(),
        expected=Inbound(
            message_id="D024BE91L:1355517523.000005",
            peer="D024BE91L",
            peer_kind="direct",
            sender="U2147483697",
            text="Live long and prospect.",
            thread="1355517523.000005",
        ),
        signature="X-Slack-Signature",
        timestamp="X-Slack-Request-Timestamp",
        unsupported=(slack_event(subtype="message_changed"), slack_event(type="reaction_added")),
        own=(slack_event(bot_id="B01"),),
    ),
    Case(
        name="telegram",
        sign=telegram,
        payload=telegram_update(),
        expected=Inbound(
            message_id="1111111:1365", peer="1111111", peer_kind="direct", sender="1111111", text="/start"
        ),
        signature="X-Telegram-Bot-Api-Secret-Token",
        timestamp=None,
        unsupported=(
            {"update_id": 1, "edited_message": telegram_update()["message"]},
            telegram_update(text=None, photo=[{"file_id": "x"}]),
        ),
        own=(telegram_update(**{"from": {"id": 7, "is_bot": True}}),),
    ),
    Case(
        name="feishu",
        sign=feishu,
        payload=feishu_event(),
        expected=Inbound(
            message_id="om_5ce6d572455d361153b7cb51da133945",
            peer="oc_5ce6d572455d361153b7xx51da133945",
            peer_kind="direct",
            sender="ou_84aad35d",
            text="hello",
            thread="om_5ce6d572455d361153b7cb51da133945",
        ),
        signature="X-Lark-Signature",
        timestamp="X-Lark-Request-Timestamp",
        unsupported=(feishu_event(message_type="image", content='{"image_key": "img"}'),),
        own=(feishu_event(sender_type="app"),),
    ),
    Case(
        name="whatsapp",
        sign=whatsapp,
        payload=whatsapp_value(whatsapp_text()),
        expected=Inbound(
            message_id="wamid.HBgL",
            peer="16505551234",
            peer_kind="direct",
            sender="16505551234",
            text="Does it come in another color?",
        ),
        signature="X-Hub-Signature-256",
        timestamp=None,
        unsupported=(
            whatsapp_value(statuses=[{"id": "wamid.x", "status": "delivered"}]),
            whatsapp_value({"from": "1", "id": "wamid.y", "type": "image", "image": {"id": "1"}}),
        ),
    ),
)
