"""One turn as an async generator of steps: model round -> tool calls -> next round -> final.

The turn decides and talks to the model and the tools; its runner announces, commits and keeps the transcript. A step
that has to be durable (`RoundDone`, `ToolDone`, `Finished`) is committed by the runner before the generator goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from actors.cancellation import CancellationToken
from actors.models.base import Completed, Delta, Model, ModelRequest, Retrying, ToolCall, ToolSpec, Usage
from actors.tools.base import WAITING_TOOLS, Tool, ToolContext, ToolResult, WaitFor
from actors.tools.executor import run_tool
from actors.transcript import assistant_message, tool_message, window

UNKNOWN_OUTCOME = (
    "The service restarted while this tool ran. Whether it took effect is unknown, and it is not repeated."
)

T = TypeVar("T")


class Announced(msgspec.Struct, frozen=True):
    """Say it at once, store it behind."""

    kind: str
    data: dict[str, Any]


class Spoken(msgspec.Struct, frozen=True, gc=False):
    """A piece of the model's text."""

    field: str
    text: str
    round: int


class RoundDone(msgspec.Struct, frozen=True):
    """A model round that asks for tools: durable before any tool starts."""

    round: int
    message: dict[str, Any]
    events: tuple[tuple[str, dict[str, Any]], ...]


class ToolDone(msgspec.Struct, frozen=True):
    """A tool's result: durable before it is announced or read by the model."""

    round: int
    message: dict[str, Any]
    events: tuple[tuple[str, dict[str, Any]], ...]


class Finished(msgspec.Struct, frozen=True):
    """The answer."""

    round: int
    answer: str
    usage: Usage
    stop_reason: str
    message: dict[str, Any] | None
    events: tuple[tuple[str, dict[str, Any]], ...]


class Waiting(msgspec.Struct, frozen=True):
    """The turn cannot go on before something has come: its last step in this run (see `WaitFor`)."""

    waits_for: str
    until_us: int
    shown: dict[str, Any]


Step = Announced | Spoken | RoundDone | ToolDone | Finished | Waiting


class TurnInput(msgspec.Struct, kw_only=True):
    """What a turn needs. `history` is the runner's live transcript: it grows as steps are committed.

    `open_calls` are tool calls of the last committed round that have no result yet (after a crash, or a wait), which
    was recorded at `asked_us`.
    """

    session_id: str
    turn_id: str
    user_id: str
    model: Model
    specs: tuple[ToolSpec, ...]
    find_tool: Callable[[str], Tool | None]
    history: list[dict[str, Any]]
    system_prompt: str
    token: CancellationToken
    say: Callable[[str, dict[str, Any], str, str], None]
    max_rounds: int
    max_result_bytes: int
    temperature: float | None = None
    max_output: int | None = None
    first_round: int = 1
    open_calls: tuple[ToolCall, ...] = ()
    asked_us: int | None = None
    usage: Usage = Usage()


class Turn:
    """Runs a turn; `partial` and `reasoning` hold what the model said in the round that is under way."""

    def __init__(self, given: TurnInput) -> None:
        self._in = given
        self.usage = given.usage
        self.round = given.first_round
        self.partial: list[str] = []
        self.reasoning: list[str] = []

    async def run(self) -> AsyncIterator[Step]:
        """The steps, ending with `Finished`; raises `Cancelled` or `UpstreamError` instead."""
        given = self._in
        if given.open_calls:
            async with closing(self._run_tools(given.first_round - 1, given.open_calls, resumed=True)) as steps:
                async for step in steps:
                    yield step
        last = ""
        for self.round in range(given.first_round, given.max_rounds + 1):
            completed: Completed | None = None
            async with closing(self._ask()) as items:
                async for item in items:
                    if isinstance(item, Completed):
                        completed = item
                    else:
                        yield item
            assert completed is not None  # noqa: S101 - the model's contract
            last = completed.content or last
            if not completed.tool_calls:
                yield self._finished(completed, completed.content, completed.stop_reason)
                return
            yield RoundDone(self.round, assistant_message(completed), self._output_events(completed))
            self.partial, self.reasoning = [], []
            async with closing(self._run_tools(self.round, completed.tool_calls, resumed=False)) as steps:
                async for step in steps:
                    yield step
        yield self._finished(None, last, "max_rounds")

    async def _ask(self) -> AsyncIterator[Step | Completed]:
        given, number = self._in, self.round
        messages, tokens = window(given.history, given.system_prompt, given.model.max_context)
        yield Announced("llm_request", {"model": given.model.name, "purpose": "chat", "model_round": number})
        yield Announced("context_usage", {"context_tokens": tokens, "message_count": len(messages)})
        request = ModelRequest(
            messages=messages,
            tools=given.specs,
            temperature=given.temperature,
            max_output=given.max_output,
        )
        self.partial, self.reasoning = [], []
        async with closing(given.model.stream(request, given.token)) as parts:
            async for part in parts:
                if type(part) is Delta:
                    (self.partial if part.field == "delta" else self.reasoning).append(part.text)
                    yield Spoken(part.field, part.text, number)
                elif isinstance(part, Retrying):
                    yield Announced("llm_stream_retry", msgspec.structs.asdict(part))
                elif isinstance(part, Completed):
                    self.usage = self.usage + part.usage
                    yield part

    def _output_events(self, completed: Completed) -> tuple[tuple[str, dict[str, Any]], ...]:
        usage = msgspec.to_builtins(completed.usage)
        output: dict[str, Any] = {"content": completed.content, "usage": usage, "model_round": self.round}
        if completed.reasoning:
            output["reasoning"] = completed.reasoning
        if completed.tool_calls:
            output["tool_calls"] = [
                {"call_id": c.call_id, "tool": c.name, "args": arguments(c)} for c in completed.tool_calls
            ]
        return (("llm_output", output), ("round_usage", {**usage, "model_round": self.round}))

    def _finished(self, completed: Completed | None, answer: str, stop_reason: str) -> Finished:
        final = (
            "final",
            {"answer": answer, "usage": msgspec.to_builtins(self.usage), "stop_reason": stop_reason},
        )
        events = (*self._output_events(completed), final) if completed else (final,)
        message = assistant_message(completed) if completed else None
        return Finished(self.round, answer, self.usage, stop_reason, message, events)

    async def _run_tools(self, number: int, calls: Sequence[ToolCall], *, resumed: bool) -> AsyncIterator[Step]:
        # What may have to wait comes last: nothing that could have run is left open meanwhile.
        calls = sorted(calls, key=lambda call: call.name in WAITING_TOOLS)
        tools = [self._in.find_tool(call.name) for call in calls]
        together = all(tool is not None and tool.parallel_safe for tool in tools)
        for call in calls:
            yield Announced(
                "tool_call",
                {"tool": call.name, "args": arguments(call), "call_id": call.call_id, "model_round": number},
            )
        if not together:
            for call, tool in zip(calls, tools, strict=True):
                try:
                    done: Step = await self._call(number, call, tool, resumed)
                except WaitFor as wait:
                    done = Waiting(wait.waits_for, wait.until_us, wait.shown)
                yield done
            return
        running = [
            asyncio.create_task(self._call(number, call, tool, resumed), name=f"tool-{call.name}")
            for call, tool in zip(calls, tools, strict=True)
        ]
        try:
            for finished in asyncio.as_completed(running):
                yield await finished
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _call(self, number: int, call: ToolCall, tool: Tool | None, resumed: bool) -> ToolDone:
        given = self._in
        duration_ms, truncated = 0.0, False
        if tool is None:
            result = ToolResult(ok=False, error=f"There is no tool named {call.name!r}.")
        elif resumed and not tool.repeat_safe:
            result = ToolResult(ok=False, error=UNKNOWN_OUTCOME)
        else:
            head = {"tool": call.name, "call_id": call.call_id, "stream": "output"}
            context = ToolContext(
                session_id=given.session_id,
                turn_id=given.turn_id,
                user_id=given.user_id,
                call_id=call.call_id,
                key=f"{given.turn_id}:{number}:{call.call_id}",
                token=given.token,
                output=lambda text: given.say("tool_output_delta", head, "delta", text),
                tools=tuple(spec.name for spec in given.specs),
                asked_us=given.asked_us if resumed else None,
            )
            result, duration_ms, truncated = await run_tool(
                tool, call, context, max_result_bytes=given.max_result_bytes
            )
        return self._tool_done(number, call, result, round(duration_ms, 3), truncated)

    def _tool_done(
        self, number: int, call: ToolCall, result: ToolResult, duration_ms: float, truncated: bool
    ) -> ToolDone:
        data: dict[str, Any] = {
            "tool": call.name,
            "call_id": call.call_id,
            "ok": result.ok,
            "data": result.data,
            "meta": {"duration_ms": duration_ms, "truncated": truncated},
            "model_round": number,
        }
        if result.error is not None:
            data["error"] = result.error
        return ToolDone(number, tool_message(call, result), (("tool_result", data),))


@contextlib.asynccontextmanager
async def closing(stream: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """A stream that ends with its reader: what it holds (a connection, running tools) is not left to the collector."""
    try:
        yield stream
    finally:
        if isinstance(stream, AsyncGenerator):
            await stream.aclose()


def arguments(call: ToolCall) -> Any:
    """The call's arguments as JSON if they are JSON, else the text as the model wrote it."""
    try:
        return msgspec.json.decode(call.arguments or "{}")
    except msgspec.DecodeError:
        return call.arguments
