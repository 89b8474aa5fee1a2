"""A cluster of its own for every test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.joined import Joined
from tests.support.ray_head import RayHead


@pytest.fixture
def head(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RayHead]:
    """Not started yet; `joinable` if the test says so."""
    found = RayHead(tmp_path, joinable=getattr(request, "param", False))
    try:
        yield found
    finally:
        found.stop()


@pytest.fixture
def joined(head: RayHead, tmp_path: Path) -> Iterator[Joined]:
    """A supervisor of it, not started yet."""
    found = Joined(head, tmp_path)
    yield found
    found.close()
