"""A task whose tool kills the process that runs it, among many that do no harm: it ends dead, and alone (F29)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.looks import row
from tests.faults.test_pools import all_ended, submit
from tests.support.facts import eventually
from tests.support.postgres import PostgresServer
from tests.support.served import Served
from tests.support.world import World

TIMEOUT_S = 240.0
INNOCENTS = 50
MAX_CRASHES = 3
POISON = "/kill/the-caller"


@pytest.fixture(scope="module")
def murderous() -> Iterator[World]:
    with World() as world:
        yield world


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer, murderous: World) -> Iterator[Served]:
    """A service with one pool that runs 32 tasks at a time."""
    service = Served(
        tmp_path_factory.mktemp("crowded"),
        postgres.create_database(),
        {
            "sessions": {
                "lease_s": 6.0, "lease_renew_s": 1.0, "lease_stop_s": 4.0, "sweep_s": 0.5, "max_crashes": MAX_CRASHES,
            },
            "agent_queue": {"lease_s": 6.0, "max_workers": 32, "claim_batch": 32},
            "tools": {"http_allow_hosts": [f"127.0.0.1:{murderous.port}"]},
            "llm": {"models": {"scripted": {"scripted_delay_ms": 10.0}}},
        },
    )  # fmt: skip
    service.start()
    yield service
    service.stop()


async def test_poison_ends_dead_and_every_innocent_succeeds(crowded: Served, murderous: World) -> None:
    """The world answers the poison's request by killing whoever sent it: the process dies inside the tool's call."""
    victims: list[int] = []
    murderous.on_arrival[POISON] = lambda port: victims.extend(crowded.kill_caller(murderous.port, port))
    innocents = [f"count to {60 + n % 20}" for n in range(INNOCENTS)]
    (poison,) = await submit(crowded, [f"fetch http://127.0.0.1:{murderous.port}{POISON}"], "mallory")
    ids = await submit(crowded, innocents, "innocent")
    (ended,) = await all_ended(crowded, [poison])
    assert (ended["status"], ended["crashes"]) == ("dead", MAX_CRASHES + 1)
    found = await all_ended(crowded, ids)
    assert {task["status"] for task in found} == {"succeeded"}
    assert len(victims) == len(set(victims)) == MAX_CRASHES + 1, "each of its runs killed a process"
    assert max(task["crashes"] for task in found) == 1, "a neighbour of its first run is no neighbour of the others"
    assert any(task["crashes"] for task in found), "the poison ran alone: nothing was shown"
    answers = "SELECT count(*) FROM messages WHERE turn_id = ANY($1) AND role = 'assistant'"
    assert await row(crowded, answers, ids) == INNOCENTS
    crashed = "SELECT count(*) FROM task_attempts WHERE turn_id = $1 AND outcome = 'crashed'"
    assert await row(crowded, crashed, poison) == MAX_CRASHES + 1
    await eventually(lambda: crowded.processes("WorkerPool"), "there is a pool again", timeout_s=30)
    (again,) = await submit(crowded, ["echo all is well"], "innocent")
    assert (await all_ended(crowded, [again]))[0]["answer"] == "all is well"
