"""What goes out: every provider accepts, limits, refuses, breaks, says nothing or nonsense; each ending has a name."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from actors.channels.accounts import Account
from actors.channels.base import Delivery, Lost, Outcome, Refused, Sent
from actors.channels.outgoing import Outgoing
from actors.channels.providers import Providers
from actors.channels.settings import ChannelAccountSettings, ChannelsSettings
from actors.clock import SystemClock
from tests.support.channel_requests import ACCOUNTS, SIGNING_KEY
from tests.support.provider_servers import ProviderServer

PROVIDERS = ("webhook", "slack", "telegram", "feishu", "whatsapp")
PEERS = {"slack": "C1", "telegram": "42", "feishu": "oc_1", "whatsapp": "16505551234", "webhook": "room"}


@dataclass
class World:
    """One provider's way out to a local server."""

    name: str
    server: ProviderServer
    account: ChannelAccountSettings
    providers: Providers
    accounts: dict[str, Account] = field(default_factory=dict)

    async def send(self, text: str = "Hello <b> & c", *, account: str = "team", **fields: Any) -> Outcome:
        out = "callback" if self.name == "webhook" else self.name
        delivery = Delivery(
            delivery_id="turn_1-1",
            attempt=1,
            account=account,
            peer=PEERS[self.name],
            body=msgspec.json.encode(Outgoing(text=text, **fields)),
        )
        return await self.providers.channels[out].send(delivery)


class Book:
    """Accounts by name."""

    def __init__(self, accounts: dict[str, Account]) -> None:
        self._accounts = accounts

    async def account(self, name: str) -> Account | None:
        return self._accounts.get(name)


def settings_for(name: str, url: str) -> ChannelAccountSettings:
    paths = {"slack": "/slack", "whatsapp": "/v23.0"}
    return msgspec.structs.replace(ACCOUNTS[name], base_url=url + paths.get(name, ""), url=f"{url}/receiver")


@pytest.fixture
async def server() -> AsyncIterator[ProviderServer]:
    async with ProviderServer().running() as running:
        yield running


@pytest.fixture
async def make(server: ProviderServer) -> AsyncIterator[Callable[..., Awaitable[World]]]:
    made: list[Providers] = []

    async def world(name: str, timeout_s: float = 10.0, allow: bool = True) -> World:
        account = settings_for(name, server.url)
        accounts = {"team": Account(name="team", settings=account, from_file=True)}
        hosts = (f"127.0.0.1:{server.port}",) if allow else ()
        settings = ChannelsSettings(allow_hosts=hosts, timeout_s=timeout_s)
        made.append(Providers(settings, Book(accounts), SystemClock()))
        return World(name, server, account, made[-1], accounts)

    yield world
    for providers in made:
        await providers.close()


@pytest.fixture(params=PROVIDERS)
async def world(request: pytest.FixtureRequest, make: Callable[..., Awaitable[World]]) -> World:
    return await make(request.param)


async def test_it_is_sent(world: World) -> None:
    outcome = await world.send()
    assert isinstance(outcome, Sent)
    expected = {"slack": "1503435956.000001", "telegram": "1", "feishu": "om_1", "whatsapp": "wamid.1", "webhook": None}
    assert outcome.provider_id == expected[world.name]
    assert len(world.server.calls) == 1


async def test_a_limit_names_its_wait(world: World) -> None:
    world.server.mood = "limited"
    outcome = await world.send()
    assert isinstance(outcome, Refused)
    assert (outcome.status, outcome.retry_after_s) == (429, 30)


async def test_a_refusal_has_the_provider_s_word(world: World) -> None:
    world.server.mood = "permanent"
    outcome = await world.send()
    codes = {
        "slack": "channel_not_found",
        "telegram": "400",
        "feishu": "230002",
        "whatsapp": "131030",
        "webhook": "http_410",
    }
    assert isinstance(outcome, Refused)
    assert outcome.code == codes[world.name]
    assert outcome.retry_after_s is None
    assert outcome.status != 429


async def test_a_broken_provider(world: World) -> None:
    world.server.mood = "broken"
    assert await world.send() == Refused(status=503, code="http_503", detail="upstream connect error", retry_after_s=7)


async def test_nonsense_may_have_had_its_effect(world: World) -> None:
    world.server.mood = "garbage"
    outcome = await world.send()
    if world.name == "webhook":
        assert isinstance(outcome, Sent)  # a receiver's 2xx is its word, whatever its body
    else:
        assert isinstance(outcome, Lost)


async def test_a_lost_connection_may_have_had_its_effect(world: World) -> None:
    world.server.mood = "lost"
    assert isinstance(await world.send(), Lost)
    assert len(world.server.calls) == 1  # and it is not sent a second time by itself


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_provider_that_says_nothing(name: str, make: Callable[..., Awaitable[World]]) -> None:
    world = await make(name, timeout_s=0.3)
    world.server.mood = "silent"
    assert isinstance(await world.send(), Lost)


async def test_nothing_is_sent_on_to_another_place(world: World) -> None:
    world.server.mood = "elsewhere"
    outcome = await world.send()
    assert isinstance(outcome, Refused)
    assert len(world.server.calls) == 1


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_host_that_is_not_listed_is_not_reached(name: str, make: Callable[..., Awaitable[World]]) -> None:
    world = await make(name, allow=False)
    outcome = await world.send()
    assert isinstance(outcome, Refused)
    assert outcome.code == "egress_refused"
    assert not world.server.requests


async def test_accounts_that_are_not_there(world: World) -> None:
    off = msgspec.structs.replace(world.account, enabled=False)
    world.accounts["off"] = Account(name="off", settings=off, from_file=True)
    other = ACCOUNTS["slack" if world.name != "slack" else "telegram"]
    world.accounts["other"] = Account(name="other", settings=other, from_file=True)
    for name in ("missing", "off", "other"):
        outcome = await world.send(account=name)
        assert isinstance(outcome, Refused)
        assert outcome.code == "no_account"
    assert not world.server.requests


async def test_a_body_that_is_not_ours(world: World) -> None:
    out = world.providers.channels["callback" if world.name == "webhook" else world.name]
    outcome = await out.send(Delivery(delivery_id="1", attempt=1, account="team", peer="x", body=b'{"nothing": 1}'))
    assert isinstance(outcome, Refused)
    assert outcome.code == "unreadable"


async def test_an_account_is_tried_without_an_effect(world: World) -> None:
    account = world.accounts["team"]
    assert isinstance(await world.providers.check(account), Sent)
    paths = {
        "slack": "/slack/auth.test",
        "telegram": "/bot1234:bot-token/getMe",
        "feishu": "/open-apis/auth/v3/tenant_access_token/internal",
        "whatsapp": "/v23.0/106540352242922",
        "webhook": "/receiver",
    }
    assert [request.path for request in world.server.requests] == [paths[world.name]]


async def test_many_at_once(world: World) -> None:
    outcomes = await asyncio.gather(*(world.send() for _ in range(150)))
    assert all(isinstance(outcome, Sent) for outcome in outcomes)
    assert len(world.server.calls) == 150
    assert world.server.tokens <= 1


async def test_no_outcome_tells_a_secret(world: World) -> None:
    secrets = ("xoxb-token", "bot-token", "feishu-app-secret", "EAAG-token", SIGNING_KEY)
    for mood in ("limited", "permanent", "broken", "garbage", "lost", "elsewhere"):
        world.server.mood = mood  # type: ignore[assignment]
        told = repr(await world.send())
        assert not any(secret in told for secret in secrets)


async def test_slack_s_message(make: Callable[..., Awaitable[World]]) -> None:
    world = await make("slack")
    await world.send(thread="1355517523.000005")
    assert world.server.calls == [
        {
            "channel": "C1",
            "text": "Hello &lt;b&gt; &amp; c",
            "thread_ts": "1355517523.000005",
            "unfurl_links": False,
        }
    ]
    assert world.server.requests[0].headers["Authorization"] == "Bearer xoxb-token"
    assert world.server.requests[0].path == "/slack/chat.postMessage"


async def test_slack_s_limit_with_status_200(make: Callable[..., Awaitable[World]]) -> None:
    """`{"ok": false, "error": "ratelimited"}`: the outbox's table of retries knows the word."""
    world = await make("slack")
    world.server.mood = "permanent"
    outcome = await world.send()
    assert outcome == Refused(status=200, code="channel_not_found", detail="channel_not_found")


async def test_telegram_s_message(make: Callable[..., Awaitable[World]]) -> None:
    world = await make("telegram")
    await world.send(thread="7", reply_to="1365")
    assert world.server.calls == [
        {
            "chat_id": "42",
            "text": "Hello <b> & c",
            "message_thread_id": 7,
            "reply_parameters": {"message_id": 1365, "allow_sending_without_reply": True},
        }
    ]


async def test_feishu_s_token_is_kept_and_renewed(make: Callable[..., Awaitable[World]]) -> None:
    world = await make("feishu")
    await world.send()
    await world.send(reply_to="om_0", thread="thread")
    assert world.server.tokens == 1
    assert [request.path for request in world.server.requests[1:]] == [
        "/open-apis/im/v1/messages",
        "/open-apis/im/v1/messages/om_0/reply",
    ]
    first, second = world.server.calls
    assert first["receive_id"] == "oc_1"
    assert second["reply_in_thread"] is True
    assert first["uuid"] == second["uuid"]  # the delivery's: Feishu shows it once
    assert json.loads(first["content"]) == {"text": "Hello <b> & c"}
    world.server.token_ended = True
    assert isinstance(await world.send(), Sent)
    assert world.server.tokens == 2
    assert world.server.requests[-1].headers["Authorization"] == "Bearer t-2"


async def test_whatsapp_s_message(make: Callable[..., Awaitable[World]]) -> None:
    world = await make("whatsapp")
    await world.send()
    assert world.server.calls == [
        {
            "messaging_product": "whatsapp",
            "recipient_type": "individual",
            "to": "16505551234",
            "type": "text",
            "text": {"body": "Hello <b> & c", "preview_url": False},
        }
    ]
    assert world.server.requests[0].path == "/v23.0/106540352242922/messages"


async def test_a_webhook_is_signed(make: Callable[..., Awaitable[World]]) -> None:
    world = await make("webhook")
    await world.send(reply_to="msg_1", part=2, parts=3)
    request, (body,) = world.server.requests[0], world.server.calls
    assert body["type"] == "message.reply"
    assert body["data"] == {
        "peer": "room", "text": "Hello <b> & c", "thread": None, "reply_to": "msg_1", "part": 2, "parts": 3,
    }  # fmt: skip
    assert request.headers["webhook-id"] == "turn_1-1"
    signed = f"turn_1-1.{request.headers['webhook-timestamp']}.".encode() + await request.read()
    key = base64.b64decode(SIGNING_KEY.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{expected}"
