"""Every way a turn can end, and that its end is recorded, announced, and gives the permit back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from actors.errors import StaleEpoch, UpstreamTimeout
from actors.messages import OpenSession
from actors.models.base import Completed, ToolCall, Usage
from actors.tools.base import ToolContext
from actors.turn import UNKNOWN_OUTCOME
from storage.records import SessionId
from storage.store import AsyncStorageBackend
from tests.support.doubles import PlayedModel, PlayedTool, deltas
from tests.support.facts import eventually
from tests.support.session_bench import SESSION, SessionBench

ANSWER = (*deltas("fine"), Completed("fine", usage=Usage(1, 1)))
CALLS_TOOL = (Completed("", tool_calls=(ToolCall("c", "tool", "{}"),)),)
Make = Callable[..., SessionBench]


@pytest.fixture
async def bench(store: AsyncStorageBackend) -> AsyncIterator[Make]:
    made: list[SessionBench] = []

    def build(**sessions: Any) -> SessionBench:
        made.append(SessionBench(store, **sessions))
        return made[-1]

    yield build
    for found in made:
        await found.stop()


async def free(found: SessionBench) -> None:
    await eventually(lambda: not found.directory.held and not found.directory.waiting, "no permit is held")


async def test_a_success(bench: Make) -> None:
    found = bench()
    await found.host(PlayedModel(ANSWER))
    accepted = await found.submit()
    assert (accepted.status, accepted.after) == ("running", 0)
    task = await found.ended()
    assert (task.status, task.answer, task.stop_reason, json.loads(task.usage or b"")) == (
        "succeeded", "fine", "stop", {"input_tokens": 1, "output_tokens": 1},
    )  # fmt: skip
    assert [role for role, _ in await found.messages()] == ["user", "assistant"]
    assert found.events[-1].kind == "turn_terminal"
    assert [e.seq for e in found.events] == list(range(1, len(found.events) + 1))
    assert [(e.first_seq, e.seq) for e in await found.stored()] == [(e.first_seq, e.seq) for e in found.events]
    await free(found)


@pytest.mark.parametrize("known", ["the running one", "by its name"])
async def test_a_cancel_keeps_what_was_said(bench: Make, known: str) -> None:
    found = bench()
    await found.host(model := PlayedModel((*deltas("so ", "far"), asyncio.Event())))
    await found.submit()
    await model.waiting.wait()
    receipt = await found.cancel("t1" if known == "by its name" else None)
    assert (receipt.cancelled, receipt.turn_id, receipt.status) == (True, "t1", "cancelled")
    task = await found.ended()
    assert (task.status, task.answer, task.stop_reason) == ("cancelled", None, "cancelled")
    assert json.loads((await found.messages())[-1][1]) == {"role": "assistant", "content": "so far", "partial": True}
    assert (await found.cancel("t1")).cancelled, "whoever asks again is told that it holds"
    await free(found)


async def test_an_upstream_error_keeps_what_was_said_and_names_itself(bench: Make) -> None:
    found = bench()
    await found.host(PlayedModel((*deltas("so far"), UpstreamTimeout("silent for 60 s"))))
    await found.submit()
    task = await found.ended()
    assert task.status == "failed"
    assert json.loads(task.error or b"") == {"code": "UPSTREAM_TIMEOUT", "message": "silent for 60 s"}
    assert [e.kind for e in found.events[-2:]] == ["error", "turn_terminal"]
    assert json.loads((await found.messages())[-1][1])["content"] == "so far"
    await free(found)


async def test_a_bug_fails_the_turn_without_telling_its_insides(bench: Make) -> None:
    found = bench()
    await found.host(PlayedModel((*deltas("x"), ZeroDivisionError("secret"))))
    await found.submit()
    task = await found.ended()
    assert task.status == "failed"
    assert b"secret" not in (task.error or b"")
    await free(found)


async def test_a_cancel_that_was_answered_holds_when_the_connection_breaks_with_it(bench: Make) -> None:
    found = bench()
    release = asyncio.Event()

    class Breaks(PlayedModel):
        async def stream(self, request: Any, token: Any) -> AsyncIterator[Any]:
            self.waiting.set()
            await release.wait()
            raise UpstreamTimeout("the connection broke")
            yield

    await found.host(model := Breaks())
    await found.submit()
    await model.waiting.wait()
    assert (await found.cancel()).cancelled
    release.set()
    assert (await found.ended()).status == "cancelled"
    assert "error" not in [e.kind for e in found.events]


async def test_a_cancel_while_the_end_is_recorded_is_answered_with_that_end(bench: Make) -> None:
    found = bench()
    await found.host(PlayedModel(ANSWER))
    gate = found.store.hold("finish_turn")
    await found.submit()
    await found.store.at_gate.wait()
    cancelling = asyncio.ensure_future(found.cancel())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not cancelling.done()
    gate.set()
    receipt = await cancelling
    assert (receipt.cancelled, receipt.status) == (False, "succeeded")
    assert (await found.ended()).status == "succeeded"


async def test_a_cancel_recorded_by_another_process_wins_over_the_answer(bench: Make) -> None:
    found = bench()
    gate = asyncio.Event()
    await found.host(model := PlayedModel((*deltas("fine"), gate, Completed("fine"))))
    await found.submit()
    await model.waiting.wait()
    await found.real.request_cancel("t1")  # type: ignore[arg-type]
    gate.set()
    task = await found.ended()
    assert (task.status, task.answer) == ("cancelled", None)
    assert [e.kind for e in found.events].count("turn_terminal") == 1
    assert [e.seq for e in found.events] == list(range(1, len(found.events) + 1))


async def test_a_tool_that_was_not_offered_is_unknown(bench: Make) -> None:
    found = bench()
    tool = PlayedTool("tool")
    await found.host(PlayedModel(CALLS_TOOL, ANSWER), tool)
    await found.submit(tool_names=())
    assert (await found.ended()).status == "succeeded"
    assert not tool.contexts
    assert "There is no tool named" in (await found.messages())[2][1]


async def test_a_turn_of_a_dead_owner_goes_on_from_its_last_committed_round(bench: Make) -> None:
    found = bench()
    running = asyncio.Event()

    async def never(_: ToolContext) -> None:
        running.set()
        await asyncio.Event().wait()

    await found.host(PlayedModel(CALLS_TOOL), PlayedTool("tool", never, repeat_safe=False))
    await found.submit()
    await running.wait()
    await found.crash()
    tool = PlayedTool("tool", repeat_safe=False)
    await found.host(model := PlayedModel(ANSWER), tool)
    await found.tell(OpenSession(session_id=SESSION))
    await eventually(lambda: not found.runner.session.busy, "the turn ended")
    task = await found.real.get_task("t1")  # type: ignore[arg-type]
    assert task is not None
    assert (task.status, task.attempt, task.crashes, task.last_round) == ("succeeded", 2, 1, 1)
    assert not tool.contexts
    assert model.requests[0].messages[-1]["content"] == json.dumps({"error": UNKNOWN_OUTCOME}, separators=(",", ":"))
    assert [e.kind for e in await found.stored()].count("rewind") == 1
    await free(found)


async def test_a_turn_goes_on_only_after_it_was_said_what_is_taken_back(bench: Make) -> None:
    found = bench()
    await found.host(first := PlayedModel((asyncio.Event(),)))
    await found.submit()
    await first.waiting.wait()
    await found.crash()
    host = await found.host(model := PlayedModel(ANSWER))
    gate = found.store.hold("read_events")  # the database is slow, and the next upkeep comes before its answer
    opening = asyncio.ensure_future(found.tell(OpenSession(session_id=SESSION)))
    await found.store.at_gate.wait()
    looking = asyncio.ensure_future(host._upkeep.run_once())
    await host._grant(SESSION)  # and so does a permit that was asked for before
    for _ in range(100):
        await asyncio.sleep(0)
    assert model.requests == []
    gate.set()
    await asyncio.gather(opening, looking)
    await eventually(lambda: not found.runner.session.busy, "the turn ended")
    of_the_next_owner = [e for e in await found.stored() if e.seq >= host._runners[SESSION]._opened.first_seq]
    assert [e.kind for e in of_the_next_owner].index("rewind") == 0
    task = await found.real.get_task("t1")  # type: ignore[arg-type]
    assert task is not None
    assert (task.status, task.attempt) == ("succeeded", 2)
    await free(found)


async def test_a_turn_that_takes_its_owners_down_is_given_up(bench: Make) -> None:
    found = bench(max_crashes=2)
    for _ in range(3):
        await found.host(model := PlayedModel((asyncio.Event(),)))
        if len(found.hosts) == 1:
            await found.submit()
        else:
            await found.tell(OpenSession(session_id=SESSION))
        await model.waiting.wait()
        await found.crash()
    await found.host(last := PlayedModel(ANSWER))
    await found.tell(OpenSession(session_id=SESSION))
    await eventually(lambda: not found.runner.session.busy, "the turn was given up")
    task = await found.real.get_task("t1")  # type: ignore[arg-type]
    assert task is not None
    assert (task.status, task.crashes, last.requests) == ("failed", 3, [])
    assert b"given up after 3 crashes" in (task.error or b"")
    await free(found)


async def test_a_stale_owner_gives_the_session_up_and_ends_its_model(bench: Make) -> None:
    found = bench()
    gate = asyncio.Event()
    await found.host(model := PlayedModel((*deltas("x"), gate, Completed("x"))))
    await found.submit()
    await model.waiting.wait()
    await found.real.expire_owner(found.hosts[-1]._lease.owner_id)
    await found.real.register_owner("other", "node", lease_s=60)  # type: ignore[arg-type]
    await found.real.open_session(SESSION, "other", seq_block=64, now_us=1)  # type: ignore[arg-type]
    gate.set()
    await eventually(lambda: SESSION not in found.hosts[-1]._runners, "the session was given up")
    await eventually(lambda: model.ended == 1, "the model was ended")
    task = await found.real.get_task("t1")  # type: ignore[arg-type]
    assert task is not None
    assert task.status == "running"
    assert (await found.gauges())["stale_writes_refused"] >= 1
    await free(found)


async def test_a_task_that_is_cut_off_by_nobody_we_know_gives_the_session_up(bench: Make) -> None:
    found = bench()

    class Broken(PlayedModel):
        async def stream(self, request: Any, token: Any) -> AsyncIterator[Any]:
            raise asyncio.CancelledError
            yield

    await found.host(Broken())
    await found.submit()
    await eventually(lambda: SESSION not in found.hosts[-1]._runners, "the session was given up")
    await free(found)


async def test_the_transcript_in_memory_is_bounded_but_keeps_the_question(bench: Make) -> None:
    found = bench(max_history_messages=3)
    call = Completed("", tool_calls=tuple(ToolCall(f"c{i}", "tool", "{}") for i in range(4)))
    await found.host(model := PlayedModel((call,), ANSWER, ANSWER), PlayedTool("tool"))
    await found.submit()
    await found.ended()
    assert [m["role"] for m in model.requests[1].messages] == ["system", "user", "assistant", *["tool"] * 4]
    await found.submit("t2")
    await found.ended("t2")
    assert [m["role"] for m in model.requests[2].messages][-1] == "user"
    assert len(found.runner.turns._history.messages or []) <= 3


async def test_a_failed_acceptance_keeps_no_permit(bench: Make) -> None:
    found = bench()
    await found.host(PlayedModel(ANSWER))
    found.store.fail("accept_turn", 1, StaleEpoch("another owner"))
    with pytest.raises(StaleEpoch):
        await found.submit()
    await free(found)
    assert SessionId(SESSION) not in found.hosts[-1]._runners
