"""What the service's processes have here besides: a tool that must not be repeated, and a model that calls it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from urllib.parse import quote

import msgspec

from actors.cancellation import CancellationToken
from actors.models.base import Completed, Model, ModelPart, ModelRequest, ToolCall, ToolSpec
from actors.models.registry import Models
from actors.settings import LlmSettings, ModelSettings, ToolsSettings
from actors.tools.base import Tool, ToolContext, ToolResult
from actors.tools.egress import GuardedClient
from actors.tools.registry import Tools
from actors.tools.schema import schema_of

ONCE_MODEL = "once"
_ACT_ONCE = "act_once"


class ActOnceArguments(msgspec.Struct, frozen=True):
    """Where to act."""

    url: str


class ActOnce:
    """Has an effect that must not be repeated; the world is told the call's key."""

    name = _ACT_ONCE
    description = "Acts on the world. It is not known to be safe to repeat."
    parallel_safe = False
    repeat_safe = False
    timeout_s = 30.0
    arguments: type[msgspec.Struct] = ActOnceArguments

    def __init__(self, client: GuardedClient) -> None:
        self._client = client

    async def run(self, arguments: ActOnceArguments, context: ToolContext) -> ToolResult:
        response = await self._client.request("POST", f"{arguments.url}?key={quote(context.key, safe='')}")
        return ToolResult(ok=True, data={"text": response.body.decode()})


class ChaosTools(Tools):
    """The built-in tools, and the one that is not repeat-safe, which is offered like them."""

    def __init__(self, settings: ToolsSettings, *, more: Sequence[Tool] = ()) -> None:
        super().__init__(settings, more=more)
        tool = ActOnce(self.client)
        self._tools[tool.name] = tool
        self._specs[tool.name] = ToolSpec(tool.name, tool.description, schema_of(tool.arguments))
        self._usual = (*self._usual, tool.name)


class OnceModel:
    """The scripted model, whose `fetch` calls the tool that is not repeat-safe."""

    def __init__(self, scripted: Model) -> None:
        self._scripted = scripted
        self.name = scripted.name
        self.max_rounds = scripted.max_rounds
        self.max_context = scripted.max_context

    async def stream(self, request: ModelRequest, token: CancellationToken) -> AsyncIterator[ModelPart]:
        """See `Model.stream`."""
        async with contextlib.aclosing(self._scripted.stream(request, token)) as parts:
            async for part in parts:
                if isinstance(part, Completed) and part.tool_calls:
                    calls = tuple(ToolCall(call.call_id, _ACT_ONCE, call.arguments) for call in part.tool_calls)
                    yield msgspec.structs.replace(part, tool_calls=calls)
                else:
                    yield part

    async def close(self) -> None:
        await self._scripted.close()


class ChaosModels(Models):
    """The configured models; the one named `once` acts once."""

    def __init__(self, settings: LlmSettings) -> None:
        super().__init__(settings)
        self._models[ONCE_MODEL] = OnceModel(self._models[ONCE_MODEL])


def models() -> dict[str, ModelSettings]:
    """`llm.models` of a run."""
    scripted = ModelSettings(scripted_delay_ms=0.0)
    return {"scripted": scripted, ONCE_MODEL: scripted}
