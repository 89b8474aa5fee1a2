"""One answer of a model's server is bounded in what it makes us keep, decode, and do at one go."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import msgspec
import pytest

from actors.cancellation import CancellationToken
from actors.errors import UpstreamGarbage
from actors.models.assembly import (
    MAX_ARGUMENTS_CHARS,
    MAX_CALL_ID_CHARS,
    MAX_NAME_CHARS,
    MAX_TEXT_CHARS,
    MAX_TOKENS,
    Assembly,
)
from actors.models.base import ModelRequest, ToolSpec, Usage
from actors.models.exchange import Exchange
from actors.models.openai import _deltas
from actors.models.script import plan
from actors.models.upstream_errors import redactor


def _assembly() -> Assembly:
    return Assembly(redactor(""), lambda: "made")


def _chunk(**delta: Any) -> bytes:
    return msgspec.json.encode({"choices": [{"delta": delta}]})


def _call(arguments: str = "", name: str = "f", call_id: str = "c", index: int = 0) -> dict[str, Any]:
    return {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize("fields", [("content",), ("reasoning",), ("content", "reasoning_content"), ("refusal",)])
def test_the_text_is_bounded(fields: tuple[str, ...]) -> None:
    assembly, piece = _assembly(), "x" * (MAX_TEXT_CHARS // 4)
    for number in range(4):
        assembly.feed(_chunk(**{fields[number % len(fields)]: piece}))
    with pytest.raises(UpstreamGarbage, match=str(MAX_TEXT_CHARS)):
        assembly.feed(_chunk(**{fields[0]: "x"}))
    completed = assembly.completed()
    assert len(completed.content) + len(completed.reasoning) == MAX_TEXT_CHARS


def test_the_arguments_of_all_calls_are_bounded_together() -> None:
    assembly, piece = _assembly(), " " * (MAX_ARGUMENTS_CHARS // 16)
    for index in range(16):
        assembly.feed(_chunk(tool_calls=[_call(piece, call_id=f"c{index}", index=index)]))
    with pytest.raises(UpstreamGarbage, match=str(MAX_ARGUMENTS_CHARS)):
        assembly.feed(_chunk(tool_calls=[_call("1", call_id="c3", index=3)]))


def test_names_ids_and_reasons_are_bounded() -> None:
    for call in (_call(name="n" * (MAX_NAME_CHARS + 1)), _call(call_id="i" * (MAX_CALL_ID_CHARS + 1))):
        with pytest.raises(UpstreamGarbage, match="characters"):
            _assembly().feed(_chunk(tool_calls=[call]))
    assembly = _assembly()
    assembly.feed(msgspec.json.encode({"choices": [{"finish_reason": "r" * 100_000}]}))
    assert len(assembly.completed().stop_reason) < 100


def test_the_pieces_of_one_chunk_are_bounded() -> None:
    with pytest.raises(UpstreamGarbage, match="128 tool calls"):
        _assembly().feed(_chunk(tool_calls=[{}] * 129))


@pytest.mark.parametrize(
    ("said", "kept"),
    [(10**40, MAX_TOKENS), (2**63, MAX_TOKENS), (-5, 0), (-(10**40), 0), (None, 0), (12, 12)],
)
def test_counts_fit_a_database(said: int | None, kept: int) -> None:
    assembly = _assembly()
    number = "null" if said is None else str(said)
    assembly.feed(f'{{"usage": {{"prompt_tokens": {number}, "completion_tokens": {number}}}}}'.encode())
    assert assembly.completed().usage == Usage(kept, kept)


@pytest.mark.parametrize("arguments", ["[" * 900 + "]" * 900, '{"a":' * 600 + "1" + "}" * 600, "[" * 100_000])
def test_deep_arguments_are_garbage(arguments: str) -> None:
    assembly = _assembly()
    assembly.feed(_chunk(tool_calls=[_call(arguments)]))
    with pytest.raises(UpstreamGarbage, match="nested"):
        assembly.completed()


@pytest.mark.parametrize("arguments", ["", "{}", "{", "no json", "]" * 600, "[" * 100 + "]" * 100, '{"a": "ü"}'])
def test_other_arguments_are_passed_on_as_they_are(arguments: str) -> None:
    assembly = _assembly()
    assembly.feed(_chunk(tool_calls=[_call(arguments)]))
    assert assembly.completed().tool_calls[0].arguments == arguments


def test_many_small_pieces_are_put_together() -> None:
    assembly, piece = _assembly(), _chunk(tool_calls=[{"index": 0, "function": {"arguments": "1"}}])
    assembly.feed(_chunk(tool_calls=[_call()]))
    for _ in range(100_000):
        assembly.feed(piece)
    assert assembly.completed().tool_calls[0].arguments == "1" * 100_000


class Burst:
    """An exchange whose one read holds thousands of chunks."""

    def __init__(self, *reads: bytes) -> None:
        self._reads = [*reads, b""]

    async def read(self) -> bytes:
        return self._reads.pop(0)

    def heard(self) -> None: ...

    def wind_down(self) -> None: ...


@pytest.mark.parametrize("chunk", [_chunk(content="a"), _chunk(tool_calls=[_call("1")]), b"{}", b""])
async def test_others_run_while_thousands_of_chunks_are_read(chunk: bytes) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    burst = Burst((b"data:" + chunk + b"\n") * 8192 + b"data:[DONE]\n")
    running = asyncio.create_task(other())
    async for _ in _deltas(cast("Exchange", burst), _assembly(), CancellationToken()):
        pass
    running.cancel()
    assert turns >= 8192 // 256


TOOLS = tuple(ToolSpec(n, n, {}) for n in ("calculator", "current_time", "http_fetch", "sleep"))


@pytest.mark.parametrize(
    "question",
    [
        "time " * 20_000,
        "what time " * 10_000,
        "time " + "Aa/" * 30_000 + "+",
        "time " + ("Aa/-- " * 15_000),
        "parallel calculate 1" + " " * 100_000 + "a",
        "parallel calculate 1" + "\n , " * 25_000,
        "parallel calculate " + "1 and " * 20_000,
        "calculate " * 10_000,
        ("calculate" + " " * 2000) * 50,
        "fetch " * 20_000,
        "stream " * 15_000,
        "sleep " + "1" * 100_000,
        "fail after " + "1" * 100_000 + "x",
        "fail" + " " * 100_000 + "x",
        "think" + " about" * 20_000,
        "echo" + " " * 100_000 + "x",
    ],
)
def test_the_script_reads_any_long_question_in_linear_time(question: str) -> None:
    began = time.process_time()
    plan(ModelRequest(messages=[{"role": "user", "content": question}], tools=TOOLS))
    # A hundred times what it takes; quadratic time would be above it several times over.
    assert time.process_time() - began < 3


def test_a_deep_tool_result_is_told_as_text() -> None:
    deep = "[" * 100_000
    request = ModelRequest(messages=[{"role": "user", "content": "x"}, {"role": "tool", "name": "t", "content": deep}])
    assert "".join(plan(request).words) == f"t says: {deep}"
