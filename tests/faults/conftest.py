"""One service on a local Ray with a real Postgres for all fault tests of a run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer, free_port
from tests.support.receiver import SECRET
from tests.support.served import Served
from tests.support.world import World


@pytest.fixture(scope="package")
def world() -> Iterator[World]:
    with World() as world:
        yield world


@pytest.fixture(scope="package")
def postgres() -> Iterator[PostgresServer]:
    folder = Path(tempfile.mkdtemp(prefix="wunder-postgres-"))
    folder.chmod(0o755)  # Postgres runs as another user and has to reach its folder
    server = PostgresServer(folder)
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="package")
def receiver_port() -> int:
    """Where the service may send webhooks to."""
    return free_port()


@pytest.fixture(scope="package")
def served(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer, world: World, receiver_port: int
) -> Iterator[Served]:
    service = Served(
        tmp_path_factory.mktemp("served"),
        postgres.create_database(),
        {
            "sessions": {"lease_s": 6.0, "lease_renew_s": 1.0, "lease_stop_s": 4.0, "sweep_s": 0.5},
            "agent_queue": {"lease_s": 6.0, "max_workers": 8, "claim_batch": 8},
            "tools": {"http_allow_hosts": [f"127.0.0.1:{world.port}"]},
            "channels": {"webhooks": {"secret": SECRET, "allow_hosts": [f"127.0.0.1:{receiver_port}"]}},
            "llm": {"models": {"scripted": {"scripted_delay_ms": 10.0}}},
        },
    )
    service.start()
    yield service
    service.stop()
