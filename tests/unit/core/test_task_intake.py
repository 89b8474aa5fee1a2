"""Tasks that are taken in: whose session has an owner, that owner is told, wherever the session was before."""

from __future__ import annotations

from actors.messages import PickUp
from actors.owners import Owners
from actors.replies import Done
from actors.settings import AgentQueueSettings
from actors.task_intake import TaskIntake
from storage.records import Enqueued, OwnerId, SessionId
from storage.store import AsyncStorageBackend
from tests.conformance.store import make
from tests.support.directory_bench import DirectoryBench
from tests.support.facts import eventually


async def test_the_owner_that_the_database_names_is_told_not_the_one_remembered(store: AsyncStorageBackend) -> None:
    """A pool that had the session before answers a `PickUp` as if all were well: the task would wait for ever."""
    bench = DirectoryBench(store)
    bench.launcher.found = []
    await bench.start()
    await bench.report("pool-1", sessions=("s1",))
    owners = Owners(bench.handle, bench.reach, bench.clock, timeout_s=5.0)
    await owners.ask(SessionId("s1"), PickUp(session_id=SessionId("s1")), Done)
    assert len(bench.reach.heard("pool-1", PickUp)) == 1
    await bench.report("host-1")
    intake = TaskIntake(AgentQueueSettings(), store, bench.clock, bench.handle, owners)
    intake.announce([Enqueued(task=make.task("t1", "queued"), owner_id=OwnerId("own-host-1"))])
    await eventually(lambda: bench.reach.heard("host-1", PickUp), "its owner is told")
    assert len(bench.reach.heard("pool-1", PickUp)) == 1
    await intake.close()
    await bench.directory.stop()
