"""Running a call: whatever happens, the model gets a bounded result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.cancellation import CancellationToken, Cancelled
from actors.errors import ToolError
from actors.models.base import ToolCall
from actors.tools.base import ToolContext, ToolResult
from actors.tools.executor import run_tool
from actors.tools.limits import cut_data, cut_text


class Arguments(msgspec.Struct):
    count: int
    name: str = ""


class Fake:
    name, description = "fake", "For tests."
    parallel_safe = repeat_safe = True
    arguments: type[msgspec.Struct] = Arguments

    def __init__(self, action: Callable[[Arguments], Awaitable[ToolResult]], timeout_s: float = 5) -> None:
        self.run_action = action
        self.timeout_s = timeout_s

    async def run(self, arguments: Any, context: ToolContext) -> ToolResult:
        return await self.run_action(arguments)


def returning(value: Any) -> Fake:
    async def action(arguments: Arguments) -> ToolResult:
        return ToolResult(ok=True, data=value)

    return Fake(action)


def raising(error: BaseException) -> Fake:
    async def action(arguments: Arguments) -> ToolResult:
        raise error

    return Fake(action)


async def run(
    tool: Fake, context: ToolContext, arguments: str = '{"count": 1}', limit: int = 1000
) -> tuple[ToolResult, float, bool]:
    return await run_tool(tool, ToolCall("c", "fake", arguments), context, max_result_bytes=limit)


async def test_a_result_passes_through(context: ToolContext) -> None:
    result, duration_ms, truncated = await run(returning({"a": [1, 2.5, None, True, "x"]}), context)
    assert result == ToolResult(ok=True, data={"a": [1, 2.5, None, True, "x"]})
    assert duration_ms >= 0
    assert not truncated


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("{}", "`count`"),
        ("", "`count`"),
        ('{"count": "many"}', "$.count"),
        ('{"count": 1, "name": []}', "$.name"),
        ("{", "not a JSON object"),
        ("[]", "wrong"),
        ('{"count": 1, "name": "\\ud800"}', "not a JSON object"),
        ("[" * 100_000, "nested|wrong|not a JSON"),
        (" " * 2_000_000, "longer"),
    ],
)
async def test_wrong_arguments_are_told_to_the_model(context: ToolContext, arguments: str, says: str) -> None:
    result, _, _ = await run(returning("never"), context, arguments)
    assert not result.ok
    assert any(part in (result.error or "") for part in says.split("|"))


async def test_numbers_as_text_are_taken(context: ToolContext) -> None:
    assert (await run(returning("ok"), context, '{"count": "3"}'))[0].ok


async def test_errors_do_not_leak(context: ToolContext) -> None:
    assert (await run(raising(ToolError("no such page")), context))[0].error == "no such page"
    result, _, _ = await run(raising(RuntimeError("password=hunter2")), context)
    assert result.error == "fake failed unexpectedly (RuntimeError)."
    result, _, _ = await run(raising(TimeoutError("inner")), context)
    assert result.error == "fake failed unexpectedly (TimeoutError)."


async def test_time_is_bounded(context: ToolContext) -> None:
    async def forever(arguments: Arguments) -> ToolResult:
        await asyncio.Event().wait()
        raise AssertionError

    result, duration_ms, _ = await run(Fake(forever, timeout_s=0.05), context)
    assert result.error == "fake did not finish within 0.05 s."
    assert 45 < duration_ms < 1000


async def test_cancellation_reaches_the_tool(context: ToolContext, token: CancellationToken) -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def forever(arguments: Arguments) -> ToolResult:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    running = asyncio.create_task(run(Fake(forever), context))
    await started.wait()
    token.cancel()
    with pytest.raises(Cancelled):
        await running
    assert ended.is_set()


@pytest.mark.parametrize("value", [b"bytes", object(), {1: 2}, {"a": {1, 2}}])
async def test_a_result_that_is_not_json_fails(context: ToolContext, value: Any) -> None:
    result, _, _ = await run(returning(value), context)
    assert not result.ok
    assert "not JSON" in (result.error or "")


async def test_endless_nesting_fails(context: ToolContext) -> None:
    nested: list[Any] = []
    nested.append(nested)
    assert not (await run(returning(nested), context))[0].ok


async def test_long_results_and_errors_are_cut(context: ToolContext) -> None:
    result, _, truncated = await run(returning({"text": "ä" * 10_000_000}), context)
    assert truncated
    assert "truncated" in result.data["text"]
    assert len(msgspec.json.encode(result.data)) < 1100
    result, _, truncated = await run(raising(ToolError("x" * 5000)), context)
    assert truncated
    assert len(result.error or "") <= 1000


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=8) | st.dictionaries(st.text(max_size=30), inner, max_size=8),
    max_leaves=30,
)


@given(_json, st.integers(256, 2000))
def test_any_value_is_cut_to_size(value: Any, limit: int) -> None:
    cut, truncated = cut_data(value, limit)
    encoded = msgspec.json.encode(cut)
    assert len(encoded) <= limit + 400
    if not truncated:
        assert len(encoded) <= limit + 30 or not isinstance(value, str)


@pytest.mark.parametrize("value", [[[[]] * 1000] * 1000, [{}] * 100_000, {str(n): {} for n in range(100_000)}])
def test_empty_parts_count_too(value: Any) -> None:
    cut, truncated = cut_data(value, 4096)
    assert truncated
    assert len(msgspec.json.encode(cut)) < 4096 + 400


@given(st.text(), st.integers(60, 400))
def test_text_is_cut_at_a_character(text: str, limit: int) -> None:
    kept, cut = cut_text(text, limit)
    assert len(kept.encode("utf-8", "replace")) <= limit
    assert cut == (len(text.encode("utf-8", "replace")) > limit)
    if not cut:
        assert kept == text
