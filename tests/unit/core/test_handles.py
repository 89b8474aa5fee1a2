"""Calling another process: its errors are raised here, and silence is an error too."""

from __future__ import annotations

import asyncio

import pytest

from actors.errors import ServiceUnavailable, UserBusy, WunderError
from actors.handles import ask, tell
from actors.messages import Grant, Report, encode
from actors.replies import Description, Done, Failed, Location, Reply, to_failed
from storage.records import SessionId

COMMAND = Grant(session_id=SessionId("s"))


def answering(reply: Reply) -> object:
    async def call(_: bytes) -> bytes:
        return encode(reply)

    return call


async def test_the_wanted_reply_is_given() -> None:
    assert (await ask(answering(Location(actor="a")), COMMAND, Location)).actor == "a"  # type: ignore[arg-type]
    await tell(answering(Done()), COMMAND)  # type: ignore[arg-type]


async def test_errors_are_raised_with_all_they_carry() -> None:
    error = UserBusy("busy", hint="wait", field="session_id", retry_after_s=1.5, detail={"reason": "session_busy"})
    with pytest.raises(UserBusy) as caught:
        await tell(answering(to_failed(error)), COMMAND)  # type: ignore[arg-type]
    found = caught.value
    assert (found.message, found.hint, found.field, found.retry_after_s, found.detail) == (
        "busy", "wait", "session_id", 1.5, {"reason": "session_busy"},
    )  # fmt: skip


async def test_an_error_of_a_newer_version_is_still_an_error() -> None:
    with pytest.raises(WunderError, match="from the future"):
        await tell(answering(Failed(error="NotKnownHere", message="from the future")), COMMAND)  # type: ignore[arg-type]


async def test_another_reply_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError, match="expected Description, got Location"):
        await ask(answering(Location(actor="a")), COMMAND, Description)  # type: ignore[arg-type]


async def test_silence_is_an_error_that_can_be_tried_again() -> None:
    ended = []

    async def silent(_: bytes) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(1)
        return b""

    with pytest.raises(ServiceUnavailable, match="no answer to Report") as caught:
        await tell(silent, Report(), timeout_s=0.001)
    assert caught.value.retryable
    assert ended == [1]
