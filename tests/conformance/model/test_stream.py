"""What every model does: deltas as they come, then one `Completed`; or an error; or `Cancelled` at once."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from actors.cancellation import CancellationToken, Cancelled
from actors.errors import UpstreamGarbage, UpstreamOverloaded, UpstreamRefused, UpstreamUnavailable
from actors.models.base import Completed, Delta, ModelPart


async def _parts(subject: Any, question: str, **asked: Any) -> list[ModelPart]:
    return [p async for p in subject.model.stream(subject.ask(question, **asked), CancellationToken())]


async def _read(
    subject: Any, question: str, got: list[ModelPart], token: CancellationToken, cancel_at: int = -1
) -> None:
    async for part in subject.model.stream(subject.ask(question), token):
        got.append(part)
        if len(got) == cancel_at:
            token.cancel()


@pytest.mark.parametrize("count", [1, 7, 1000])
async def test_completed_is_last_and_says_what_the_deltas_said(subject: Any, count: int) -> None:
    *deltas, completed = await _parts(subject, subject.say(count))
    assert isinstance(completed, Completed)
    assert len(deltas) == count
    assert all(isinstance(d, Delta) and d.field == "delta" and d.text for d in deltas)
    assert "".join(d.text for d in deltas if isinstance(d, Delta)) == completed.content
    assert completed.stop_reason == "stop"
    assert completed.tool_calls == ()
    assert completed.usage.input_tokens > 0
    assert completed.usage.output_tokens > 0


async def test_reasoning_has_its_own_field(subject: Any) -> None:
    *deltas, completed = await _parts(subject, subject.think)
    assert isinstance(completed, Completed)
    thoughts = [d.text for d in deltas if isinstance(d, Delta) and d.field == "reasoning_delta"]
    assert thoughts
    assert "".join(thoughts) == completed.reasoning
    assert completed.content


@pytest.mark.parametrize("expressions", [["6*7"], ["1+1", "2+2"], ["1+1", "2+2", "3+3"]])
async def test_tool_calls_are_whole_and_have_their_own_ids(subject: Any, expressions: list[str]) -> None:
    completed = (await _parts(subject, subject.call(expressions), tools=True))[-1]
    assert isinstance(completed, Completed)
    assert [call.name for call in completed.tool_calls] == ["calculator"] * len(expressions)
    assert [msgspec.json.decode(c.arguments)["expression"] for c in completed.tool_calls] == expressions
    assert len({call.call_id for call in completed.tool_calls}) == len(expressions)
    assert completed.stop_reason == "tool_calls"


async def test_no_tool_is_called_that_was_not_offered(subject: Any) -> None:
    completed = (await _parts(subject, subject.call(["6*7"])))[-1]
    assert isinstance(completed, Completed)
    assert completed.tool_calls == ()
    assert completed.content


async def test_a_tool_result_leads_to_an_answer(subject: Any) -> None:
    completed = (await _parts(subject, subject.call(["6*7"]), tools=True, answered=True))[-1]
    assert isinstance(completed, Completed)
    assert completed.tool_calls == ()
    assert "42" in completed.content


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("refused", UpstreamRefused),
        ("overloaded", UpstreamOverloaded),
        ("garbage", UpstreamGarbage),
        ("unavailable", UpstreamUnavailable),
    ],
)
@pytest.mark.parametrize("after", [0, 5])
async def test_a_failure_is_typed_and_never_completes(
    subject: Any, kind: str, error: type[Exception], after: int
) -> None:
    got: list[ModelPart] = []
    with pytest.raises(error):
        await _read(subject, subject.fail(kind, after), got, CancellationToken())
    assert len(got) == after
    assert not any(isinstance(part, Completed) for part in got)


async def test_cancelled_before_it_starts(subject: Any) -> None:
    token, got = CancellationToken(), list[ModelPart]()
    token.cancel("interrupted")
    with pytest.raises(Cancelled) as caught:
        await _read(subject, subject.say(3), got, token)
    assert got == []
    assert caught.value.reason == "interrupted"


async def test_cancelled_midway_says_nothing_more(subject: Any) -> None:
    got: list[ModelPart] = []
    with pytest.raises(Cancelled):
        await _read(subject, subject.drip(10_000), got, CancellationToken(), cancel_at=3)
    assert len(got) == 3


async def test_many_turns_share_one_model(subject: Any) -> None:
    ends = await asyncio.gather(*(_parts(subject, subject.say(n)) for n in range(1, 40)))
    assert [len(parts) for parts in ends] == list(range(2, 41))


async def test_a_reader_may_leave(subject: Any) -> None:
    async with aclosing(subject.model.stream(subject.ask(subject.drip(10_000)), CancellationToken())) as parts:
        async for _ in parts:
            break
    assert len(await _parts(subject, subject.say(2))) == 3


async def test_messages_are_not_changed(subject: Any) -> None:
    request = subject.ask(subject.call(["6*7"]), tools=True, answered=True)
    before = msgspec.json.encode(request.messages)
    async for _ in subject.model.stream(request, CancellationToken()):
        pass
    assert msgspec.json.encode(request.messages) == before
