"""Every test here runs once for each provider."""

from __future__ import annotations

import pytest

from tests.support.channel_requests import CASES, Case


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found
