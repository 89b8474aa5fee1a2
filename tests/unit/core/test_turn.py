"""A turn alone: model rounds, tools, resume, cancellation. The harness commits as the runner would."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.cancellation import CancellationToken, Cancelled
from actors.errors import UpstreamTimeout
from actors.models.base import Completed, Delta, Retrying, ToolCall, Usage
from actors.tools.base import ToolContext
from actors.turn import (
    UNKNOWN_OUTCOME,
    Announced,
    Finished,
    RoundDone,
    Spoken,
    Step,
    ToolDone,
    Turn,
    TurnInput,
    closing,
)
from tests.support.doubles import PlayedModel, PlayedTool, PlayedTools, deltas

A, B = ToolCall("a", "alpha", "{}"), ToolCall("b", "beta", "{}")
ASKS = Completed("", tool_calls=(A, B), usage=Usage(10, 1))
DONE = (*deltas("do", "ne"), Completed("done", usage=Usage(5, 2)))


def given(model: PlayedModel, *tools: PlayedTool, **fields: Any) -> TurnInput:
    values: dict[str, Any] = {
        "history": [{"role": "user", "content": "go"}], "system_prompt": "", "token": CancellationToken(),
        "say": lambda *_: None, "max_rounds": 12, "max_result_bytes": 1000, **fields,
    }  # fmt: skip
    registry = PlayedTools(*tools)
    return TurnInput(
        session_id="s", turn_id="t", user_id="u", model=model, specs=registry.specs(None), find_tool=registry.get,
        **values,
    )  # fmt: skip


async def play(turn: Turn, history: list[dict[str, Any]]) -> list[Step]:
    steps = []
    async with closing(turn.run()) as stream:
        async for step in stream:
            steps.append(step)
            if isinstance(step, RoundDone | ToolDone):
                history.append(step.message)
    return steps


def kinds(steps: list[Step]) -> list[str]:
    return [step.kind if isinstance(step, Announced) else type(step).__name__ for step in steps]


async def test_a_turn_without_tools_is_one_round() -> None:
    wanted = given(PlayedModel(DONE))
    steps = await play(Turn(wanted), wanted.history)
    assert kinds(steps) == ["llm_request", "context_usage", "Spoken", "Spoken", "Finished"]
    final = steps[-1]
    assert isinstance(final, Finished)
    assert (final.answer, final.usage, final.stop_reason) == ("done", Usage(5, 2), "stop")
    assert [kind for kind, _ in final.events] == ["llm_output", "round_usage", "final"]


async def test_rounds_go_on_until_no_tool_is_asked_for() -> None:
    wanted = given(model := PlayedModel((ASKS,), DONE), PlayedTool("alpha"), PlayedTool("beta"))
    steps = await play(Turn(wanted), wanted.history)
    assert [step.round for step in steps if isinstance(step, RoundDone | ToolDone | Finished)] == [1, 1, 1, 2]
    assert [m["role"] for m in model.requests[1].messages] == ["user", "assistant", "tool", "tool"]
    final = steps[-1]
    assert isinstance(final, Finished)
    assert final.usage == Usage(15, 3)


async def test_tools_start_only_after_their_round_is_recorded() -> None:
    tool = PlayedTool("alpha")
    wanted = given(PlayedModel((Completed("", tool_calls=(A,)),), DONE), tool)
    stream = Turn(wanted).run()
    async with closing(stream):
        async for step in stream:
            if isinstance(step, RoundDone):
                assert not tool.contexts
                break
        await anext(stream)
    assert not tool.contexts


async def test_parallel_safe_tools_run_beside_each_other_and_report_as_they_end() -> None:
    second_done = asyncio.Event()

    async def first(_: ToolContext) -> str:
        await second_done.wait()
        return "first"

    async def second(_: ToolContext) -> str:
        second_done.set()
        return "second"

    wanted = given(PlayedModel((ASKS,), DONE), PlayedTool("alpha", first), PlayedTool("beta", second))
    steps = await play(Turn(wanted), wanted.history)
    assert {m["content"] for m in wanted.history[2:]} == {"first", "second"}
    assert kinds(steps).count("tool_call") == 2


@pytest.mark.parametrize("unsafe", ["alpha", "beta"])
async def test_one_tool_that_is_not_parallel_safe_makes_all_run_in_the_order_asked_for(unsafe: str) -> None:
    order: list[str] = []

    def noting(name: str) -> PlayedTool:
        async def body(_: ToolContext) -> str:
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")
            return name

        return PlayedTool(name, body, parallel_safe=name != unsafe)

    wanted = given(PlayedModel((ASKS,), DONE), noting("alpha"), noting("beta"))
    await play(Turn(wanted), wanted.history)
    assert order == ["alpha begins", "alpha ends", "beta begins", "beta ends"]
    assert [m["content"] for m in wanted.history[2:]] == ["alpha", "beta"]


async def test_an_unknown_tool_is_told_to_the_model() -> None:
    wanted = given(PlayedModel((ASKS,), DONE), PlayedTool("alpha"))
    steps = await play(Turn(wanted), wanted.history)
    results = {s.message["name"]: s.events[0][1] for s in steps if isinstance(s, ToolDone)}
    assert results["alpha"]["ok"]
    assert results["beta"]["error"] == "There is no tool named 'beta'."
    assert isinstance(steps[-1], Finished)


async def test_the_number_of_rounds_is_bounded() -> None:
    asks = (Completed("thinking", tool_calls=(A,)),)
    wanted = given(model := PlayedModel(asks, asks, asks), PlayedTool("alpha"), max_rounds=2)
    steps = await play(Turn(wanted), wanted.history)
    final = steps[-1]
    assert isinstance(final, Finished)
    assert (final.stop_reason, final.answer, final.message) == ("max_rounds", "thinking", None)
    assert len(model.requests) == 2


async def test_a_retry_of_the_model_is_announced() -> None:
    wanted = given(PlayedModel((Retrying(1, 3, 0.5, "overloaded"), *DONE)))
    retry = next(s for s in await play(Turn(wanted), wanted.history) if kinds([s]) == ["llm_stream_retry"])
    assert isinstance(retry, Announced)
    assert retry.data == {"attempt": 1, "max_attempts": 3, "delay_s": 0.5, "reason": "overloaded"}


async def test_a_tool_says_things_while_it_runs_and_gets_the_same_key_again_after_a_crash() -> None:
    said: list[tuple[Any, ...]] = []

    async def body(context: ToolContext) -> None:
        context.output("half way")

    tool = PlayedTool("alpha", body)
    wanted = given(PlayedModel((Completed("", tool_calls=(A,)),), DONE), tool, say=lambda *a: said.append(a))
    await play(Turn(wanted), wanted.history)
    resumed = given(PlayedModel(DONE), tool, first_round=2, open_calls=(A,))
    await play(Turn(resumed), resumed.history)
    head = {"tool": "alpha", "call_id": "a", "stream": "output"}
    assert said == [("tool_output_delta", head, "delta", "half way")]
    assert [c.key for c in tool.contexts] == ["t:1:a", "t:1:a"]


async def test_after_a_crash_only_repeat_safe_tools_run_again() -> None:
    alpha, beta = PlayedTool("alpha"), PlayedTool("beta", repeat_safe=False)
    wanted = given(PlayedModel(DONE), alpha, beta, first_round=2, open_calls=(A, B), usage=Usage(7, 7))
    wanted.history.append({"role": "assistant", "content": "", "tool_calls": []})
    steps = await play(Turn(wanted), wanted.history)
    assert len(alpha.contexts) == 1
    assert not beta.contexts
    results = {s.message["name"]: s.events[0][1] for s in steps if isinstance(s, ToolDone)}
    assert results["alpha"]["ok"]
    assert (results["beta"]["ok"], results["beta"]["error"]) == (False, UNKNOWN_OUTCOME)
    assert {s.round for s in steps if isinstance(s, ToolDone)} == {1}
    final = steps[-1]
    assert isinstance(final, Finished)
    assert (final.round, final.usage) == (2, Usage(12, 9))


async def test_a_cancel_during_the_model_keeps_what_was_said() -> None:
    model = PlayedModel((Delta("hm", "reasoning_delta"), *deltas("so ", "far"), asyncio.Event()))
    wanted = given(model)
    turn = Turn(wanted)
    steps = asyncio.ensure_future(play(turn, wanted.history))
    await model.waiting.wait()
    wanted.token.cancel("interrupted")
    with pytest.raises(Cancelled, match="interrupted"):
        await steps
    assert (turn.partial, turn.reasoning) == (["so ", "far"], ["hm"])
    assert model.ended == 1


async def test_an_upstream_error_keeps_what_was_said() -> None:
    wanted = given(PlayedModel((*deltas("so far"), UpstreamTimeout("silent"))))
    turn = Turn(wanted)
    with pytest.raises(UpstreamTimeout):
        await play(turn, wanted.history)
    assert turn.partial == ["so far"]


async def test_what_a_committed_round_said_is_no_partial() -> None:
    wanted = given(PlayedModel((*deltas("round 1"), ASKS), (UpstreamTimeout("silent"),)), PlayedTool("alpha"))
    turn = Turn(wanted)
    with pytest.raises(UpstreamTimeout):
        await play(turn, wanted.history)
    assert turn.partial == []


@pytest.mark.parametrize("parallel_safe", [True, False])
async def test_a_cancel_ends_running_tools(parallel_safe: bool) -> None:
    began, ended = asyncio.Event(), []

    async def body(_: ToolContext) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    tools = [PlayedTool(name, body, parallel_safe=parallel_safe) for name in ("alpha", "beta")]
    wanted = given(PlayedModel((ASKS,)), *tools)
    steps = asyncio.ensure_future(play(Turn(wanted), wanted.history))
    await began.wait()
    wanted.token.cancel()
    with pytest.raises(Cancelled):
        await steps
    assert len(ended) == (2 if parallel_safe else 1)


async def test_a_reader_that_stops_ends_the_model_and_the_tools_at_once() -> None:
    cancelled = []

    async def never(_: ToolContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(1)

    model = PlayedModel((*deltas("x"), ASKS))
    async with closing(Turn(given(model)).run()) as stream:
        async for step in stream:
            if isinstance(step, Spoken):
                break
    assert model.ended == 1

    wanted = given(PlayedModel((ASKS,)), PlayedTool("alpha"), PlayedTool("beta", never))
    async with closing(Turn(wanted).run()) as stream:
        async for step in stream:
            if isinstance(step, ToolDone):
                break
    assert cancelled == [1]
