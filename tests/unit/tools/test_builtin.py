"""The built-in tools by name, their schemas, and what they answer."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from actors.cancellation import CancellationToken, Cancelled
from actors.errors import InvalidRequest
from actors.models.base import ToolCall
from actors.settings import ToolsSettings
from actors.tools.base import ToolContext, ToolResult
from actors.tools.executor import run_tool
from actors.tools.registry import Tools
from actors.tools.schema import schema_of


class FixedClock:
    def now_us(self) -> int:
        return 1_767_323_045_678_901

    def monotonic_s(self) -> float:
        return 0.0

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_1"


TOOLS = Tools(ToolsSettings(), clock=FixedClock())


async def call(context: ToolContext, name: str, **arguments: Any) -> ToolResult:
    tool = TOOLS.get(name)
    assert tool is not None
    text = msgspec.json.encode(arguments).decode()
    return (await run_tool(tool, ToolCall("c", name, text), context, max_result_bytes=16_384))[0]


async def test_current_time(context: ToolContext) -> None:
    assert (await call(context, "current_time")).data == {
        "time": "2026-01-02T03:04:05+00:00",
        "timezone": "UTC",
        "weekday": "Friday",
    }
    berlin = await call(context, "current_time", timezone="Europe/Berlin")
    assert berlin.data["time"] == "2026-01-02T04:04:05+01:00"


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", "/etc/passwd", "", "Europe", "a\0b"])
async def test_a_zone_that_is_none(context: ToolContext, zone: str) -> None:
    result = await call(context, "current_time", timezone=zone)
    assert not result.ok
    assert "time zone" in (result.error or "")


async def test_calculator(context: ToolContext) -> None:
    assert (await call(context, "calculator", expression="6*7")).data["result"] == 42
    assert (await call(context, "calculator", expression="2**64")).data["result"] == str(2**64)
    assert (await call(context, "calculator", expression="1/0")).error == "Division by zero."


async def test_sleep(context: ToolContext, token: CancellationToken) -> None:
    assert (await call(context, "sleep", seconds=0.001)).data == {"slept_s": 0.001}
    assert not (await call(context, "sleep", seconds=301)).ok
    assert not (await call(context, "sleep", seconds=-1)).ok
    token.cancel()
    with pytest.raises(Cancelled):
        await call(context, "sleep", seconds=300)


async def test_http_fetch_goes_through_the_guard(context: ToolContext) -> None:
    result = await call(context, "http_fetch", url="http://169.254.169.254/latest/meta-data/")
    assert not result.ok
    assert "may not be reached" in (result.error or "")
    assert not (await call(context, "http_fetch", url="http://example.com/", method="DELETE")).ok


def test_specs() -> None:
    assert [spec.name for spec in TOOLS.specs(None)] == ["current_time", "calculator", "sleep", "http_fetch"]
    assert TOOLS.specs(()) == ()
    assert [spec.name for spec in TOOLS.specs(("sleep", "calculator", "sleep"))] == ["sleep", "calculator"]
    with pytest.raises(InvalidRequest) as caught:
        TOOLS.specs(("calculatr",))
    assert caught.value.field == "tool_names"
    assert "'calculator'" in (caught.value.hint or "")
    assert TOOLS.get("nothing") is None


def test_schemas_stand_alone() -> None:
    for spec in TOOLS.specs(None):
        encoded = msgspec.json.encode(spec.parameters)
        assert b"$ref" not in encoded
        assert spec.parameters["type"] == "object"
    [spec] = TOOLS.specs(("sleep",))
    assert spec.parameters["required"] == ["seconds"]
    assert spec.parameters["properties"]["seconds"]["maximum"] == 300


class Inner(msgspec.Struct):
    title: str


class Outer(msgspec.Struct):
    one: Inner
    many: list[Inner]


class Endless(msgspec.Struct):
    next: Endless | None = None


def test_references_are_inlined() -> None:
    inner = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    assert schema_of(Outer)["properties"] == {"one": inner, "many": {"type": "array", "items": inner}}
    with pytest.raises(ValueError, match="contains itself"):
        schema_of(Endless)
