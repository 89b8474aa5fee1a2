"""E-mail out: taken, put off, refused, lost; over TLS unless told otherwise; to hosts that are allowed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from actors.channels.accounts import Account
from actors.channels.base import Delivery, Lost, Outcome, Refused, Sent
from actors.channels.outgoing import Outgoing
from actors.channels.providers import Providers
from actors.channels.settings import ChannelAccountSettings, ChannelsSettings
from actors.clock import SystemClock
from tests.support.smtp_server import SmtpServer


class Book:
    """The one account `mail`."""

    def __init__(self, settings: ChannelAccountSettings) -> None:
        self.found = Account(name="mail", settings=settings, from_file=True)

    async def account(self, name: str) -> Account | None:
        return self.found if name == "mail" else None


@pytest.fixture
async def server() -> AsyncIterator[SmtpServer]:
    async with SmtpServer().running() as running:
        yield running


async def send(
    server: SmtpServer, *, allow: bool = True, to: str = "ada@example.org", text: str = "Hello\nyou", **fields: Any
) -> Outcome:
    values: dict[str, Any] = {"smtp_tls": "none", **fields}
    settings = ChannelAccountSettings(
        channel="email", smtp_host="127.0.0.1", smtp_port=server.port, sender="bot@example.com", **values
    )
    hosts = (f"127.0.0.1:{server.port}",) if allow else ()
    providers = Providers(ChannelsSettings(allow_hosts=hosts), Book(settings), SystemClock())
    try:
        return await providers.channels["email"].send(
            Delivery(
                delivery_id="turn_1-1-1",
                attempt=1,
                account="mail",
                peer=to,
                body=msgspec.json.encode(Outgoing(text=text, reply_to="<m1@example.org>")),
            )
        )
    finally:
        await providers.close()


async def test_a_message_is_taken(server: SmtpServer) -> None:
    for _ in range(2):
        assert isinstance(await send(server), Sent)
    first, again = server.messages
    assert (first["From"], first["To"], first["Subject"]) == ("bot@example.com", "ada@example.org", "Hello you")
    assert first["In-Reply-To"] == "<m1@example.org>"
    assert first["Message-ID"] == again["Message-ID"]
    assert first.get_payload().split() == ["Hello", "you"]  # type: ignore[union-attr]


async def test_what_may_pass_and_what_will_not(server: SmtpServer) -> None:
    for mood, status, code in (("busy", 503, "smtp_451"), ("no such user", 400, "smtp_550")):
        server.mood = mood  # type: ignore[assignment]
        outcome = await send(server)
        assert isinstance(outcome, Refused)
        assert (outcome.status, outcome.code) == (status, code)


async def test_a_connection_that_ends_after_the_message(server: SmtpServer) -> None:
    server.mood = "gone"
    assert isinstance(await send(server), Lost)


async def test_nobody_there(server: SmtpServer) -> None:
    port = server.port
    closed = SmtpServer()
    async with closed.running():
        pass
    assert closed.port != port
    outcome = await send(closed)
    assert isinstance(outcome, Refused)
    assert outcome.code == "unreachable"


async def test_without_tls_nothing_is_sent_where_it_is_wanted(server: SmtpServer) -> None:
    outcome = await send(server, smtp_tls="starttls")
    assert isinstance(outcome, Refused)
    assert not server.messages


async def test_a_host_that_is_not_allowed(server: SmtpServer) -> None:
    outcome = await send(server, allow=False)
    assert isinstance(outcome, Refused)
    assert outcome.code == "egress_refused"


@pytest.mark.parametrize(
    "to", ["", "ada", "ada@example.org, eve@example.org", "a@b.c\r\nBcc: eve@example.org", "<a@b.c>"]
)
async def test_what_is_no_address(server: SmtpServer, to: str) -> None:
    outcome = await send(server, to=to)
    assert isinstance(outcome, Refused)
    assert outcome.code == "bad_address"


async def test_a_subject_is_one_line(server: SmtpServer) -> None:
    assert isinstance(await send(server, text="Hello\r\nBcc: eve@example.org\r\n\r\nbody"), Sent)
    assert server.messages[0]["Bcc"] is None
