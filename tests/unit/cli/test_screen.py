"""What a turn looks like in a terminal and in a pipe."""

from __future__ import annotations

import io
from typing import Any

import pytest

from gateway.cli.screen import Screen
from gateway.cli.turn_client import Accepted, Cut, Item, TurnEvent


def event(number: int, kind: str, /, **data: Any) -> TurnEvent:
    return TurnEvent(kind, number, data)


def delta(number: int, text: str) -> TurnEvent:
    return event(number, "llm_output_delta", delta=text)


def shown(*items: Item, colour: bool = False) -> str:
    out = io.StringIO()
    screen = Screen(out, colour=colour)
    for item in items:
        screen.show(item)
    return out.getvalue()


DONE = event(99, "turn_terminal", status="succeeded")


def test_an_answer_as_it_comes() -> None:
    items = (
        Accepted("s", "t", queued=False, position=0),
        delta(1, "Hel"),
        delta(2, "lo"),
        event(3, "llm_output", content="Hello"),
        event(4, "final", answer="Hello"),
        DONE,
    )
    assert shown(*items) == "Hello\n"


def test_tools_in_a_line_each() -> None:
    items = (
        delta(1, "Let me see."),
        event(2, "llm_output", content="Let me see."),
        event(3, "tool_call", tool="clock", args={"zone": "UTC"}),
        event(4, "tool_result", tool="clock", ok=True, data={"now": 1}, meta={"duration_ms": 1.6}),
        event(5, "tool_result", tool="clock", ok=False, data=None, error="no\nclock" + "k" * 200, meta={}),
        delta(6, "One."),
        DONE,
    )
    assert shown(*items) == (
        'Let me see.\n-> clock {"zone": "UTC"}\n<- clock (2 ms) {"now": 1}\n'
        f"<- clock (0 ms) failed: no clock{'k' * 92}...\nOne.\n"
    )


def test_what_was_taken_back_does_not_count() -> None:
    out = io.StringIO()
    screen = Screen(out, colour=False)
    for item in (delta(1, "One "), delta(2, "two "), delta(3, "x")):
        screen.show(item)
    screen.show(event(9, "rewind", to_event_id=1, reason="restart"))
    assert screen.text == "One "
    screen.show(delta(10, "three"))
    screen.show(event(11, "llm_output", content="One three"))
    screen.show(DONE)
    assert out.getvalue() == ("One two x\n[taken back: the last 5 characters do not count: restart]\nthree\n")
    assert screen.status == "succeeded"


@pytest.mark.parametrize(
    ("streamed", "whole", "seen"),
    [
        ("", "Hello", "Hello\n"),
        ("Hel", "Hello", "Hello\n"),
        ("Xyz", "Hello", "Xyz\n[the answer in full:]\nHello\n"),
        ("Hello", "", "Hello\n"),
    ],
)
def test_what_the_stream_missed_is_filled_in(streamed: str, whole: str, seen: str) -> None:
    items = [delta(1, streamed)] if streamed else []
    assert shown(*items, event(2, "llm_output", content=whole), event(3, "final", answer=whole), DONE) == seen


def test_an_answer_that_only_the_end_tells() -> None:
    assert shown(event(3, "final", answer="Hello"), DONE) == "Hello\n"


def test_trouble_is_told() -> None:
    items = (
        Accepted("s", "t", queued=True, position=3),
        delta(1, "a"),
        Cut("connection closed (1012)", 0.1),
        event(2, "gap", **{"from": 3, "oldest": 9, "latest": 20}),
        event(3, "llm_stream_retry", attempt=2, max_attempts=3),
        event(4, "error", code="LLM_UNAVAILABLE", message="no model"),
        event(5, "turn_terminal", status="failed"),
    )
    assert shown(*items).splitlines() == [
        "waiting, position 3",
        "a",
        "connection closed (1012); connecting again",
        "[a part of the stream is missing: 3 to 8]",
        "the model failed, try 2 of 3",
        "error: no model (LLM_UNAVAILABLE)",
        "[failed]",
    ]


def test_the_terminal_is_not_steered_from_outside() -> None:
    hostile = "a\x1b[2J\x07b\rc\x9bd\tok\n"
    assert shown(delta(1, hostile), DONE) == "a[2Jbcd\tok\n"
    assert "\x1b" not in shown(event(1, "tool_call", tool="\x1b[31m", args="\x1b"))


def test_notes_are_dim_and_thoughts_are_for_terminals() -> None:
    thought = event(1, "llm_output_delta", delta="", reasoning_delta="hm")
    note = event(2, "tool_call", tool="clock", args={})
    assert shown(thought, note, colour=True) == "\x1b[2mhm\x1b[0m\n\x1b[2m-> clock {}\x1b[0m\n"
    assert shown(thought, colour=False) == ""
