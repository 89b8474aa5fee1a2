"""E-mail out: one SMTP conversation for each message, to a host that the guard lets through, over TLS.

The Message-ID is made from the delivery's id, so that a receiver who gets a repetition can tell.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
from email.message import EmailMessage

import aiosmtplib
from aiohttp.abc import AbstractResolver

from actors.channels.base import Delivery, Lost, Outcome, Refused, Sent
from actors.channels.outgoing import NO_ACCOUNT, Accounts, Outgoing, outgoing, short
from actors.channels.retries import EGRESS_REFUSED
from actors.channels.settings import ChannelAccountSettings
from actors.tools.egress_policy import EgressFailed, EgressPolicy, EgressRefused

_ADDRESS = re.compile(r"[^\s@<>\"(),:;\\\x00-\x1f]{1,64}@[A-Za-z0-9.-]{1,253}")
_SUBJECT_CHARS = 78


class EmailChannel:
    """A `Channel`: the peer is the receiver's address."""

    name = "email"

    def __init__(
        self, accounts: Accounts, policy: EgressPolicy, *, timeout_s: float, resolver: AbstractResolver
    ) -> None:
        self._accounts = accounts
        self._policy = policy
        self._timeout_s = timeout_s
        self._resolver = resolver

    async def send(self, delivery: Delivery) -> Outcome:
        account = await self._accounts.account(delivery.account)
        if account is None or not account.settings.enabled or account.settings.channel != self.name:
            return NO_ACCOUNT
        body = outgoing(delivery)
        if isinstance(body, Refused):
            return body
        if not is_address(delivery.peer):
            return Refused(status=400, code="bad_address", detail="the receiver is not an e-mail address")
        return await self._conversation(account.settings, _message(account.settings, delivery, body))

    async def check(self, account: ChannelAccountSettings) -> Outcome:
        """Connect, sign in, and leave."""
        return await self._conversation(account, None)

    async def close(self) -> None:
        await self._resolver.close()

    async def _conversation(self, account: ChannelAccountSettings, message: EmailMessage | None) -> Outcome:
        sending = False
        try:
            async with asyncio.timeout(self._timeout_s):
                client = await self._connect(account)
                try:
                    if account.username:
                        await client.login(account.username, account.password)
                    sending = message is not None
                    if message is not None:
                        _, answer = await client.send_message(message)
                        return Sent(provider_id=short(answer), status=250)
                    return Sent(status=250)
                finally:
                    client.close()
        except EgressRefused as error:
            return Refused(status=None, code=EGRESS_REFUSED, detail=error.message)
        except EgressFailed as error:
            return Refused(status=None, code="unreachable", detail=error.message)
        except aiosmtplib.SMTPResponseException as error:
            return Refused(status=_http_status(error.code), code=f"smtp_{error.code}", detail=short(error.message))
        except aiosmtplib.SMTPRecipientsRefused as error:
            first = error.recipients[0]
            return Refused(status=_http_status(first.code), code=f"smtp_{first.code}", detail=short(first.message))
        except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
            detail = short(error) or type(error).__name__
            return Lost(detail=detail) if sending else Refused(status=503, code="unreachable", detail=detail)

    async def _connect(self, account: ChannelAccountSettings) -> aiosmtplib.SMTP:
        """Signed on to the host, over an address that was checked."""
        client = aiosmtplib.SMTP(
            hostname=account.smtp_host,
            sock=await self._socket(account.smtp_host, account.smtp_port),
            use_tls=account.smtp_tls == "implicit",
            start_tls=account.smtp_tls == "starttls",
            timeout=self._timeout_s,
        )
        await client.connect()
        return client

    async def _socket(self, host: str, port: int) -> socket.socket:
        found = await self._resolver.resolve(host, port, socket.AF_UNSPEC)
        allowed = [one for one in found if self._policy.address_allowed(one["host"], port)]
        if not allowed:
            raise EgressRefused(f"The host {host[:100]} (port {port}) may not be reached from here.")
        one = allowed[0]
        connection = socket.socket(one["family"], socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(connection, (one["host"], port))
        except BaseException:
            connection.close()
            raise
        return connection


def is_address(text: str) -> bool:
    """Whether a text is one plain e-mail address."""
    return _ADDRESS.fullmatch(text) is not None


def _message(account: ChannelAccountSettings, delivery: Delivery, body: Outgoing) -> EmailMessage:
    message = EmailMessage()
    message["From"] = account.sender
    message["To"] = delivery.peer
    message["Subject"] = " ".join(body.text.split())[:_SUBJECT_CHARS] or "Message"
    digest = hashlib.sha256(f"{delivery.account}\0{delivery.delivery_id}".encode()).hexdigest()[:32]
    message["Message-ID"] = f"<{digest}@{account.sender.rpartition('@')[2].strip('>') or 'localhost'}>"
    message["Auto-Submitted"] = "auto-generated"
    if body.reply_to is not None:
        message["In-Reply-To"] = body.reply_to
    message.set_content(body.text)
    return message


def _http_status(code: int) -> int:
    """4yz may pass, 5yz will not; as the statuses that say the same."""
    return 503 if 400 <= code < 500 else 400
