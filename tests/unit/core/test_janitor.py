"""The sweep and retention."""

from __future__ import annotations

from typing import Any

import pytest

from actors import janitor as module
from actors.errors import OwnedElsewhere, ServiceUnavailable, WunderError
from actors.handles import DirectoryHandle, ask, tell
from actors.janitor import Janitor
from actors.messages import AnyCommand, Describe, Grant, Locate, OpenSession, Sweep, WakePools
from actors.replies import Description, Draining, Location, Reply
from actors.settings import ActorSettings
from actors.wiring import create_children, create_scheduler
from storage.outbox_records import OutboxFilter
from storage.records import Fence, OwnerId
from storage.settings import StorageSettings
from storage.store import AsyncStorageBackend
from tests.conformance.store import make, outbox_make
from tests.conformance.store.test_task_queue import claim, new, pool
from tests.support.directory_bench import KeptStore
from tests.support.doubles import FakeReach
from tests.support.facts import eventually
from tests.support.flaky_store import FlakyStore
from tests.support.manual_clock import ManualClock

OLD_US = 10


class Bench:
    """A janitor, and a directory that sends everybody to `actor`."""

    def __init__(self, store: AsyncStorageBackend) -> None:
        self.reach = FakeReach()
        self.reach.answers["directory"] = self._locate
        self.store = FlakyStore(KeptStore(store))  # type: ignore[arg-type]
        self.clock = ManualClock()
        settings = ActorSettings(storage=StorageSettings(events_retention_s=60, idempotency_retention_s=60))
        handle = DirectoryHandle(self.reach.actor("directory"))
        children = create_children(settings, self.store, self.clock, handle, self.reach)  # type: ignore[arg-type]
        scheduler = create_scheduler(settings, self.store, self.clock, handle, self.reach)  # type: ignore[arg-type]
        self.janitor = Janitor(settings, self.store, self.clock, handle, self.reach, children, scheduler)  # type: ignore[arg-type]

    def _locate(self, command: AnyCommand) -> Reply:
        if isinstance(command, WakePools):
            return Draining()
        assert isinstance(command, Locate)
        assert command.orphaned
        return Location(actor="actor")

    @property
    def opened(self) -> list[str]:
        return [c.session_id for c in self.reach.heard("actor", OpenSession)]  # type: ignore[union-attr]

    async def gauges(self) -> dict[str, float]:
        return (await ask(self.janitor.handle, Describe(), Description)).gauges


@pytest.fixture
def bench(store: AsyncStorageBackend) -> Bench:
    return Bench(store)


async def orphan(store: AsyncStorageBackend, session_id: str, status: str = "queued") -> None:
    fence = await make.fence(store, session_id, f"own-{session_id}")
    await make.accept(store, fence, make.task(f"turn-{session_id}", status, session_id=session_id))
    await store.expire_owner(make.OwnerId(f"own-{session_id}"))


async def test_sessions_with_work_and_no_owner_are_opened(bench: Bench, store: AsyncStorageBackend) -> None:
    await orphan(store, "waits")
    await orphan(store, "ran", "running")
    await make.fence(store, "idle", "dead")
    await store.expire_owner(make.OwnerId("dead"))
    await make.accept(store, await make.fence(store, "owned", "live"), make.task("t9", session_id="owned"))
    await bench.janitor.sweep_once()
    assert sorted(bench.opened) == ["ran", "waits"]
    assert (await bench.gauges())["sessions_reopened"] == 2


async def test_a_background_task_without_an_owner_is_for_the_pools(bench: Bench, store: AsyncStorageBackend) -> None:
    await orphan(store, "message", "running")
    await store.enqueue_tasks([new("t1", session="dead"), new("t2", session="given-up"), new("t3")], now_us=1)
    owner = await pool(store)
    claimed = {c.task.turn_id: c for c in await claim(store) if c.task.turn_id != "t3"}
    given_up = claimed[make.TurnId("t2")]
    await store.disown_session(Fence(given_up.task.session_id, given_up.opened.session.epoch))
    await store.expire_owner(owner)
    await store.enqueue_tasks([new("t4", session="s-t3", create=False)], now_us=2)
    await bench.janitor.sweep_once()
    assert bench.opened == ["message"]
    assert (await bench.gauges())["tasks_released"] == 3
    assert bench.reach.heard("directory", WakePools)
    again = await store.claim_tasks(await pool(store, OwnerId("other")), limit=9, seq_block=64, now_us=3, suspects=9)
    assert [(c.task.turn_id, c.task.crashes, c.task.suspect) for c in again] == [
        ("t1", 1, True), ("t3", 1, True), ("t2", 1, False),
    ]  # fmt: skip


async def test_a_task_that_cannot_be_released_is_left_to_the_next_sweep(
    bench: Bench, store: AsyncStorageBackend
) -> None:
    await store.enqueue_tasks([new("t1")], now_us=1)
    owner = await pool(store)
    await claim(store)
    await store.expire_owner(owner)
    bench.store.fail("release_orphan")
    await bench.janitor.sweep_once()
    assert not bench.opened
    await bench.janitor.sweep_once()
    assert (await bench.gauges())["tasks_released"] == 1


@pytest.mark.parametrize("error", [OwnedElsewhere("somebody was faster"), ServiceUnavailable("busy")])
async def test_one_that_cannot_be_opened_does_not_stop_the_others(
    bench: Bench, store: AsyncStorageBackend, error: WunderError
) -> None:
    for name in ("a", "b", "c"):
        await orphan(store, name)

    def refuse_b(command: Any) -> Reply:
        if command.session_id == "b":
            return module.to_failed(error)  # type: ignore[return-value]
        return module.Done()

    bench.reach.answers["actor"] = refuse_b
    await bench.janitor.sweep_once()
    assert (await bench.gauges())["sessions_reopened"] == 2


@pytest.mark.parametrize(("works", "again"), [(True, True), (False, False)])
async def test_a_full_sweep_is_followed_by_another_only_if_it_helped(
    bench: Bench, store: AsyncStorageBackend, monkeypatch: pytest.MonkeyPatch, works: bool, again: bool
) -> None:
    monkeypatch.setattr(module, "_SWEEP_BATCH", 2)
    for name in ("a", "b", "c"):
        await orphan(store, name)
    if not works:
        bench.reach.dead.add("actor")
    await bench.janitor.sweep_once()
    assert len(bench.opened) == (2 if works else 0)
    assert bench.janitor._sweep._wake.is_set() == again


async def test_a_sweep_can_be_asked_for(bench: Bench) -> None:
    await bench.janitor.start()
    await eventually(lambda: bench.store.calls.get("orphaned_sessions") == 1, "the first sweep")
    await tell(bench.janitor.handle, Sweep())
    await eventually(lambda: bench.store.calls.get("orphaned_sessions") == 2, "the second sweep")
    await bench.janitor.stop()
    with pytest.raises(WunderError, match="does not take Grant"):
        await tell(bench.janitor.handle, Grant(session_id=make.SESSION))


async def test_retention_removes_in_batches_what_expires_and_nothing_else(
    bench: Bench, store: AsyncStorageBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_DELETE_BATCH", 2)
    fence = await make.fence(store)
    fresh_us = bench.clock.now_us()
    events = [make.event(i, "llm_output_delta", created_us=OLD_US) for i in range(1, 6)]
    events += [make.event(6, "final", created_us=OLD_US), make.event(7, "llm_output_delta", created_us=fresh_us)]
    await store.append_events([make.batch(fence, *events)])
    await store.create_user(make.user())
    await store.put_token(make.token("expired", expires_us=OLD_US))
    await make.accept(store, fence, make.task("t1", idempotency_key="key"))
    await make.finish(store, fence, now_us=OLD_US)
    await store.post_outbox([outbox_make.item(f"d{n}", peer=str(n)) for n in range(4)])
    await outbox_make.sender(store)
    claimed = await outbox_make.claim(store, 3)
    ends = [("sent", OLD_US), ("sent", fresh_us), ("dead", OLD_US)]
    await store.record_outbox(
        [outbox_make.result(c, state, finished_us=us) for c, (state, us) in zip(claimed, ends, strict=True)]
    )
    await bench.janitor.retain_once()
    states = [item.state for item in await store.list_outbox(OutboxFilter(), before=None, limit=9)]
    assert sorted(states) == ["dead", "pending", "sent"]
    left = await store.read_events(make.SESSION, after=0, limit=100, max_bytes=1 << 20)
    assert [e.seq for e in left] == [6, 7]
    assert bench.store.calls["delete_events"] == 3
    assert await store.find_idempotent(make.USER, "key") is None
    assert (await bench.gauges())["rows_expired"] >= 5


async def test_retention_that_was_cut_off_goes_on_next_time(bench: Bench, store: AsyncStorageBackend) -> None:
    fence = await make.fence(store)
    await store.append_events([make.batch(fence, make.event(1, "progress", created_us=OLD_US))])
    bench.store.fail("delete_events")
    with pytest.raises(WunderError):
        await bench.janitor.retain_once()
    await bench.janitor.retain_once()
    assert await store.read_events(make.SESSION, after=0, limit=1, max_bytes=1000) == []
