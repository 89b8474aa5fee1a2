"""The script of the built-in model."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from actors.cancellation import CancellationToken
from actors.errors import InvalidRequest, UpstreamError, UpstreamTimeout
from actors.models.base import Completed, ModelRequest, ToolSpec
from actors.models.openai import OpenAiModel
from actors.models.registry import Models
from actors.models.script import INTRODUCTION
from actors.models.scripted import ScriptedModel
from actors.settings import LlmSettings, ModelSettings

TOOLS = tuple(ToolSpec(n, n, {}) for n in ("calculator", "current_time", "http_fetch", "sleep"))
FAST = ScriptedModel("scripted", ModelSettings(scripted_delay_ms=0))


async def answer(question: str, **given: object) -> Completed:
    request = ModelRequest(messages=[{"role": "user", "content": question}], tools=TOOLS, **given)
    last = [part async for part in FAST.stream(request, CancellationToken())][-1]
    assert isinstance(last, Completed)
    return last


@pytest.mark.parametrize(
    ("question", "tool", "arguments"),
    [
        ("calculate 6*7", "calculator", {"expression": "6*7"}),
        ("Please calculate (1 + 2) * 3?", "calculator", {"expression": "(1 + 2) * 3"}),
        ("what time is it?", "current_time", {}),
        ("What's the time", "current_time", {}),
        ("time in Europe/Berlin", "current_time", {"timezone": "Europe/Berlin"}),
        ("what time is it in America/New_York?", "current_time", {"timezone": "America/New_York"}),
        ("fetch https://example.com/a?b=c", "http_fetch", {"url": "https://example.com/a?b=c"}),
        ("sleep 3", "sleep", {"seconds": 3.0}),
    ],
)
async def test_plain_words_call_tools(question: str, tool: str, arguments: object) -> None:
    completed = await answer(question)
    assert [(c.name, msgspec.json.decode(c.arguments)) for c in completed.tool_calls] == [(tool, arguments)]


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("echo  hello,\n  world ", "hello,\n  world"),
        ("count to 3", "1 2 3"),
        ("stream 4", "1 2 3 4"),
        ("count to 0", ""),
        ("hello", INTRODUCTION),
        ("", INTRODUCTION),
    ],
)
async def test_plain_words_are_answered(question: str, said: str) -> None:
    assert (await answer(question)).content == said


async def test_it_says_that_it_is_scripted_and_how_to_go_on() -> None:
    said = (await answer("who are you?")).content
    assert all(word in said for word in ("scripted", "config/wunder.yaml", "llm.models", "provider: openai"))


async def test_counting_is_bounded_and_so_is_output() -> None:
    assert (await answer("count to 99999999999999")).content.endswith(" 100000")
    short = await answer("count to 50", max_output=5)
    assert (short.content, short.stop_reason) == ("1 2 3 4 5", "length")


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ('{"expression":"6*7","result":42}', "calculator says: 42"),
        ('{"error":"Division by zero."}', "calculator says: it failed (Division by zero.)"),
        ("plain", "calculator says: plain"),
        ("[1]", "calculator says: [1]"),
    ],
)
async def test_tool_results_are_told(result: str, said: str) -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "calculate 6*7"}]},
        {"role": "assistant", "content": ""},
        {"role": "tool", "name": "calculator", "tool_call_id": "c", "content": result},
    ]
    parts = [p async for p in FAST.stream(ModelRequest(messages=messages, tools=TOOLS), CancellationToken())]
    assert isinstance(parts[-1], Completed)
    assert parts[-1].content == said


@pytest.mark.parametrize("kind", ["", "refused", "timeout", "garbage", "overloaded", "unavailable"])
async def test_failures(kind: str) -> None:
    with pytest.raises(UpstreamTimeout if kind == "timeout" else UpstreamError):
        await answer(f"fail {kind}")


async def test_words_come_at_their_pace() -> None:
    model = ScriptedModel("slow", ModelSettings(scripted_delay_ms=10))
    began = asyncio.get_running_loop().time()
    request = ModelRequest(messages=[{"role": "user", "content": "count to 10"}])
    assert len([p async for p in model.stream(request, CancellationToken())]) == 11
    assert 0.09 < asyncio.get_running_loop().time() - began < 1


async def test_models_are_found_by_name() -> None:
    entries = {
        "scripted": ModelSettings(),
        "gpt": ModelSettings(provider="openai", base_url="http://localhost:1/v1"),
        "gpt-mini": ModelSettings(provider="openai", base_url="http://localhost:1/v1/"),
    }
    models = Models(LlmSettings(default="scripted", models=entries))
    assert models.get(None).name == "scripted"
    gpt, mini = models.get("gpt"), models.get("gpt-mini")
    assert isinstance(gpt, OpenAiModel)
    assert isinstance(mini, OpenAiModel)
    assert gpt._breaker is mini._breaker
    with pytest.raises(InvalidRequest) as caught:
        models.get("gpt-min")
    assert caught.value.field == "model_name"
    assert "gpt-mini" in (caught.value.hint or "")
    await models.close()
