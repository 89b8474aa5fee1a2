"""Feishu (Lark): event subscription, version 2, in; im/v1/messages out. An event is encrypted, signed, and has a token.

    the body is {"encrypt": base64(iv 16 bytes + AES-256-CBC)}, the key is SHA-256 of the encrypt key
    signature = SHA-256(timestamp + nonce + encrypt key + body) in hex; the check of the URL alone comes without one

An account has to have an encrypt key: without it nothing would be signed.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from actors.channels.base import Delivery, Lost, Outcome, Refused, Sent
from actors.channels.inbound import (
    HttpRequest,
    Inbound,
    Reception,
    Ref,
    SignatureRejected,
    Unreadable,
    convert,
    decode,
    reception,
)
from actors.channels.outgoing import Accounts, Answer, Outgoing, call, seconds, short, unreadable
from actors.channels.sender import ApiChannel
from actors.channels.settings import ChannelAccountSettings
from actors.channels.signatures import check_equal, check_window, raw
from actors.clock import Clock
from actors.tools.egress import GuardedClient

_TOKEN_MARGIN_S = 300
_MAX_TOKENS = 1000
_TOKEN_ENDED = frozenset(("99991661", "99991663", "99991668"))
_RATE_LIMITS = frozenset((99991400, 230020, 11232))
"""Of the gateway, of a chat, of the messages of a tenant: they come with status 400 or 429."""
_MENTION = re.compile(r"@_user_\d+\s*")


class _Encrypted(msgspec.Struct):
    encrypt: str


class _Header(msgspec.Struct):
    event_type: str
    token: str = ""


class _Event(msgspec.Struct):
    """`type`, `token` and `challenge` are those of the check of the URL, which has no header."""

    type: str = ""
    token: str = ""
    challenge: str = ""
    header: _Header | None = None
    event: dict[str, Any] = {}


class _SenderId(msgspec.Struct):
    open_id: Ref


class _Sender(msgspec.Struct):
    sender_id: _SenderId
    sender_type: str = "user"


class _Message(msgspec.Struct):
    message_id: Ref
    chat_id: Ref
    chat_type: str
    message_type: str
    content: str
    root_id: str = ""
    thread_id: str = ""


class _Received(msgspec.Struct):
    sender: _Sender
    message: _Message


class _Text(msgspec.Struct):
    text: str


class FeishuEvents:
    """Events of one app."""

    name: ClassVar[str] = "feishu"
    methods: ClassVar[frozenset[str]] = frozenset({"POST"})

    def receive(self, account: ChannelAccountSettings, request: HttpRequest, now_s: float) -> Reception:
        encrypted = decode(request.body, _Encrypted)
        signed = any(name.lower() == "x-lark-signature" for name, _ in request.headers)
        if signed:
            _check_signature(account, request, now_s)
        event = decode(decrypt(account.encrypt_key, encrypted.encrypt), _Event)
        check_equal(event.header.token if event.header else event.token, account.verification_token, "token")
        if event.type == "url_verification":
            return Reception(answer=msgspec.json.encode({"challenge": event.challenge}))
        if not signed:
            raise SignatureRejected("the header x-lark-signature is missing")
        if event.header is None or event.header.event_type != "im.message.receive_v1":
            return Reception(omitted=("unsupported",))
        return _message(convert(event.event, _Received))


def decrypt(encrypt_key: str, text: str) -> bytes:
    """The plain body; `SignatureRejected` for what was not encrypted with this key."""
    if not encrypt_key:
        raise SignatureRejected("the account has no encrypt key")
    try:
        data = base64.b64decode(text, validate=True)
        cipher = Cipher(AES256(hashlib.sha256(encrypt_key.encode()).digest()), CBC(data[:16])).decryptor()
        padded = cipher.update(data[16:]) + cipher.finalize()
        unpadder = PKCS7(128).unpadder()
        return unpadder.update(padded) + unpadder.finalize()
    except (binascii.Error, ValueError):
        raise SignatureRejected("the body is not encrypted with this account's key") from None


def _check_signature(account: ChannelAccountSettings, request: HttpRequest, now_s: float) -> None:
    timestamp = request.header("x-lark-request-timestamp")
    check_window(timestamp, now_s)
    nonce = request.header("x-lark-request-nonce")
    signed = raw(f"{timestamp}{nonce}{account.encrypt_key}") + request.body
    check_equal(request.header("x-lark-signature"), hashlib.sha256(signed).hexdigest(), "signature")


def _message(received: _Received) -> Reception:
    message = received.message
    if received.sender.sender_type != "user":
        return Reception(omitted=("own",))
    if message.message_type != "text":
        return Reception(omitted=("unsupported",))
    try:
        text = msgspec.json.decode(message.content, type=_Text).text
    except msgspec.DecodeError:
        raise Unreadable("not what the provider documents: the content of a text message") from None
    thread = message.thread_id or message.root_id
    return reception(
        Inbound(
            message_id=message.message_id,
            peer=message.chat_id,
            peer_kind="direct" if message.chat_type == "p2p" else "group",
            sender=received.sender.sender_id.open_id,
            text=_MENTION.sub("", text),
            thread=thread or message.message_id,
            reply_thread="thread" if message.thread_id else None,
            reply_to=message.message_id if thread or message.chat_type != "p2p" else None,
        )
    )


class FeishuChannel(ApiChannel):
    """im/v1/messages with a tenant access token; `uuid` keeps Feishu from showing a repetition (for an hour)."""

    name = "feishu"
    base_url = "https://open.feishu.cn"

    def __init__(self, accounts: Accounts, client: GuardedClient, clock: Clock) -> None:
        super().__init__(accounts, client)
        self._clock = clock
        self._tokens: dict[str, tuple[str, float]] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def deliver(self, account: ChannelAccountSettings, delivery: Delivery, body: Outgoing) -> Outcome:
        message: dict[str, Any] = {
            "msg_type": "text",
            "content": msgspec.json.encode({"text": body.text}).decode(),
            "uuid": hashlib.sha256(delivery.delivery_id.encode()).hexdigest()[:40],
        }
        if body.reply_to is not None:
            path = f"open-apis/im/v1/messages/{quote(body.reply_to, safe='')}/reply"
            message["reply_in_thread"] = body.thread is not None
        else:
            path, message["receive_id"] = "open-apis/im/v1/messages?receive_id_type=chat_id", delivery.peer
        outcome = await self._send(account, path, message)
        if isinstance(outcome, Refused) and outcome.code in _TOKEN_ENDED:
            self._tokens.pop(_token_key(account), None)
            outcome = await self._send(account, path, message)
        return outcome

    async def check(self, account: ChannelAccountSettings) -> Outcome:
        token = await self._token(account, fresh=True)
        return Sent(provider_id=account.app_id, status=200) if isinstance(token, str) else token

    async def _send(self, account: ChannelAccountSettings, path: str, message: dict[str, Any]) -> Outcome:
        token = await self._token(account)
        if not isinstance(token, str):
            return token
        data = await self._call(account, path, message, {"Authorization": f"Bearer {token}"})
        if not isinstance(data, dict):
            return data
        sent = data.get("data")
        return Sent(provider_id=short(sent.get("message_id", "")) if isinstance(sent, dict) else None, status=200)

    async def _token(self, account: ChannelAccountSettings, *, fresh: bool = False) -> str | Refused | Lost:
        """A token is good for two hours; the same one is given until half an hour before its end."""
        key = _token_key(account)
        if len(self._asking) >= _MAX_TOKENS:
            self._tokens.clear()
            self._asking.clear()
        async with self._asking.setdefault(key, asyncio.Lock()):  # what is sent at once asks once
            now_s = self._clock.monotonic_s()
            known = self._tokens.get(key)
            if known is not None and now_s < known[1] and not fresh:
                return known[0]
            return await self._new_token(account, key, now_s)

    async def _new_token(self, account: ChannelAccountSettings, key: str, now_s: float) -> str | Refused | Lost:
        credentials = {"app_id": account.app_id, "app_secret": account.app_secret}
        data = await self._call(account, "open-apis/auth/v3/tenant_access_token/internal", credentials, {})
        if not isinstance(data, dict):
            return data
        token, expire = data.get("tenant_access_token"), data.get("expire")
        if not isinstance(token, str) or not isinstance(expire, int):
            return Refused(status=200, code="bad_answer", detail="no tenant_access_token in the answer")
        self._tokens[key] = (token, now_s + expire - _TOKEN_MARGIN_S)
        return token

    async def _call(
        self, account: ChannelAccountSettings, path: str, body: dict[str, Any], headers: dict[str, str]
    ) -> dict[str, Any] | Refused | Lost:
        """The answer with `code` 0."""
        answer = await call(
            self._client, "POST", self.url(account, path), headers=headers, body=msgspec.json.encode(body)
        )
        if not isinstance(answer, Answer):
            return answer
        code = answer.data.get("code") if answer.data is not None else None
        if answer.data is None or not isinstance(code, int):
            refused = unreadable(answer)
            # Without a token nothing was sent, so an answer that cannot be read had no effect.
            return refused if headers or isinstance(refused, Refused) else _no_token(refused)
        if code == 0:
            return answer.data
        wait = answer.retry_after_s or seconds(answer.headers.get("x-ogw-ratelimit-reset"))
        status = 429 if code in _RATE_LIMITS else answer.status
        detail = short(answer.data.get("msg", ""))
        return Refused(status=status, code=str(code), detail=detail, retry_after_s=wait)


def _no_token(lost: Lost) -> Refused:
    return Refused(status=503, code="bad_answer", detail=lost.detail)


def _token_key(account: ChannelAccountSettings) -> str:
    return hashlib.sha256(f"{account.base_url}\0{account.app_id}\0{account.app_secret}".encode()).hexdigest()
