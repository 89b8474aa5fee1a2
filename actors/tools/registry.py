"""The built-in tools, made once and shared by all turns of a process."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from aiohttp.abc import AbstractResolver

from actors.clock import Clock, SystemClock
from actors.errors import InvalidRequest
from actors.models.base import ToolSpec
from actors.settings import ToolsSettings
from actors.tools.base import Tool
from actors.tools.calculator import Calculator
from actors.tools.current_time import CurrentTime
from actors.tools.egress import EgressPolicy, GuardedClient
from actors.tools.http_fetch import HttpFetch
from actors.tools.schema import schema_of
from actors.tools.sleep import Sleep

NAMED_TOOLS = ("spawn_agent", "wait_agents", "send_to_agent", "ask_person")
"""Tools that are offered only where they are named."""


class Tools:
    """Finds tools by name and tells models of them. `client` is the guarded client, for webhooks too.

    `more` are tools that are offered only where they are named; `elsewhere` are such tools that other processes have.
    """

    def __init__(
        self,
        settings: ToolsSettings,
        *,
        clock: Clock | None = None,
        resolver: AbstractResolver | None = None,
        more: Sequence[Tool] = (),
        elsewhere: Sequence[str] = (),
    ) -> None:
        policy = EgressPolicy(settings.http_allow_hosts, public=settings.http_public)
        self.client = GuardedClient(
            policy, timeout_s=settings.http_timeout_s, max_bytes=settings.http_max_bytes, resolver=resolver
        )
        built: tuple[Tool, ...] = (
            CurrentTime(clock or SystemClock(), settings.timeout_s),
            Calculator(settings.timeout_s),
            Sleep(),
            HttpFetch(self.client, settings.timeout_s),
        )
        self._tools = {tool.name: tool for tool in (*built, *more)}
        self._specs = {t.name: ToolSpec(t.name, t.description, schema_of(t.arguments)) for t in self._tools.values()}
        self._usual = tuple(tool.name for tool in built)
        self._known = (*self._tools, *elsewhere)

    def specs(self, names: tuple[str, ...] | None) -> tuple[ToolSpec, ...]:
        """The named tools (None: the usual ones); an unknown name is the caller's mistake."""
        return tuple(self._spec(name) for name in dict.fromkeys(self._usual if names is None else names))

    def check(self, names: tuple[str, ...]) -> None:
        """`InvalidRequest` for a name that is no tool's, here or elsewhere."""
        for name in names:
            if name not in self._known:
                self._spec(name)

    def get(self, name: str) -> Tool | None:
        return self._tools.get(name)

    async def close(self) -> None:
        await self.client.close()

    def _spec(self, name: str) -> ToolSpec:
        if (spec := self._specs.get(name)) is not None:
            return spec
        close = difflib.get_close_matches(name, self._known, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise InvalidRequest(
            f"There is no tool named {name[:100]!r}.",
            field="tool_names",
            hint=f"{hint}Known tools: {', '.join(self._known)}.",
        )
