"""An outbox over a real store and a real directory, with a provider in memory that answers when the test lets it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

from actors.channels.base import Delivery, Outcome, Sent
from actors.channels.settings import ChannelsSettings, OutboxProcessSettings, OutboxSettings
from actors.handles import DirectoryHandle, ask, tell
from actors.messages import Command, Describe, Wake
from actors.outbox import Outbox, OutboxServices
from actors.replies import Description
from storage.outbox_records import NewOutboxItem, OutboxItem
from storage.store import AsyncStorageBackend
from tests.support.directory_bench import DirectoryBench, KeptStore
from tests.support.facts import eventually
from tests.support.flaky_store import FlakyStore

NEVER_MS = 600_000.0
CHANNEL = "memory"


class MemoryChannel:
    """Keeps what it was given. `answers[account]` come one by one, then `Sent`; `hold(account)` makes it hang."""

    name = CHANNEL

    def __init__(self) -> None:
        self.got: list[Delivery] = []
        self.answered: list[str] = []
        self.answers: dict[str, list[Outcome | Exception]] = defaultdict(list)
        self.running: dict[str, int] = defaultdict(int)
        self.most: dict[str, int] = defaultdict(int)
        self.most_per_peer: dict[str, int] = defaultdict(int)
        self._peers: dict[str, int] = defaultdict(int)
        self._gates: dict[str, asyncio.Event] = {}

    def hold(self, account: str) -> asyncio.Event:
        return self._gates.setdefault(account, asyncio.Event())

    def ids(self) -> list[str]:
        return [delivery.delivery_id for delivery in self.got]

    async def send(self, delivery: Delivery) -> Outcome:
        account, peer = delivery.account, f"{delivery.account} {delivery.peer}"
        self.got.append(delivery)
        for now, most, key in ((self.running, self.most, account), (self._peers, self.most_per_peer, peer)):
            now[key] += 1
            most[key] = max(most[key], now[key])
        try:
            if account in self._gates:
                await self._gates[account].wait()
            await asyncio.sleep(0)
            answer = self.answers[account].pop(0) if self.answers[account] else Sent(provider_id="p", status=200)
            if isinstance(answer, Exception):
                raise answer
            self.answered.append(delivery.delivery_id)
            return answer
        finally:
            self.running[account] -= 1
            self._peers[peer] -= 1

    async def close(self) -> None: ...


class OutboxBench:
    """`outbox-1` (and others, by `another`) over one directory; `store` is its own view of the store, with faults."""

    def __init__(self, store: AsyncStorageBackend, **outbox: Any) -> None:
        self.real = store
        settings = OutboxSettings(**{"poll_interval_ms": NEVER_MS, **outbox})
        self.settings = OutboxProcessSettings(channels=ChannelsSettings(outbox=settings))
        self.directory = DirectoryBench(store)
        self.directory.launcher.found = []
        self.clock = self.directory.clock
        self.channel = MemoryChannel()
        self.store = FlakyStore(KeptStore(store))  # type: ignore[arg-type]
        self.outbox = self.another("outbox-1", store=self.store)

    def another(self, name: str, *, store: Any = None, channel: MemoryChannel | None = None) -> Outbox:
        services = OutboxServices(
            settings=self.settings,
            store=store or KeptStore(self.real),  # type: ignore[arg-type]
            clock=self.clock,
            channels={CHANNEL: channel or self.channel},
        )
        return Outbox(services, DirectoryHandle(self.directory.directory.handle), actor=name, node_id="node-0")

    async def start(self) -> None:
        await self.directory.start()
        await self.outbox.start()
        await eventually(lambda: self.store.calls.get("ready_routes"), "it has looked once")

    async def stop(self) -> None:
        await self.outbox.stop()
        await self.directory.directory.stop()

    async def post(self, *names: str, account: str = "a", peer: str | None = None, **fields: Any) -> None:
        """Record deliveries, each for a peer of its own unless that is given."""
        now_us = self.clock.now_us()
        values: dict[str, Any] = {"channel": CHANNEL, "account": account, "body": b"{}", "created_us": now_us, **fields}
        await self.real.post_outbox([NewOutboxItem(delivery_id=n, peer=peer or n, **values) for n in names])

    async def tell(self, command: Command) -> None:
        await tell(self.outbox.handle, command)

    async def look(self) -> None:
        await self.tell(Wake())

    async def described(self) -> Description:
        return await ask(self.outbox.handle, Describe(), Description)

    async def item(self, name: str) -> OutboxItem:
        found = await self.real.get_outbox(name)
        assert found is not None
        return found

    async def ended(self, *names: str, state: str = "sent") -> None:
        for name in names:

            async def has(name: str = name) -> bool:
                return (await self.item(name)).state == state

            await eventually(has, f"{name} is {state}")

    async def recorded(self, name: str, attempts: int) -> OutboxItem:
        """The delivery, once so many attempts are recorded."""

        async def has() -> bool:
            return len(await self.real.outbox_attempts(name)) >= attempts

        await eventually(has, f"{attempts} attempts at {name} are recorded")
        return await self.item(name)
