"""What a tool is to a turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from actors.cancellation import CancellationToken

WAITING_TOOLS = frozenset(("wait_agents", "ask_person"))
"""Tools that may raise `WaitFor`."""


class ToolContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a running tool knows of its turn; `key` is the same at each repetition of this call.

    `tools` are the names of those that the turn may use. `asked_us` is when the call was recorded, at a repetition.
    """

    session_id: str
    turn_id: str
    user_id: str
    call_id: str
    key: str
    token: CancellationToken
    output: Callable[[str], None]
    tools: tuple[str, ...] = ()
    asked_us: int | None = None


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """What the model reads. `data` is JSON-ready."""

    ok: bool
    data: Any = None
    error: str | None = None


class WaitFor(Exception):
    """The turn cannot go on before something has come, or until then; the call is made again after that.

    `waits_for` is what the store knows it by, `shown` what readers are told.
    """

    def __init__(self, waits_for: str, until_us: int, shown: dict[str, Any]) -> None:
        super().__init__(waits_for, until_us, shown)
        self.waits_for = waits_for
        self.until_us = until_us
        self.shown = shown


class Tool(Protocol):
    """A function the model may call.

    `parallel_safe`: may run beside others of the same round. `repeat_safe`: may run again when a crash left its
    outcome unknown. `arguments` is the msgspec Struct type that decodes the call's arguments.
    """

    name: str
    description: str
    parallel_safe: bool
    repeat_safe: bool
    timeout_s: float
    arguments: type[msgspec.Struct]

    async def run(self, arguments: Any, context: ToolContext) -> ToolResult:
        """Do it. `ToolError` becomes a failed result; `context.token` ends it (cancellation reaches the await)."""
