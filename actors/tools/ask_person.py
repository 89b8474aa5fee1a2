"""Asking a person, and waiting for the answer without holding anything."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from actors.clock import Clock
from actors.tools.base import ToolContext, ToolResult, WaitFor
from storage.children import person
from storage.records import TurnId
from storage.store import AsyncStorageBackend

MAX_PATIENCE_S = 30 * 86_400.0


class AskArguments(msgspec.Struct, frozen=True):
    """What to ask, and how long to wait."""

    question: Annotated[str, Meta(description="What the person is asked.", min_length=1, max_length=20_000)]
    choices: Annotated[
        tuple[Annotated[str, Meta(max_length=200)], ...],
        Meta(description="Answers to choose from; the person may say something else.", max_length=20),
    ] = ()
    timeout_s: Annotated[
        float, Meta(description="Seconds to wait at most, a day by default.", ge=0, le=MAX_PATIENCE_S)
    ] = 86_400.0


class AskPerson:
    """Suspends the turn until somebody has answered."""

    name = "ask_person"
    description = "Asks the person whom this conversation belongs to, and waits for the answer."
    parallel_safe = False
    repeat_safe = True
    arguments: type[msgspec.Struct] = AskArguments

    def __init__(self, store: AsyncStorageBackend, clock: Clock, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._store = store
        self._clock = clock

    async def run(self, arguments: AskArguments, context: ToolContext) -> ToolResult:
        reply = await self._store.find_reply(TurnId(context.turn_id), context.call_id)
        if reply is not None:
            return ToolResult(ok=True, data={"answer": msgspec.json.decode(reply)})
        asked_us = self._clock.now_us() if context.asked_us is None else context.asked_us
        until_us = asked_us + round(arguments.timeout_s * 1e6)
        if self._clock.now_us() >= until_us:
            return ToolResult(ok=False, error="Nobody has answered in time.")
        shown: dict[str, Any] = {"question": arguments.question, "call_id": context.call_id}
        if arguments.choices:
            shown["choices"] = list(arguments.choices)
        raise WaitFor(person(context.call_id), until_us, shown)
