from __future__ import annotations

from collections.abc import Callable

import pytest

from actors.cancellation import CancellationToken
from actors.tools.base import ToolContext


@pytest.fixture
def token() -> CancellationToken:
    return CancellationToken()


@pytest.fixture
def context(token: CancellationToken) -> ToolContext:
    say: Callable[[str], None] = lambda text: None  # noqa: E731
    return ToolContext(session_id="s", turn_id="t", user_id="u", call_id="c", key="t:1:c", token=token, output=say)
