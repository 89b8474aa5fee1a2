"""What a scenario works with: the cluster, the gated model, a client; and moves that several scenarios make."""

from __future__ import annotations

import asyncio
from typing import Any

from actors.permits import Permits
from actors.session_host import SessionHost
from actors.session_runner import SessionRunner
from tests.support.facts import eventually
from tests.support.gates import GatedModels, Take
from tests.support.local_cluster import LocalCluster
from tests.support.readers import Client, Request, Tab
from tests.support.reading import Reading

READS = ("begin", "commit", "rollback", "PRAGMA")


class Scene:
    """One running cluster."""

    def __init__(self, cluster: LocalCluster, models: GatedModels, client: Client) -> None:
        self.cluster = cluster
        self.models = models
        self.client = client
        self.leaves_turns = False

    @property
    def permits(self) -> Permits:
        assert self.cluster.directory is not None
        return self.cluster.directory.desk.permits

    def host_of(self, session_id: str) -> tuple[str, SessionHost]:
        """The host that has the session open."""
        for name, host in self.cluster.hosts.items():
            if session_id in host._runners:
                return name, host
        raise AssertionError(f"{session_id} is open nowhere")

    def runner_of(self, session_id: str) -> SessionRunner:
        return self.host_of(session_id)[1]._runners[session_id]  # type: ignore[index]

    async def crash_owner(self, session_id: str) -> str:
        name, _ = self.host_of(session_id)
        await self.cluster.crash(name)
        return name

    async def stored(self, session_id: str, seq: int) -> None:
        """Until everything up to `seq` is in the store."""
        runner = self.runner_of(session_id)
        await eventually(lambda: runner.stream.buffer.stored >= seq, f"{seq} stored")

    async def passivate(self, session_id: str) -> None:
        """Close the session cleanly, as after a long time without readers."""
        _, host = self.host_of(session_id)
        runner = self.runner_of(session_id)
        await eventually(lambda: not runner.session.busy, "nothing runs")
        await host._leave(session_id)  # type: ignore[arg-type]

    async def whole(self, session_id: str) -> Reading:
        """Everything a reader from the start gets now, and the transcript agrees."""
        reading = await self.client.page(session_id, 0)
        reading.equals_transcript(await self.client.messages(session_id))
        return reading


class Played:
    """A gated turn that is watched from its start."""

    def __init__(self, scene: Scene, tab: Tab, start: Request, take: Take, watch: Request) -> None:
        assert start.ack is not None
        self.scene = scene
        self.tab = tab
        self.start = start
        self.take = take
        self.watch = watch
        self.session_id: str = start.ack["session_id"]
        self.turn_id: str = start.ack["turn_id"]

    @property
    def reading(self) -> Reading:
        assert self.watch.reading is not None
        return self.watch.reading

    async def say(self, *texts: str) -> None:
        """Say it, and wait until the watcher has it."""
        seen = len(self.reading.of("llm_output_delta"))
        self.take.say(*texts)
        await self.watch.saw("llm_output_delta", seen + len(texts))

    async def end(self) -> str:
        """Finish the round and the turn; how it ended."""
        self.take.finish()
        return await self.watch.ended(self.turn_id)

    async def check(self) -> None:
        """The watcher saw what is stored."""
        self.reading.equals_transcript(await self.scene.client.messages(self.session_id))


async def play(scene: Scene, key: str = "a", *, client: Client | None = None, **payload: Any) -> Played:
    """Start "gate KEY" in a new session, watched."""
    tab = await (client or scene.client).tab()
    start = await tab.start(f"gate {key}", **payload)
    assert start.ack is not None
    take = await scene.models.take(key)
    watch = await tab.watch(start.ack["session_id"])
    await watch.saw("context_usage")
    return Played(scene, tab, start, take, watch)


async def together(*awaitables: Any) -> list[Any]:
    """All of them at once."""
    return list(await asyncio.gather(*awaitables))
