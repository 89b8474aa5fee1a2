"""One turn over connections that break: started once, resumed after the last event, nothing given twice."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from gateway.cli.api import Refused, Unreachable
from gateway.cli.turn_client import Accepted, Cut, Item, TurnClient, TurnEvent
from gateway.errors import AuthRequired
from storage.errors import WunderError
from tests.unit.cli.fake_server import SESSION, TOKEN, TURN, FakeServer, Peer, fake_server


class Asking:
    """A client with a question; pauses are counted, not made."""

    def __init__(self, http: aiohttp.ClientSession, server: FakeServer, **options: Any) -> None:
        self.pauses: list[float] = []
        token = options.pop("token", TOKEN)
        self.client = TurnClient(http, server.url, token, "hello", pause=self._pause, **options)

    async def _pause(self, delay_s: float) -> None:
        self.pauses.append(delay_s)

    async def items(self) -> list[Item]:
        return [item async for item in self.client.run()]


async def ask(server: FakeServer, **options: Any) -> list[Item]:
    async with aiohttp.ClientSession() as http:
        return await Asking(http, server, **options).items()


def events(items: list[Item]) -> list[tuple[int, str]]:
    return [(item.id, item.event) for item in items if isinstance(item, TurnEvent)]


def text(items: list[Item]) -> str:
    return "".join(item.data.get("delta", "") for item in items if isinstance(item, TurnEvent))


def kinds(items: list[Item]) -> list[str]:
    return [type(item).__name__ for item in items]


async def test_a_turn_without_trouble() -> None:
    async def connection(peer: Peer) -> None:
        payload = await peer.receive("start")
        assert len(payload.pop("idempotency_key")) == 32
        assert payload == {"content": "hello", "session_id": "ses_9", "model_name": "m"}
        await peer.ack(queued=True, after=4)
        await peer.deltas(5, "Hel", "lo")
        await peer.end(7)
        await peer.gone()

    async with fake_server(connection) as server:
        items = await ask(server, session_id="ses_9", model="m")
    assert items[0] == Accepted(SESSION, TURN, queued=True, position=2)
    assert text(items) == "Hello"
    assert events(items)[-1] == (7, "turn_terminal")


async def test_a_cut_before_the_ack_repeats_the_same_start() -> None:
    starts: list[dict[str, Any]] = []

    async def lost(peer: Peer) -> None:
        starts.append(await peer.receive("start"))
        peer.cut()

    async def kept(peer: Peer) -> None:
        starts.append(await peer.receive("start"))
        await peer.ack()
        await peer.end(1)
        await peer.gone()

    async with fake_server(lost, lost, kept) as server:
        items = await ask(server)
    assert kinds(items) == ["Cut", "Cut", "Accepted", "TurnEvent"]
    assert starts[0] == starts[1] == starts[2]


async def test_a_cut_after_it_resumes_behind_the_last_event() -> None:
    async def first(peer: Peer) -> None:
        await peer.receive("start")
        await peer.ack(after=10)
        await peer.deltas(11, "a", "b")
        peer.cut()

    async def second(peer: Peer) -> None:
        assert await peer.receive("resume") == {"session_id": SESSION, "after_event_id": 12}
        await peer.deltas(12, "b", "c")  # 12 has been seen
        await peer.close(1012)

    async def third(peer: Peer) -> None:
        assert await peer.receive("resume") == {"session_id": SESSION, "after_event_id": 13}
        await peer.deltas(14, "d")
        await peer.end(15)
        await peer.gone()

    async with fake_server(first, second, 503, third) as server:
        items = await ask(server)
        assert server.finished
    assert text(items) == "abcd"
    assert [item.reason for item in items if isinstance(item, Cut)][1:] == [
        "connection closed (1012)",
        "the server answered 503",
    ]


async def test_rewinds_and_gaps_are_passed_on() -> None:
    async def connection(peer: Peer) -> None:
        await peer.receive("start")
        await peer.ack()
        await peer.deltas(1, "a", "b")
        await peer.event(100, "rewind", to_event_id=1, reason="restart")
        await peer.event(50, "gap", "", **{"from": 101, "oldest": 103, "latest": 50})
        await peer.deltas(51, "c")
        await peer.end(52)
        await peer.gone()

    async with fake_server(connection) as server:
        items = await ask(server)
    expected = ["llm_output_delta"] * 2 + ["rewind", "gap", "llm_output_delta", "turn_terminal"]
    assert [kind for _, kind in events(items)] == expected


async def test_a_resume_that_ends_with_another_turn_is_repeated() -> None:
    async def first(peer: Peer) -> None:
        await peer.receive("start")
        await peer.ack(queued=True, after=3)
        peer.cut()

    async def second(peer: Peer) -> None:
        await peer.receive("resume")
        await peer.event(4, "llm_output_delta", "turn_0", delta="not ours")
        await peer.event(5, "turn_terminal", "turn_0", status="succeeded")
        assert await peer.receive("resume") == {"session_id": SESSION, "after_event_id": 5}
        await peer.deltas(6, "ours")
        await peer.end(7)
        await peer.gone()

    async with fake_server(first, second) as server:
        assert text(await ask(server)) == "ours"


async def test_a_cancel_is_sent_and_sent_again_after_a_cut() -> None:
    async def first(peer: Peer) -> None:
        await peer.receive("start")
        await peer.ack()
        await peer.deltas(1, "a")
        assert await peer.receive("cancel") == {"session_id": SESSION, "turn_id": TURN}
        peer.cut()

    async def second(peer: Peer) -> None:
        await peer.receive("resume")
        await peer.receive("cancel")
        await peer.send("ack", {"cancelled": True, "status": "cancelled"}, "cancel-9")
        await peer.end(2, "cancelled")
        await peer.gone()

    async with fake_server(first, second) as server, aiohttp.ClientSession() as http:
        asking = Asking(http, server)
        items = []
        async for item in asking.client.run():
            items.append(item)
            if isinstance(item, TurnEvent) and item.event == "llm_output_delta":
                await asking.client.cancel()
    last = items[-1]
    assert isinstance(last, TurnEvent)
    assert last.data == {"status": "cancelled"}


async def test_a_cancel_before_the_ack_waits_for_it() -> None:
    async def connection(peer: Peer) -> None:
        await peer.receive("start")
        await peer.ack()
        await peer.receive("cancel")
        await peer.end(1, "cancelled")
        await peer.gone()

    async with fake_server(connection) as server, aiohttp.ClientSession() as http:
        asking = Asking(http, server)
        await asking.client.cancel()
        assert kinds(await asking.items()) == ["Accepted", "TurnEvent"]


async def test_a_service_that_is_not_ready_is_asked_again() -> None:
    async def busy(peer: Peer) -> None:
        await peer.receive("start")
        await peer.send("error", {"code": "SERVICE_UNAVAILABLE", "message": "draining", "status": 503})
        await peer.gone()

    async def ready(peer: Peer) -> None:
        await peer.receive("start")
        await peer.ack()
        await peer.end(1)
        await peer.gone()

    async with fake_server(busy, ready) as server:
        items = await ask(server)
    assert isinstance(items[0], Cut)
    assert items[0].reason == "draining"


async def test_pauses_grow_and_end() -> None:
    async with fake_server(*[503] * 13) as server, aiohttp.ClientSession() as http:
        asking = Asking(http, server)
        with pytest.raises(WunderError, match="gave up after 13 tries: the server answered 503"):
            await asking.items()
    assert len(asking.pauses) == 12
    assert asking.pauses[0] <= 0.2
    assert 2.5 <= asking.pauses[-1] <= 5


@pytest.mark.parametrize(("code", "error"), [(1008, Refused), (1009, Refused), (4401, AuthRequired)], ids=str)
async def test_closes_that_end_it(code: int, error: type[WunderError]) -> None:
    async def connection(peer: Peer) -> None:
        await peer.receive("start")
        await peer.close(code)

    async with fake_server(connection) as server:
        with pytest.raises(error):
            await ask(server)


async def test_an_error_frame_ends_it() -> None:
    async def connection(peer: Peer) -> None:
        await peer.receive("start")
        payload = {"code": "USER_BUSY", "message": "busy", "status": 429, "hint": "wait"}
        await peer.send("error", payload)
        await peer.gone()

    async with fake_server(connection) as server:
        with pytest.raises(Refused, match="busy") as caught:
            await ask(server)
    assert caught.value.hint == "wait"


@pytest.mark.parametrize(("status", "error"), [(401, AuthRequired), (403, Refused), (404, Refused)], ids=str)
async def test_refused_handshakes_end_it(status: int, error: type[WunderError]) -> None:
    async with fake_server(status) as server:
        with pytest.raises(error):
            await ask(server)


async def test_nobody_listening_is_told_at_once() -> None:
    async with fake_server() as server:
        pass
    with pytest.raises(Unreachable, match=f"cannot reach {server.url}: "):
        await ask(server)
