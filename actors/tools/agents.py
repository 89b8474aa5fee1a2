"""Tools with which a turn has other agents work for it: start them, wait for them, tell them more.

They are offered only where they are named, in a request's `tool_names` or an agent's `tools`.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from actors.children import OPEN, AgentRequest, Children, child_view
from actors.clock import Clock
from actors.errors import ToolError
from actors.settings import ActorSettings
from actors.tools.base import Tool, ToolContext, ToolResult, WaitFor

MAX_WAIT_S = 7 * 86_400.0

Text = Annotated[str, Meta(min_length=1, max_length=200_000)]


class SpawnArguments(msgspec.Struct, frozen=True):
    """What to do, and by whom."""

    task: Annotated[Text, Meta(description="Everything the agent has to know: it does not see this conversation.")]
    agent: Annotated[str | None, Meta(description="A named agent; without it the new agent is like you.")] = None


class SpawnAgent:
    """A child task with a session of its own."""

    name = "spawn_agent"
    description = (
        "Starts another agent that works on a task by itself, at the same time. Gives its id at once; "
        "its answer comes with wait_agents."
    )
    parallel_safe = False
    repeat_safe = True
    arguments: type[msgspec.Struct] = SpawnArguments

    def __init__(self, children: Children, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._children = children

    async def run(self, arguments: SpawnArguments, context: ToolContext) -> ToolResult:
        child = await self._children.spawn(context, AgentRequest(task=arguments.task, agent=arguments.agent))
        return ToolResult(ok=True, data={"id": child.turn_id, "session_id": child.session_id})


class WaitArguments(msgspec.Struct, frozen=True):
    """For whom, and how long at most."""

    ids: Annotated[
        tuple[str, ...], Meta(description="Ids of agents; without any, all that you have started.", max_length=1000)
    ] = ()
    timeout_s: Annotated[
        float, Meta(description="Seconds to wait at most, an hour by default.", ge=0, le=MAX_WAIT_S)
    ] = 3600.0


class WaitAgents:
    """Suspends the turn until the agents have ended."""

    name = "wait_agents"
    description = "Waits until agents that you have started have ended, and gives what each of them answered."
    parallel_safe = False
    repeat_safe = True
    arguments: type[msgspec.Struct] = WaitArguments

    def __init__(self, children: Children, clock: Clock, settings: ActorSettings) -> None:
        self.timeout_s = settings.tools.timeout_s
        self._children = children
        self._clock = clock
        self._max_chars = settings.tools.max_result_bytes

    async def run(self, arguments: WaitArguments, context: ToolContext) -> ToolResult:
        children = {child.turn_id: child for child in await self._children.of(context.turn_id)}
        unknown = [name for name in arguments.ids if name not in children]
        if unknown or not children:
            raise ToolError(f"This turn has started no agent{f' with the id {unknown[0][:100]!r}' if unknown else ''}.")
        awaited = [children[name] for name in dict.fromkeys(arguments.ids) or children]  # type: ignore[index]
        still_open = tuple(child.turn_id for child in awaited if child.status in OPEN)
        asked_us = self._clock.now_us() if context.asked_us is None else context.asked_us
        until_us = asked_us + round(arguments.timeout_s * 1e6)
        if still_open and self._clock.now_us() < until_us:
            raise WaitFor(" ".join(still_open), until_us, {"agents": list(still_open)})
        each = max(200, self._max_chars // (2 * len(awaited)))
        data: dict[str, Any] = {"agents": [child_view(child, each) for child in awaited]}
        if still_open:
            data["note"] = "Not all of them have ended in time; wait again for the others, or go on without them."
        return ToolResult(ok=True, data=data)


class SendArguments(msgspec.Struct, frozen=True):
    """To whom, and what."""

    id: Annotated[str, Meta(description="The id that spawn_agent gave.", min_length=1, max_length=200)]
    message: Annotated[Text, Meta(description="What the agent is to do next; it remembers what it did before.")]


class SendToAgent:
    """Another turn in a child's session."""

    name = "send_to_agent"
    description = (
        "Gives an agent that you have started another task, after its present one. "
        "Gives a new id to wait for with wait_agents."
    )
    parallel_safe = False
    repeat_safe = True
    arguments: type[msgspec.Struct] = SendArguments

    def __init__(self, children: Children, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._children = children

    async def run(self, arguments: SendArguments, context: ToolContext) -> ToolResult:
        child = await self._children.send(context, arguments.id, arguments.message)
        return ToolResult(ok=True, data={"id": child.turn_id, "session_id": child.session_id})


def agent_tools(children: Children, clock: Clock, settings: ActorSettings) -> tuple[Tool, ...]:
    """All of them."""
    timeout_s = settings.tools.timeout_s
    return SpawnAgent(children, timeout_s), WaitAgents(children, clock, settings), SendToAgent(children, timeout_s)
