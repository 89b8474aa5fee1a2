"""Whatever is thrown at the WebSocket: frames of ours or a documented close, never a fault, and it works afterwards."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.protocol import PAYLOADS, CloseCode
from tests.integration.bad_input.world import KEY, World, running_world

CLOSES = {value for name, value in vars(CloseCode).items() if name.isupper()} | {1002, 1007}
FRAMES = {"ready", "ack", "event", "error", "pong"}

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
anything = st.recursive(
    scalars, lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=8), x, max_size=4)
)
ids = st.sampled_from(["a", "b", "SESSION", "ses_none", "u1"]) | st.text(max_size=5)
cursors = st.integers(-2, 200) | st.integers() | st.sampled_from(["0", "7", "-1", "", "99999999999999999", "9" * 30])
NEAR: dict[str, st.SearchStrategy[Any]] = {
    "session_id": ids,
    "request_id": ids,
    "turn_id": ids,
    "user_id": st.just("u1") | ids,
    "agent_id": st.none() | ids,
    "content": st.sampled_from(["echo hi", "count to 5", "fail", "calculate 1+1", "\0", ""]) | st.text(max_size=30),
    "question": st.text(max_size=10),
    "after_event_id": cursors,
    "stream": st.booleans(),
    "busy": st.sampled_from(["enqueue", "reject", "interrupt", "never"]),
    "allow_queue": st.booleans(),
    "idempotency_key": st.sampled_from(["k1", "k2"]) | st.text(max_size=5),
    "model_name": st.sampled_from(["scripted", "other"]),
    "tool_names": st.lists(st.sampled_from(["calculator", "nothing"]), max_size=3),
    "attachments": st.lists(st.fixed_dictionaries({"content": st.text(max_size=5)}), max_size=2),
    "config_overrides": st.fixed_dictionaries({}, optional={"temperature": st.floats(), "max_output": st.integers()}),
    "protocol_version": st.integers(0, 3) | st.integers(),
    "client": anything,
}
payloads = st.fixed_dictionaries(
    {}, optional={name: value | anything for name, value in NEAR.items()}
) | st.fixed_dictionaries({}, optional=NEAR)
near_valid = st.fixed_dictionaries(
    {"type": st.sampled_from([*PAYLOADS]) | st.text(max_size=8)},
    optional={"request_id": ids, "session_id": ids, "payload": payloads | anything, "more": anything},
)
texts = (near_valid | anything).map(json.dumps) | near_valid.map(json.dumps) | st.text(max_size=50)
frames = st.lists(texts | st.binary(max_size=20), min_size=1, max_size=6)


class Thrower:
    """A client that reconnects when it was closed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._pings = 0
        self._socket: aiohttp.ClientWebSocketResponse | None = None

    async def throw(self, what: list[str | bytes]) -> None:
        """Send it all, then wait for a pong or a documented close; everything before that is ours and no fault."""
        if self._socket is None or self._socket.closed:
            self._socket = await self._world.http.ws_connect(f"{self._world.url}/wunder/ws", headers=KEY)
        socket = self._socket
        for item in what:
            if isinstance(item, bytes):
                await socket.send_bytes(item)
            else:
                await socket.send_str(item.replace("SESSION", self._world.session_id))
        self._pings += 1
        await socket.send_json({"type": "ping", "request_id": f"ping-{self._pings}"})
        while True:
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.CLOSE:
                assert message.data in CLOSES, message
                return
            assert message.type is aiohttp.WSMsgType.TEXT, message
            answer = json.loads(message.data)
            check(answer)
            if answer.get("request_id") == f"ping-{self._pings}" and answer["type"] == "pong":
                return


def check(answer: dict[str, Any]) -> None:
    """One of our frames, and not a fault of ours."""
    assert answer["type"] in FRAMES, answer
    code = answer["payload"].get("code")
    if answer["type"] == "event" and answer["payload"]["event"] == "error":
        code = answer["payload"]["data"]["data"]["code"]
    assert code != "INTERNAL_ERROR", answer


async def begin(stack: AsyncExitStack, folder: Path) -> World:
    return await stack.enter_async_context(running_world(folder))


async def a_turn_works(world: World) -> None:
    question = {"question": "echo still here", "user_id": "u1", "stream": False}
    answer = await world.call("POST", "/wunder", question)
    assert (answer.status, answer.body["answer"]) == (200, "still here")


def test_the_websocket_takes_anything(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        world = runner.run(begin(stack, tmp_path))
        thrower = Thrower(world)
        try:

            @settings(max_examples=250, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(frames)
            def throw(what: list[str | bytes]) -> None:
                runner.run(thrower.throw(what))

            throw()
            runner.run(a_turn_works(world))
        finally:
            runner.run(stack.aclose())


def test_post_takes_anything(tmp_path: Path) -> None:
    bodies = (
        payloads.map(lambda p: json.dumps({"question": "echo hi", "user_id": "u1", **p, "stream": False}).encode())
        | anything.map(lambda value: json.dumps(value).encode())
        | st.binary(max_size=50)
    )
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        world = runner.run(begin(stack, tmp_path))
        try:

            @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
            @given(bodies)
            def post(body: bytes) -> None:
                answer = runner.run(world.call("POST", "/wunder", body))
                assert answer.status in (200, 202, 400, 403, 404, 429, 502, 504), (body, answer)
                assert answer.error.get("code") != "INTERNAL_ERROR"

            post()
            runner.run(a_turn_works(world))
        finally:
            runner.run(stack.aclose())
