"""A running Wunder says what the document says: every frame and event of real turns is compared with the goldens."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from gateway.protocol import EventKind
from tests.protocol import document
from tests.support.local_cluster import LocalCluster, local_cluster, local_settings

KEY = {"X-API-Key": "test-api-key"}
QUESTIONS = ["echo hello", "calculate 6*7", "think about it", "fail refused", "parallel calculate 1+1 and 2+2"]


@pytest.fixture
async def cluster(tmp_path: Any) -> AsyncIterator[LocalCluster]:
    settings = local_settings(tmp_path, gateway={"sse_heartbeat_s": 0.05}, agent_queue={"retry_base_ms": 1.0})
    async with local_cluster(settings) as running:
        yield running


@pytest.fixture
async def http(cluster: LocalCluster) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers=KEY, base_url=cluster.url) as session:
        yield session


class Talk:
    """A WebSocket whose frames are checked as they come."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.kinds: set[str] = set()

    async def next(self, type_: str, request_id: str | None = None) -> dict[str, Any]:
        """The next frame of this type and request; events on the way are checked."""
        while True:
            frame: dict[str, Any] = await self.socket.receive_json(timeout=15)
            if frame["type"] == "event":
                self.kinds.add(check_event(frame["payload"]))
            if frame["type"] == type_ and (request_id is None or frame.get("request_id") == request_id):
                return frame

    async def send(self, type_: str, request_id: str, /, **payload: Any) -> None:
        await self.socket.send_json({"type": type_, "request_id": request_id, "payload": payload})

    async def until(self, kind: str, request_id: str) -> dict[str, Any]:
        while True:
            frame = await self.next("event", request_id)
            if frame["payload"]["event"] == kind:
                return frame


def check_event(payload: dict[str, Any]) -> str:
    """The kind of an event that has exactly the fields of the document."""
    kind = str(payload["event"])
    required, optional = document.events()[kind]
    data = payload["data"]
    assert {"session_id", "turn_id", "timestamp", "data"} <= set(data) <= {*data, "first_id"}
    assert required <= set(data["data"]) <= required | optional, payload
    assert ("first_id" not in data) or data["first_id"] < payload["id"]
    return kind


def same_shape(found: Any, golden: Any) -> bool:
    """The same keys, and values of the same kind."""
    if isinstance(golden, dict):
        return (
            isinstance(found, dict)
            and found.keys() == golden.keys()
            and all(same_shape(found[k], golden[k]) for k in golden)
        )
    return type(found) is type(golden)


async def test_the_frames_of_a_conversation(http: aiohttp.ClientSession) -> None:
    acks, server = document.golden("server")["ack"], document.golden("server")
    async with http.ws_connect("/wunder/ws") as socket:
        talk = Talk(socket)
        assert same_shape(await talk.next("ready"), server["ready"][0])
        await talk.send("ping", "p")
        assert same_shape(await talk.next("pong"), server["pong"][0])
        await talk.send("connect", "h", protocol_version=1)
        assert same_shape(await talk.next("ack"), acks["connect"])
        await socket.send_str("{}")
        assert same_shape(await talk.next("error"), server["error"][1])
        await talk.send("start", "a", content="echo hello", user_id="u")
        ack = await talk.next("ack", "a")
        assert same_shape(ack, acks["start"])
        session_id = ack["payload"]["session_id"]
        end = await talk.until("turn_terminal", "a")
        await talk.send("resume", "b", session_id=session_id, after_event_id=0)
        resumed = await talk.next("ack", "b")
        assert same_shape(resumed, acks["resume_idle"])
        assert resumed["payload"]["last_event_id"] == end["payload"]["id"]
        await talk.until("turn_terminal", "b")
        await talk.send("watch", "c", session_id=session_id)
        assert same_shape(await talk.next("ack", "c"), acks["watch"])
        heartbeat = await talk.until("heartbeat", "c")
        golden = document.golden("events")["heartbeat"][0]["websocket"]
        assert same_shape(heartbeat, golden)
        assert heartbeat["payload"]["id"] == end["payload"]["id"]
        await talk.send("cancel", "d", request_id="c")
        assert same_shape(await talk.next("ack", "d"), acks["cancel_watch"])
        await talk.send("cancel", "e", session_id=session_id)
        assert same_shape(await talk.next("ack", "e"), acks["cancel_nothing"])


async def test_a_cancelled_and_an_interrupted_turn(http: aiohttp.ClientSession) -> None:
    acks = document.golden("server")["ack"]
    async with http.ws_connect("/wunder/ws") as socket:
        talk = Talk(socket)
        await talk.send("start", "a", content="sleep 60", user_id="u")
        ack = await talk.next("ack", "a")
        session_id = ack["payload"]["session_id"]
        await talk.until("tool_call", "a")
        await talk.send("resume", "r", session_id=session_id)
        assert same_shape(await talk.next("ack", "r"), acks["resume"])
        await talk.send("start", "b", content="sleep 60", user_id="u", session_id=session_id)
        assert (await talk.next("ack", "b"))["payload"]["queued"] is True
        await talk.send("start", "c", content="sleep 60", user_id="u", session_id=session_id, busy="interrupt")
        assert (await talk.until("turn_terminal", "a"))["payload"]["data"]["data"]["status"] == "interrupted"
        await talk.until("tool_call", "c")
        await talk.send("cancel", "c")
        assert same_shape(await talk.next("ack", "c"), acks["cancel_turn"])
        assert (await talk.until("turn_terminal", "c"))["payload"]["data"]["data"]["status"] == "cancelled"
        await talk.until("queue_start", "b")
        await talk.send("start", "n", content="hi", user_id="u", session_id=session_id, busy="reject")
        assert (await talk.next("error", "n"))["payload"]["code"] == "USER_BUSY"
        await talk.send("cancel", "b")
        await talk.until("turn_terminal", "b")
        assert {"queued", "queue_start", "turn_terminal", "tool_call"} <= talk.kinds


async def test_every_event_of_real_turns_is_documented(cluster: LocalCluster, http: aiohttp.ClientSession) -> None:
    kinds: set[str] = set()
    async with http.ws_connect("/wunder/ws") as socket:
        talk = Talk(socket)
        for number, question in enumerate(QUESTIONS):
            await talk.send("start", str(number), content=question, user_id="u")
            ack = await talk.next("ack", str(number))
            await talk.until("turn_terminal", str(number))
            path = f"/wunder/chat/sessions/{ack['payload']['session_id']}"
            async with http.get(f"{path}/events") as response:
                page = (await response.json())["data"]
            assert [check_event(event) for event in page["events"]][-1] == "turn_terminal"
            async with http.get(f"{path}/resume") as response:
                streamed = [
                    json.loads(line[6:]) for line in (await response.text()).splitlines() if line[:5] == "data:"
                ]
            assert streamed[-1]["data"] == page["events"][-1]["data"]["data"]
        kinds = talk.kinds
    assert kinds <= set(EventKind.__args__)  # type: ignore[attr-defined]
    unseen = set(document.events()) - kinds
    assert unseen == {
        *("queued", "queue_start", "task_retry", "turn_waiting", "progress", "llm_stream_retry", "tool_output_delta"),
        *("rewind", "gap", "heartbeat"),
    }


async def test_a_turn_that_waits_for_agents(cluster: LocalCluster, http: aiohttp.ClientSession) -> None:
    await cluster.start_pool()
    body = {"question": "delegate sleep 0.1", "user_id": "u", "tool_names": ["spawn_agent", "wait_agents", "sleep"]}
    async with http.post("/wunder/tasks", json=body) as response:
        accepted = (await response.json())["data"]
    async with http.get(f"/wunder/chat/sessions/{accepted['session_id']}/resume") as response:
        stream = [part.split("\n") for part in (await response.text()).split("\n\n") if part.startswith("id: ")]
    events = [{"id": int(number[4:]), "event": kind[7:], "data": json.loads(data[6:])} for number, kind, data in stream]
    kinds = [check_event(event) for event in events]
    waits = kinds.index("turn_waiting")
    assert kinds[waits + 1 : waits + 3] == ["queue_start", "tool_call"]
    async with http.get(f"/wunder/tasks/{accepted['task_id']}") as response:
        (child,) = (await response.json())["data"]["children"]
    assert child.keys() == shown("`children` is")
    assert events[waits]["data"]["data"]["agents"] == [child["task_id"]]


async def test_a_crash_is_followed_by_a_rewind(cluster: LocalCluster, http: aiohttp.ClientSession) -> None:
    async with http.ws_connect("/wunder/ws") as socket:
        talk = Talk(socket)
        await talk.send("start", "a", content="sleep 0.3", user_id="u")
        await talk.until("tool_call", "a")
        busy = next(name for name, host in cluster.hosts.items() if host._runners)
        await cluster.crash(busy)
        rewind = await talk.until("rewind", "a")
        assert rewind["payload"]["data"]["data"]["to_event_id"] < rewind["payload"]["id"]
        await talk.until("turn_terminal", "a")


async def test_a_task_that_is_tried_again_and_dies(cluster: LocalCluster, http: aiohttp.ClientSession) -> None:
    await cluster.start_pool()
    body = {"question": "fail unavailable after 3", "user_id": "u", "max_attempts": 2}
    async with http.post("/wunder/tasks", json=body) as response:
        accepted = (await response.json())["data"]
        told = {"task_id", "session_id", "status", "position", "estimated_wait_s"}
        assert (response.status, accepted.keys()) == (202, told)
    path = f"/wunder/chat/sessions/{accepted['session_id']}/resume"
    async with http.get(path) as response:
        stream = [part.split("\n") for part in (await response.text()).split("\n\n") if part.startswith("id: ")]
    events = [{"id": int(number[4:]), "event": kind[7:], "data": json.loads(data[6:])} for number, kind, data in stream]
    kinds = [check_event(event) for event in events]
    assert kinds[:2] == ["queued", "queue_start"]
    retried = kinds.index("task_retry")
    assert kinds[retried : retried + 3] == ["task_retry", "rewind", "queue_start"]
    assert events[0]["data"]["data"]["reason"] == "background"
    assert events[retried + 1]["data"]["data"]["reason"] == "task_retry"
    assert events[-1]["data"]["data"] == {"status": "dead", "stop_reason": "dead"}
    async with http.get(f"/wunder/tasks/{accepted['task_id']}") as response:
        task = (await response.json())["data"]
    attempts = task.pop("attempts")
    assert (task.pop("position"), task.pop("estimated_wait_s")) == (None, None), "it is not queued"
    assert task.pop("children") == []
    assert task.keys() == shown("A task is")
    assert [attempt.keys() for attempt in attempts] == [shown("`attempts` is")] * 2


async def test_a_schedule_and_its_history(cluster: LocalCluster, http: aiohttp.ClientSession) -> None:
    body = {"question": "echo hi", "user_id": "u", "cron": "0 9 * * mon-fri", "zone": "Europe/Berlin"}
    async with http.post("/wunder/cron", json=body) as response:
        schedule = (await response.json())["data"]
        assert (response.status, schedule.keys()) == (201, shown("A schedule is"))
    path = f"/wunder/cron/{schedule['schedule_id']}"
    async with http.post(f"{path}/run") as response:
        accepted = (await response.json())["data"]
        assert (response.status, accepted.keys()) == (202, {"task_id", "session_id", "status", "position"})
    async with http.get(f"{path}/history") as response:
        page = (await response.json())["data"]
    assert page.keys() == {"items", "next"}
    assert [run.keys() for run in page["items"]] == [shown("A run is")]
    async with http.delete(path) as response:
        assert (await response.json())["data"] == {"deleted": True, "schedule_id": schedule["schedule_id"]}


def shown(words: str) -> set[str]:
    """The fields that the document lists, in braces, after these words."""
    found = re.search(rf"{words}\s+`{{([^}}]+)}}`", document.text())
    assert found is not None, words
    return set(re.split(r",\s*", found[1]))


async def test_the_head_and_the_comments_of_an_event_stream(http: aiohttp.ClientSession) -> None:
    golden = {name: value["text"].encode() for name, value in document.golden("sse").items()}
    async with http.post("/wunder/chat/sessions", json={"user_id": "u"}) as response:
        session_id = (await response.json())["data"]["session_id"]
    async with http.get(f"/wunder/chat/sessions/{session_id}/resume?watch=1") as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        assert (stream.headers["Cache-Control"], stream.headers["X-Accel-Buffering"]) == ("no-cache, no-store", "no")
        expected = golden["retry"] + golden["keep-alive"]
        assert await stream.content.readexactly(len(expected)) == expected
        async with asyncio.timeout(5):
            await http.delete(f"/wunder/chat/sessions/{session_id}")
            rest = await stream.content.read()
    assert b"event: error\ndata: " in rest
    last = json.loads(rest.rpartition(b"data: ")[2])
    assert set(last) >= set(json.loads(golden["error"].decode().rpartition("data: ")[2]))
    assert last["code"] == "SESSION_NOT_FOUND"
