"""What the end of a turn says to the chat that it came from."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from actors.channels.adapters import ADAPTERS
from actors.channels.origin import ChannelOrigin
from actors.channels.outgoing import Outgoing
from actors.channels.replies import EMPTY, LIMITS, NOTHING, STOPPED, command_reply, replies
from actors.events import encode_json
from actors.messages import Submit
from actors.task_request import request_of, task_of
from storage.channel_records import ChatState
from storage.outbox_records import NewOutboxItem
from storage.records import SessionId, TaskRecord, TurnId, UserId
from storage.turn_writer import Completion

ORIGIN = ChannelOrigin(channel="slack", account="team", peer="C1", thread="17.1")


def task(origin: ChannelOrigin | None = ORIGIN) -> TaskRecord:
    command = Submit(
        session_id=SessionId("s"), user_id=UserId("u"), turn_id=TurnId("turn_1"), content="hi", channel=origin
    )
    return task_of(command, "queued", 0, 5)


def end(status: Any, answer: str | None, error: bytes | None) -> Completion:
    return Completion(
        turn_id=TurnId("turn_1"),
        attempt=2,
        status=status,
        answer=answer,
        error=error,
        usage=None,
        stop_reason=None,
        now_us=7,
    )


def texts(items: tuple[NewOutboxItem, ...]) -> list[str]:
    return [msgspec.json.decode(item.body, type=Outgoing).text for item in items]


def test_the_origin_is_kept_with_the_task() -> None:
    assert request_of(task()).channel == ORIGIN


def test_an_answer_goes_back_to_its_thread() -> None:
    (item,) = replies(task(), end("succeeded", "Hello", None))
    assert item == NewOutboxItem(
        delivery_id="turn_1-2-1",
        channel="slack",
        account="team",
        peer="C1",
        body=msgspec.json.encode(Outgoing(text="Hello", thread="17.1")),
        turn_id=TurnId("turn_1"),
        created_us=7,
    )


def test_a_long_answer_is_numbered() -> None:
    items = replies(task(), end("succeeded", "word " * 2000, None))
    assert [item.delivery_id for item in items] == ["turn_1-2-1", "turn_1-2-2", "turn_1-2-3"]
    parts = [msgspec.json.decode(item.body, type=Outgoing) for item in items]
    assert [(part.part, part.parts) for part in parts] == [(1, 3), (2, 3), (3, 3)]


def test_what_slack_writes_longer_is_counted_so() -> None:
    for text in texts(replies(task(), end("succeeded", "<&>" * 2000, None))):
        assert len(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")) <= 4000


@pytest.mark.parametrize("status", ["failed", "dead"])
@pytest.mark.parametrize(
    ("code", "word"), [("LLM_UNAVAILABLE", "cannot be reached"), ("INTERNAL_ERROR", "our side"), (None, "our side")]
)
def test_a_failure_is_told_without_its_inside(status: Any, code: str | None, word: str) -> None:
    error = encode_json({"code": code, "message": "secret inside"}) if code else None
    (text,) = texts(replies(task(), end(status, None, error)))
    assert word in text
    assert "secret" not in text


def test_an_empty_answer_says_so() -> None:
    assert texts(replies(task(), end("succeeded", " \n", None))) == [EMPTY]


@pytest.mark.parametrize("status", ["cancelled", "interrupted"])
def test_what_was_stopped_says_nothing(status: Any) -> None:
    assert replies(task(), end(status, None, None)) == ()


def test_other_turns_say_nothing() -> None:
    assert replies(task(None), end("succeeded", "Hello", None)) == ()


def test_a_webhook_account_answers_by_its_own_way() -> None:
    (item,) = replies(task(ChannelOrigin(channel="webhook", account="a", peer="p")), end("succeeded", "x", None))
    assert item.channel == "callback"


def test_commands_are_answered() -> None:
    for state, text in ((ChatState(), NOTHING), (ChatState(active=TurnId("t")), STOPPED)):
        assert texts(command_reply(ORIGIN, TurnId("c"), "stop", state, 7)) == [text]
    for command in ("new", "help"):
        assert texts(command_reply(ORIGIN, TurnId("c"), command, ChatState(), 7))  # type: ignore[arg-type]


def test_every_way_in_has_a_limit() -> None:
    assert set(ADAPTERS) <= set(LIMITS)
