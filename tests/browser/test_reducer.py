"""Events -> what a reader sees: the pure modules of the console, run where they run, on made-up streams."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.browser.conftest import MakeDesk

pytestmark = pytest.mark.asyncio(loop_scope="session")

REDUCE = """async ({ cursor, events, messages, active }) => {
    const { newConversation, apply } = await import("/console/state/conversation.js");
    const { mergeMessages } = await import("/console/state/transcript.js");
    const conversation = newConversation(cursor);
    if (messages.length) mergeMessages(conversation, messages, active);
    const needs = events.map((event) => apply(conversation, event).need).filter(Boolean);
    return JSON.parse(JSON.stringify({ ...conversation, needs }));
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def page(desk: MakeDesk, browser: Browser) -> AsyncIterator[Page]:
    yield await (await desk()).tab()


def event(kind: str, number: int, turn: str = "t", first: int | None = None, **data: Any) -> dict[str, Any]:
    envelope = {"session_id": "s", "turn_id": turn, "timestamp": "2026-11-24T04:40:41.866Z", "data": data}
    if first is not None:
        envelope["first_id"] = first
    return {"event": kind, "id": number, "data": envelope}


def delta(number: int, text: str, n: int = 1, **more: Any) -> dict[str, Any]:
    return event("llm_output_delta", number, delta=text, model_round=n, **more)


def output(number: int, text: str, n: int = 1) -> dict[str, Any]:
    return event("llm_output", number, content=text, usage={}, model_round=n)


async def reduce(
    page: Page, events: list[dict[str, Any]], messages: list[dict[str, Any]] | None = None, cursor: int = 0
) -> dict[str, Any]:
    given = {"cursor": cursor, "events": events, "messages": messages or [], "active": "t"}
    return dict(await page.evaluate(REDUCE, given))


def texts(state: dict[str, Any]) -> list[str]:
    return [entry["text"] for turn in state["turns"] for entry in turn["rounds"]]


PROSE = """# A

one *two* `three`

- a
- b

- c

```py
x = 1

y = 2
```
end

3. x
4. y

**b** https://a.b/c."""

STREAM = [
    event("queue_start", 1),
    event("llm_request", 2, model="m", purpose="answer", model_round=1),
    delta(3, "Let me "),
    delta(4, "see."),
    output(5, "Let me see."),
    event("tool_call", 6, tool="calculator", args={"expression": "6*7"}, call_id="c", model_round=1),
    event("tool_result", 7, tool="calculator", call_id="c", ok=True, data=42, meta={"duration_ms": 3}, model_round=1),
    event("llm_request", 8, model="m", purpose="answer", model_round=2),
    delta(9, "It is ", 2),
    delta(10, "42", 2),
    output(11, "It is 42", 2),
    event("final", 12, answer="It is 42", usage={"input_tokens": 1, "output_tokens": 2}, stop_reason="stop"),
    event("turn_terminal", 13, status="succeeded", stop_reason="stop"),
]


async def test_a_whole_turn(page: Page) -> None:
    state = await reduce(page, STREAM)
    assert state["cursor"] == 13
    [turn] = state["turns"]
    assert (turn["status"], texts(state)) == ("succeeded", ["Let me see.", "It is 42"])
    [tool] = turn["rounds"][0]["tools"]
    assert (tool["name"], tool["ok"], tool["data"], tool["ms"]) == ("calculator", True, 42, 3)


async def test_whatever_comes_twice_counts_once(page: Page) -> None:
    whole = await reduce(page, STREAM)
    rng = random.Random(7)
    for _ in range(20):
        cuts = sorted(rng.sample(range(len(STREAM)), 3))
        doubled = [*STREAM[: cuts[2]], *STREAM[cuts[0] : cuts[1]], *STREAM[cuts[1] :]]
        state = await reduce(page, doubled)
        assert (texts(state), state["cursor"]) == (texts(whole), 13)


async def test_a_rewind_takes_the_rounds_text_back(page: Page) -> None:
    taken = [*STREAM[:9], event("rewind", 200, to_event_id=7, reason="owner_changed")]
    state = await reduce(page, taken)
    assert texts(state) == ["Let me see."]
    again = [event("llm_request", 201, model_round=2), delta(202, "Again", 2), output(203, "Again", 2)]
    assert texts(await reduce(page, [*taken, *again])) == ["Let me see.", "Again"]


async def test_a_rewind_leaves_tools_with_results_and_takes_those_without(page: Page) -> None:
    asked = event("tool_call", 8, tool="sleep", args={}, call_id="d", model_round=2)
    state = await reduce(page, [*STREAM[:7], asked, event("rewind", 99, to_event_id=7, reason="owner_changed")])
    assert [[tool["id"] for tool in each["tools"]] for each in state["turns"][0]["rounds"]] == [["c"]]


async def test_a_rewind_without_a_turn_takes_nothing(page: Page) -> None:
    rewind = event("rewind", 99, turn="", to_event_id=0, reason="owner_changed")
    state = await reduce(page, [*STREAM[:4], rewind])
    assert (texts(state), state["cursor"]) == (["Let me see."], 99)


async def test_a_gap_forgets_the_unfinished_round_and_asks_for_the_transcript(page: Page) -> None:
    gap = event("gap", 20, turn="", **{"from": 11, "oldest": 21, "latest": 30})
    state = await reduce(page, [*STREAM[:10], gap, delta(21, "... end", 2)])
    assert texts(state) == ["Let me see.", "... end"]
    assert state["turns"][0]["rounds"][1]["whole"] is False
    assert "messages" in state["needs"]
    state = await reduce(page, [*STREAM[:10], gap, delta(21, "... end", 2), output(22, "the whole", 2)])
    assert texts(state) == ["Let me see.", "the whole"]


async def test_a_gap_may_set_the_cursor_back(page: Page) -> None:
    gap = event("gap", 5, turn="", **{"from": 900, "oldest": 6, "latest": 5})
    state = await reduce(page, [gap, delta(6, "on")], cursor=900)
    assert (state["cursor"], texts(state)) == (6, ["on"])


async def test_segments_are_their_text(page: Page) -> None:
    state = await reduce(page, [STREAM[1], delta(40, "one two", first=3), delta(41, " three")])
    assert texts(state) == ["one two three"]


async def test_the_transcript_and_the_events_agree_in_any_order(page: Page) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "calculator", "arguments": '{"expression": "6*7"}'}}
    common = {"turn_id": "t", "created_at": "2026-11-24T04:40:41.866Z"}
    messages = [
        {"role": "user", "content": "6*7?", "position": 1, **common},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [call], "position": 2, **common},
        {"role": "tool", "tool_call_id": "c", "name": "calculator", "content": "42", "position": 3, **common},
    ]
    whole = await reduce(page, STREAM)
    for start in range(len(STREAM)):
        state = await reduce(page, STREAM[start:], messages, cursor=start)
        assert texts(state)[0] == "Let me see."
        assert state["turns"][0]["status"] == "succeeded"
        assert len(state["turns"][0]["rounds"][0]["tools"]) == 1
        if start <= 10:
            assert texts(state) == texts(whole)
        assert state["needs"] == []


async def test_a_queued_turn_in_the_middle_of_another_one(page: Page) -> None:
    queued = event("queued", 5, turn="later", position=1, reason="session_busy")
    state = await reduce(page, [STREAM[0], STREAM[1], delta(3, "a"), delta(4, "b"), queued, delta(6, "c")])
    assert [(turn["id"], turn["status"]) for turn in state["turns"]] == [("t", "running"), ("later", "queued")]
    assert texts(state) == ["abc"]


async def test_when_to_come_back(page: Page) -> None:
    found = await page.evaluate(
        """async () => {
            const { delayMs, verdict } = await import("/console/state/reconnect.js");
            const waits = (random, slowly) => [...Array(30).keys()].map((n) => delayMs(n, random, slowly));
            const codes = [1001, 1006, 1008, 1012, 4401, 4408, 4429, 4508].map((code) => [code, verdict(code)]);
            return { low: waits(0, false), high: waits(0.999, false), slow: waits(0, true), codes };
        }"""
    )
    assert dict(found["codes"]) == {
        **dict.fromkeys((1001, 1006, 1012, 4408, 4508), "again"),
        **dict.fromkeys((1008, 4429), "slowly"),
        4401: "sign_in",
    }
    assert found["low"] == sorted(found["low"])
    assert min(found["low"]) >= 100
    assert max(found["high"]) <= 15_000
    assert min(found["slow"]) >= 2500
    assert all(low < high for low, high in zip(found["low"], found["high"], strict=True))


async def test_numbers_over_time(page: Page) -> None:
    found = await page.evaluate(
        """async () => {
            const { Rate, Series, quantile } = await import("/console/state/series.js");
            const rate = new Rate();
            const rates = [[0, 5], [1000, 15], [3000, 35], [4000, 1], [5000, 4]].map(([at, n]) => rate.take(at, n));
            const series = new Series(1000);
            for (let at = 0; at < 5000; at += 100) series.add(at, at);
            const before = [[0.1, 5], [1, 5], [Infinity, 5]];
            return {
                rates,
                points: series.points.length,
                last: series.last,
                p50: quantile(0.5, [[0.1, 15], [1, 15], [Infinity, 15]], before),
                none: quantile(0.5, before, before),
                beyond: quantile(0.99, [[0.1, 5], [1, 5], [Infinity, 6]], before),
            };
        }"""
    )
    assert found["rates"] == [None, 10, 10, None, 3]
    assert (found["points"], found["last"]) == (11, 4900)
    assert found["p50"] == pytest.approx(0.05)
    assert found["none"] is None
    assert found["beyond"] == 1


async def test_blocks_of_a_text_that_grows_end_as_those_of_the_whole(page: Page) -> None:
    shown = await page.evaluate(
        """async (text) => {
            const { TextView } = await import("/console/views/text_view.js");
            const render = (steps) => {
                const view = new TextView("prose");
                for (const step of steps) view.update(step);
                return new XMLSerializer().serializeToString(view.element);
            };
            const whole = render([text]);
            const differ = [];
            for (let size = 1; size < 12; size++) {
                const steps = [];
                for (let at = size; at < text.length + size; at += size) steps.push(text.slice(0, at));
                if (render(steps) !== whole) differ.push(size);
            }
            return { whole, differ };
        }""",
        PROSE,
    )
    assert shown["differ"] == []
    assert "<ol" in shown["whole"]
    assert 'start="3"' in shown["whole"]
