"""The webhook channel against a real receiver: what it sends, and what it makes of what comes back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from actors.channels.base import Delivery, Lost, Outcome, Refused, Sent
from actors.channels.settings import WebhooksSettings
from actors.channels.webhook import WebhookChannel
from actors.channels.webhook_delivery import WebhookDelivery
from actors.secrets import SecretBox
from tests.support.manual_clock import ManualClock
from tests.support.receiver import SECRET, Receiver

KEY = "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="
OWN = "whsec_" + "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh"
OLD = "whsec_" + "YmJiYmJiYmJiYmJiYmJiYmJiYmJiYmJi"
EVENT = b'{"type":"task.succeeded",  "data":{"answer":"\xc3\xa4"}}'
Make = Callable[..., WebhookChannel]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
async def channel(receiver: Receiver) -> AsyncIterator[Make]:
    made: list[WebhookChannel] = []

    def make(*, keys: tuple[str, ...] = (KEY,), **settings: Any) -> WebhookChannel:
        values = {"secret": SECRET, "allow_hosts": (f"127.0.0.1:{receiver.port}",), "timeout_s": 5.0, **settings}
        made.append(WebhookChannel(WebhooksSettings(**values), SecretBox(keys), ManualClock(), max_in_flight=10))
        return made[-1]

    yield make
    for one in made:
        await one.close()


def delivery(url: str, secret: str | None = None, attempt: int = 1) -> Delivery:
    body = msgspec.json.encode(WebhookDelivery(url=url, secret=secret, event=msgspec.Raw(EVENT)))
    return Delivery(delivery_id="msg_1", attempt=attempt, account="a", peer="p", body=body)


async def send(channel: WebhookChannel, url: str, **fields: Any) -> Outcome:
    return await channel.send(delivery(url, **fields))


async def test_the_event_goes_out_byte_for_byte_and_signed(channel: Make, receiver: Receiver) -> None:
    assert await send(channel(), f"{receiver.origin}/hook") == Sent(status=200, provider_id="thanks")
    (got,) = receiver.got
    assert (got.body, got.id) == (EVENT, "msg_1")
    assert got.signed_by(SECRET)
    assert not got.signed_by(OWN)


async def test_a_secret_of_its_own_is_the_only_one_that_signs(channel: Make, receiver: Receiver) -> None:
    sealed = SecretBox([KEY]).seal(OWN, field="x")
    await send(channel(old_secrets=(OLD,)), f"{receiver.origin}/hook", secret=sealed)
    (got,) = receiver.got
    assert (got.signed_by(OWN), got.signed_by(SECRET), got.signed_by(OLD)) == (True, False, False)


async def test_the_old_secret_signs_beside_the_new_one(channel: Make, receiver: Receiver) -> None:
    await send(channel(old_secrets=(OLD,)), f"{receiver.origin}/hook")
    (got,) = receiver.got
    assert (got.signed_by(SECRET), got.signed_by(OLD)) == (True, True)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((204, {}, ""), Sent(status=204, provider_id="")),
        ((404, {}, "who?"), Refused(status=404, code="http_404", detail="who?")),
        ((429, {"Retry-After": "7"}, "x"), Refused(status=429, code="http_429", detail="x", retry_after_s=7.0)),
        ((503, {"Retry-After": "soon"}, ""), Refused(status=503, code="http_503")),
        ((307, {"Location": "/other"}, ""), Refused(status=307, code="http_307")),
    ],
)
async def test_what_it_makes_of_answers(channel: Make, receiver: Receiver, answer: Any, expected: Outcome) -> None:
    receiver.answers["/hook"] = [answer]
    assert await send(channel(), f"{receiver.origin}/hook") == expected
    assert receiver.ids("/other") == []


async def test_of_a_long_answer_the_head_is_kept(channel: Make, receiver: Receiver) -> None:
    receiver.answers["/hook"] = [(500, {}, "x" * 100_000)]
    outcome = await send(channel(), f"{receiver.origin}/hook")
    assert isinstance(outcome, Refused)
    assert outcome.detail == "x" * 1024


async def test_no_answer_in_time_is_lost(channel: Make, receiver: Receiver) -> None:
    receiver.gates["/hook"] = asyncio.Event()
    outcome = await send(channel(timeout_s=0.1), f"{receiver.origin}/hook")
    assert isinstance(outcome, Lost)
    assert len(receiver.got) == 1


async def test_a_connection_that_breaks_is_lost(channel: Make, receiver: Receiver) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    server = await asyncio.start_server(break_off, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    outcome = await send(channel(allow_hosts=(f"127.0.0.1:{port}",)), f"http://127.0.0.1:{port}/")
    server.close()
    assert isinstance(outcome, Lost)


async def test_nobody_there_is_no_unknown_outcome(channel: Make, receiver: Receiver) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    outcome = await send(channel(allow_hosts=(f"127.0.0.1:{port}",)), f"http://127.0.0.1:{port}/")
    assert isinstance(outcome, Refused)
    assert (outcome.status, outcome.code) == (None, "unreachable")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://10.0.0.1/", "http://[::1]/", "ftp://a.example/"])
async def test_the_guard_lets_nothing_inside(channel: Make, receiver: Receiver, url: str) -> None:
    outcome = await send(channel(), url)
    assert isinstance(outcome, Refused)
    assert outcome.code == "egress_refused"


async def test_what_cannot_be_read_is_refused_and_shows_no_secret(channel: Make, receiver: Receiver) -> None:
    url, sealed = f"{receiver.origin}/hook", SecretBox([KEY]).seal(OWN, field="x")
    bad = [
        await send(channel(keys=()), url, secret=sealed),
        await send(channel(secret=""), url),
        await channel().send(msgspec.structs.replace(delivery(url), body=b"{}")),
    ]
    for outcome in bad:
        assert isinstance(outcome, Refused)
        assert outcome.code == "unreadable"
        assert OWN not in outcome.detail
        assert sealed not in outcome.detail
    assert receiver.got == []
