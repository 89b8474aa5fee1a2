"""Two nodes: session actors only where places are offered, and a node that is taken out while a turn runs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import aiohttp
import pytest

from tests.support.facts import eventually
from tests.support.follower import Follower
from tests.support.joined import Joined
from tests.support.ray_head import RayHead
from tests.support.served import API_KEY

TIMEOUT_S = 240.0
PLACES = 2


class Cluster:
    """A head without places, and nodes with some; each has a gateway on a port of its own."""

    def __init__(self, joined: Joined) -> None:
        self.joined = joined

    async def summary(self, url: str) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession(headers={"X-API-Key": API_KEY}) as http,
            http.get(f"{url}/wunder/admin/summary") as answer,
        ):
            assert answer.status == 200, await answer.text()
            found: dict[str, Any] = (await answer.json())["data"]["directory"]
            return found

    async def gateways(self) -> dict[str, str]:
        """URLs by node."""
        found = await self.summary(self.joined.url)
        return {gateway["node_id"]: gateway["address"] for gateway in found["gateways"]}


def drain(url: str, node_id: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", "drain", node_id[:12], "--url", url, *options],
        env={**os.environ, "WUNDER_API_KEY": API_KEY},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("head", [True], indirect=True)
async def test_a_node_is_taken_out_while_a_turn_runs(head: RayHead, joined: Joined) -> None:
    head.start()
    for _ in range(2):
        head.join(f'--resources={{"wunder_session": {PLACES}}}')
    joined.sections["server"]["port"] = 0
    joined.sections["sessions"] |= {"actor_resource": "wunder_session", "drain_grace_s": 2.0}
    joined.sections["agent_queue"] = {"max_workers": 2}
    await asyncio.to_thread(joined.start)
    cluster = Cluster(joined)
    await eventually(lambda: _count(cluster, 3), "a gateway on every node", timeout_s=60)
    nodes = {node["node_id"]: node for node in (await cluster.summary(joined.url))["nodes"]}
    assert sorted(node["places"] for node in nodes.values()) == [0, PLACES, PLACES]
    gateways = await cluster.gateways()
    (head_id,) = [node_id for node_id, node in nodes.items() if node["places"] == 0]

    async with Follower(gateways[head_id], API_KEY, "mover") as follower:
        await follower.start("count to 400")
        await follower.until(lambda e: e["event"] == "llm_output_delta")
        actors = (await cluster.summary(gateways[head_id]))["actors"]
        (host,) = [actor for actor in actors if actor["sessions"]]
        assert nodes[host["node_id"]]["places"] == PLACES
        done = await asyncio.to_thread(drain, gateways[head_id], host["node_id"])
        assert done.returncode == 0, done.stderr
        assert "is empty" in done.stdout
        assert await follower.finish() == "succeeded"
    left = await cluster.summary(gateways[head_id])
    assert not [actor for actor in left["actors"] if actor["node_id"] == host["node_id"]]
    assert not [gateway for gateway in left["gateways"] if gateway["node_id"] == host["node_id"]]
    assert host["node_id"] not in {outbox["node_id"] for outbox in left["outboxes"]}

    async def two_outboxes() -> bool:
        # The directory may have moved off the node too: outboxes tell a new one of themselves from time to time.
        return len((await cluster.summary(gateways[head_id]))["outboxes"]) == 2

    await eventually(two_outboxes, "the others' outboxes are known", timeout_s=30)

    undone = await asyncio.to_thread(drain, gateways[head_id], host["node_id"], "--undo")
    assert undone.returncode == 0, undone.stderr
    await eventually(lambda: _count(cluster, 3, gateways[head_id]), "its gateway is back", timeout_s=60)


async def _count(cluster: Cluster, wanted: int, url: str = "") -> bool:
    found = await cluster.summary(url or cluster.joined.url)
    return len(found["gateways"]) == wanted
