"""Names that are slow to look up keep their own threads busy and nobody else's, in a bounded number."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from actors.tools.egress import EgressFailed, EgressPolicy, GuardedClient
from actors.tools.lookups import LookupResolver, SharedLookups

ANSWER = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80))]


class Slow:
    """A look-up that ends when the test says so."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.hosts: list[str] = []

    def __call__(self, host: str, port: int, **_: Any) -> list[Any]:
        self.hosts.append(host)
        self.began.release()
        self.go_on.wait(30)
        return ANSWER


@pytest.fixture
def slow() -> Iterator[Slow]:
    found = Slow()
    yield found
    found.go_on.set()


async def begun(slow: Slow, count: int) -> None:
    for _ in range(count):
        assert await asyncio.to_thread(slow.began.acquire, timeout=10)


async def test_slow_names_leave_the_shared_threads_alone(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(shared)
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    client = GuardedClient(EgressPolicy(), timeout_s=30, max_bytes=1000)
    asked = [asyncio.create_task(client.request("GET", f"http://slow{n}.example.com/")) for n in range(8)]
    try:
        async with asyncio.timeout(10):
            await begun(slow, 4)
            assert await asyncio.to_thread(lambda: "free") == "free"
    finally:
        slow.go_on.set()
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        await client.close()


async def test_more_than_may_wait_fail_at_once(slow: Slow) -> None:
    resolver = LookupResolver(threads=2, max_waiting=3, lookup=slow)
    waiting = [asyncio.create_task(resolver.resolve(f"host{n}")) for n in range(5)]
    await begun(slow, 2)
    for _ in range(3):
        with pytest.raises(EgressFailed, match="Too many names") as caught:
            await resolver.resolve("one.more")
    assert caught.value.retryable
    slow.go_on.set()
    assert [answers[0]["host"] for answers in await asyncio.gather(*waiting)] == ["8.8.8.8"] * 5
    assert (await resolver.resolve("again"))[0]["family"] == socket.AF_INET
    assert len(slow.hosts) == 6
    await resolver.close()


async def test_the_refusal_passes_through_the_client(slow: Slow) -> None:
    resolver = LookupResolver(threads=1, max_waiting=0, lookup=slow)
    client = GuardedClient(EgressPolicy(), timeout_s=30, max_bytes=1000, resolver=resolver)
    first = asyncio.create_task(client.request("GET", "http://slow.example.com/"))
    await begun(slow, 1)
    with pytest.raises(EgressFailed, match="Too many names"):
        await client.request("GET", "http://other.example.com/")
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await client.close()


async def test_who_stops_waiting_frees_a_place_but_not_a_thread(slow: Slow) -> None:
    resolver = LookupResolver(threads=1, max_waiting=1, lookup=slow)
    running = asyncio.create_task(resolver.resolve("runs"))
    await begun(slow, 1)
    for number in range(5):
        waiting = asyncio.create_task(resolver.resolve(f"waits{number}"))
        await asyncio.wait([waiting], timeout=0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    waits = asyncio.create_task(resolver.resolve("waits"))
    await asyncio.wait([waits], timeout=0)
    with pytest.raises(EgressFailed, match="Too many names"):
        await resolver.resolve("one.more")
    slow.go_on.set()
    assert await waits
    assert slow.hosts == ["runs", "waits"]
    await resolver.close()


async def test_closing_drops_what_waits_and_refuses_more(slow: Slow) -> None:
    resolver = LookupResolver(threads=1, max_waiting=1, lookup=slow)
    running, waiting = (asyncio.create_task(resolver.resolve(host)) for host in ("runs", "waits"))
    await begun(slow, 1)
    await resolver.close()
    with pytest.raises(EgressFailed, match="stopping"):
        await waiting
    with pytest.raises(EgressFailed, match="stopping"):
        await resolver.resolve("late")
    slow.go_on.set()
    assert await running
    assert slow.hosts == ["runs"]


async def test_names_of_this_machine() -> None:
    resolver = LookupResolver()
    answers = await resolver.resolve("localhost", 80, socket.AF_INET)
    assert {(answer["host"], answer["port"], answer["hostname"]) for answer in answers} == {
        ("127.0.0.1", 80, "localhost")
    }
    with pytest.raises(OSError):
        await resolver.resolve("nowhere.invalid", 80)
    await resolver.close()


async def test_a_name_that_hangs_keeps_one_thread_busy_whoever_asks(slow: Slow) -> None:
    resolver = SharedLookups(LookupResolver(threads=2, max_waiting=0, lookup=slow))
    asked = [asyncio.create_task(resolver.resolve("hangs.example.com", 80)) for _ in range(8)]
    await begun(slow, 1)
    asked[0].cancel()
    other = asyncio.create_task(resolver.resolve("other.example.com", 80))
    await begun(slow, 1)
    assert sorted(slow.hosts) == ["hangs.example.com", "other.example.com"]
    slow.go_on.set()
    answers = await asyncio.gather(*asked, other, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert all(isinstance(answer, list) and answer[0]["host"] == "8.8.8.8" for answer in answers[1:])
    await resolver.resolve("hangs.example.com", 80)
    assert slow.hosts.count("hangs.example.com") == 2, "an answer is not kept"
    await resolver.close()


async def test_closing_ends_shared_lookups(slow: Slow) -> None:
    resolver = SharedLookups(LookupResolver(threads=1, max_waiting=1, lookup=slow))
    asked = [asyncio.create_task(resolver.resolve(f"h{n}.example.com", 80)) for n in range(2)]
    await begun(slow, 1)
    await resolver.close()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(answer, asyncio.CancelledError) for answer in answers)
