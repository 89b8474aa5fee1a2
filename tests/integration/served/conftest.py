"""One service on a local Ray with SQLite for the integration tests of a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.served import Served


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    service = Served(
        folder,
        f"sqlite:///{folder}/data/wunder.db",
        {
            "llm": {"models": {"scripted": {"scripted_delay_ms": 5.0}}},
            "sessions": {"max_actors_per_node": 3, "idle_s": 1.0},
        },
    )
    service.start()
    yield service
    assert service.stop() == 0
