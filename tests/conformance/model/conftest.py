"""The models under test, each with the words that make it do what a test needs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from actors.models.base import Model, ModelRequest, ToolSpec
from actors.models.openai import OpenAiModel
from actors.models.scripted import ScriptedModel
from actors.settings import ModelSettings
from tests.support.upstream import Upstream

CALCULATOR = ToolSpec("calculator", "Computes.", {"type": "object", "properties": {"expression": {"type": "string"}}})


class Subject(msgspec.Struct):
    """A model and how to ask it for things."""

    model: Model
    say: Callable[[int], str]  # that many deltas at once
    drip: Callable[[int], str]  # that many deltas, a while apart
    call: Callable[[list[str]], str]  # calculator calls with these expressions
    think: str
    fail: Callable[[str, int], str]  # this failure after so many deltas

    def ask(self, question: str, *, tools: bool = False, answered: bool = False) -> ModelRequest:
        messages = [{"role": "user", "content": question}]
        if answered:
            call = {"id": "c1", "type": "function", "function": {"name": "calculator", "arguments": "{}"}}
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
            messages.append({"role": "tool", "tool_call_id": "c1", "name": "calculator", "content": '{"result":42}'})
        return ModelRequest(messages=messages, tools=(CALCULATOR,) if tools else ())


def _upstream_calls(expressions: list[str]) -> str:
    tools = [{"name": "calculator", "arguments": {"expression": e}} for e in expressions]
    return msgspec.json.encode({"tools": tools, "text": "it is 42"}).decode()


_FAULTS = {"refused": "refused_event", "overloaded": "error_event", "garbage": "bad_json", "unavailable": "odd_event"}


def _scripted() -> Subject:
    return Subject(
        model=ScriptedModel("m", ModelSettings(scripted_delay_ms=0)),
        say=lambda n: f"count to {n}",
        drip=lambda n: f"count to {n}",
        call=lambda expressions: "parallel calculate " + " and ".join(expressions),
        think="think about tests",
        fail=lambda kind, after: f"fail {kind} after {after}",
    )


def _openai(upstream: Upstream) -> Subject:
    return Subject(
        model=OpenAiModel("m", ModelSettings(provider="openai", base_url=upstream.base_url, retry=0)),
        say=lambda n: f"deltas={n}",
        drip=lambda n: f"deltas={n},rate=500",
        call=_upstream_calls,
        think="reasoning=3,deltas=3",
        fail=lambda kind, after: f"fault={_FAULTS[kind]},after={after},deltas=1000",
    )


@pytest.fixture(params=["scripted", "openai"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "scripted":
        yield _scripted()
        return
    async with Upstream() as upstream:
        subject = _openai(upstream)
        yield subject
        await subject.model.close()
