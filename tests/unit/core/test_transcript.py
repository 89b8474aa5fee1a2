"""The window that a model is shown, and what a crash left undone."""

from __future__ import annotations

from typing import Any

import pytest

from actors.models.base import Completed, ToolCall, Usage
from actors.tools.base import ToolResult
from actors.transcript import (
    NO_RESULT,
    assistant_message,
    estimate,
    for_model,
    partial_message,
    title_of,
    tool_message,
    unfinished,
    user_message,
    window,
)
from tests.conformance.store import make

CALL, OTHER = ToolCall("c1", "clock", '{"z": 1}'), ToolCall("c2", "clock", "")


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def said(text: str, *calls: ToolCall) -> dict[str, Any]:
    return assistant_message(Completed(text, tool_calls=calls, usage=Usage(3, 4)))


def result(call: ToolCall, text: str = "ok") -> dict[str, Any]:
    return tool_message(call, ToolResult(ok=True, data=text))


def shown(history: list[dict[str, Any]], max_context: int = 10_000, prompt: str = "") -> list[str]:
    return [f"{m['role']} {m['content']}".strip() for m in window(history, prompt, max_context)[0]]


def test_everything_is_shown_when_it_fits() -> None:
    history = [user("1"), said("", CALL), result(CALL), said("one"), user("2")]
    assert shown(history, prompt="be kind") == [
        "system be kind",
        "user 1",
        "assistant",
        "tool ok",
        "assistant one",
        "user 2",
    ]


@pytest.mark.parametrize("max_context", range(256, 2000, 37))
def test_a_window_fits_starts_with_a_question_and_never_splits_a_round(max_context: int) -> None:
    history = []
    for index in range(8):
        history += [
            user(f"{index}" * 200),
            said("", CALL, OTHER),
            result(CALL, "r" * 150),
            result(OTHER),
            said("a" * 99),
        ]
    history.append(user("last"))
    messages, tokens = window(history, "prompt", max_context)
    assert tokens <= max_context
    assert tokens == sum(map(estimate, messages))
    assert messages[1]["role"] == "user"
    assert messages[-1]["content"] == "last"
    assert _whole(messages)


def test_the_newest_question_and_its_rounds_are_shown_even_when_they_do_not_fit() -> None:
    history = [user("old"), said("old"), user("q" * 4000), said("", CALL), result(CALL, "r" * 4000)]
    assert [m["role"] for m in window(history, "", 256)[0]] == ["user", "assistant", "tool"]


def test_results_without_their_round_are_not_shown() -> None:
    assert shown([result(CALL), said("", OTHER), result(OTHER)]) == ["assistant", "tool ok"]


def test_calls_of_a_turn_that_was_cut_off_are_answered_for_the_model() -> None:
    history = [user("1"), said("", CALL, OTHER), result(OTHER), user("2")]
    assert shown(history) == ["user 1", "assistant", "tool ok", f"tool {NO_RESULT}", "user 2"]
    assert _whole(window(history, "", 10_000)[0])
    assert len(history) == 4


def test_ids_that_a_server_uses_again_in_a_later_round_are_no_trouble() -> None:
    history = [user("1"), said("", CALL), result(CALL, "x"), said("", CALL), result(CALL, "y"), said("", CALL)]
    assert shown(history) == ["user 1", "assistant", "tool x", "assistant", "tool y", "assistant", f"tool {NO_RESULT}"]


def test_what_is_for_readers_only_is_not_sent_to_the_model() -> None:
    assert for_model(partial_message("text", "thought")) == {"role": "assistant", "content": "text"}
    assert for_model(user("q")) == user("q")
    assert "usage" not in window([user("q"), said("a")], "", 1000)[0][1]


def test_attachments_become_parts() -> None:
    picture = {"content_type": "image/png", "content": "data:image/png;base64,AA=="}
    text = {"name": "notes.txt", "content": "hello"}
    parts = user_message("look", (picture, text))["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text"]
    assert parts[2]["text"] == "[notes.txt]\nhello"
    assert user_message("look", ()) == user("look")


def test_a_failed_tool_is_told_as_an_error() -> None:
    assert tool_message(CALL, ToolResult(ok=False, error="broke"))["content"] == '{"error":"broke"}'
    assert tool_message(CALL, ToolResult(ok=True, data={"a": 1}))["content"] == '{"a":1}'


@pytest.mark.parametrize(
    ("bodies", "next_round", "open_calls", "usage"),
    [
        ([(0, user("q"))], 1, (), Usage()),
        ([(0, user("q")), (1, said("", CALL, OTHER))], 2, (CALL, OTHER), Usage(3, 4)),
        ([(0, user("q")), (1, said("", CALL, OTHER)), (1, result(CALL))], 2, (OTHER,), Usage(3, 4)),
        ([(0, user("q")), (1, said("", CALL)), (1, result(CALL))], 2, (), Usage(3, 4)),
        ([(0, user("q")), (1, said("", CALL)), (1, result(CALL)), (2, said("", CALL))], 3, (CALL,), Usage(6, 8)),
    ],
)
def test_what_is_left_of_a_turn_is_read_off_its_messages(
    bodies: list[tuple[int, dict[str, Any]]], next_round: int, open_calls: tuple[ToolCall, ...], usage: Usage
) -> None:
    other = (make.message(0, turn="before"), said("", ToolCall("x", "of another turn", "")))
    records = [other[0], *(make.message(i + 1, round=r) for i, (r, _) in enumerate(bodies))]
    left = unfinished(records, [other[1], *(body for _, body in bodies)], "t1")
    assert (left.next_round, left.open_calls, left.usage) == (next_round, open_calls, usage)


def test_a_title_is_the_first_line_cut() -> None:
    assert title_of("  hello\nworld ") == "hello"
    assert len(title_of("x" * 500)) == 80


def _whole(messages: list[dict[str, Any]]) -> bool:
    asked: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            asked.remove(message["tool_call_id"])
            continue
        assert not asked
        asked = [call["id"] for call in message.get("tool_calls", ())]
    return not asked
