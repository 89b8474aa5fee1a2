"""Cursors nobody can have: a `gap` first for those that are too great, 400 for those that are none."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.integration.bad_input.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

BEYOND = 10**17
GARBAGE = ["-1", "x", "", "1.5", "1e3", "+1", " 1", "1%0a", "٣", "9" * 19, "0x10", "null"]


async def newest(world: World) -> int:
    row = await world.row("SELECT max(seq) FROM events WHERE session_id = $1", world.session_id)
    return int(row[0])


def gap_after(cursor: int, latest: int) -> dict[str, int]:
    return {"from": cursor, "oldest": latest + 1, "latest": latest}


@pytest.mark.parametrize("where", ["query", "header"])
@pytest.mark.parametrize("beyond", [BEYOND, "just"])
async def test_sse_begins_with_a_gap(world: World, where: str, beyond: int | str) -> None:
    latest = await newest(world)
    cursor = latest + 1 if beyond == "just" else BEYOND
    path = f"{world.url}/wunder/chat/sessions/{world.session_id}/resume"
    headers = dict(world.alice.headers)
    if where == "header":
        headers["Last-Event-ID"] = str(cursor)
    else:
        path += f"?after_event_id={cursor}"
    async with world.http.get(path, headers=headers) as response:
        assert response.status == 200
        events = events_of(await response.text())
    assert [(e["event"], e["id"], e["data"]["data"]) for e in events] == [("gap", latest, gap_after(cursor, latest))]


async def test_the_header_of_a_reconnecting_reader_is_newer_than_its_url(world: World) -> None:
    latest = await newest(world)
    path = f"{world.url}/wunder/chat/sessions/{world.session_id}/resume?after_event_id=0"
    async with world.http.get(path, headers={**world.alice.headers, "Last-Event-ID": str(latest - 1)}) as response:
        assert [e["id"] for e in events_of(await response.text())] == [latest]


@pytest.mark.parametrize("kind", ["resume", "watch"])
async def test_a_websocket_begins_with_a_gap(world: World, kind: str) -> None:
    latest = await newest(world)
    async with world.socket(world.alice.headers) as socket:
        payload = {"session_id": world.session_id, "after_event_id": BEYOND}
        await socket.send_json({"type": kind, "request_id": "r", "payload": payload})
        ack, gap = await socket.receive_json(), await socket.receive_json()
    assert ack["payload"] == {
        "session_id": world.session_id,
        "turn_id": None,
        "after_event_id": BEYOND,
        "last_event_id": latest,
    }
    assert (gap["payload"]["event"], gap["payload"]["id"]) == ("gap", latest)
    assert gap["payload"]["data"]["data"] == gap_after(BEYOND, latest)


@pytest.mark.parametrize("beyond", [BEYOND, "just"])
async def test_a_page_begins_with_a_gap(world: World, beyond: int | str) -> None:
    latest = await newest(world)
    cursor = latest + 1 if beyond == "just" else BEYOND
    answer = await world.call(
        "GET", f"/wunder/chat/sessions/{world.session_id}/events?after={cursor}", headers=world.alice.headers
    )
    data = answer.body["data"]
    assert (answer.status, data["last_event_id"]) == (200, latest)
    assert [(e["event"], e["id"], e["data"]["data"]) for e in data["events"]] == [
        ("gap", latest, gap_after(cursor, latest))
    ]


async def test_a_page_after_the_newest_event_is_empty_and_keeps_the_cursor(world: World) -> None:
    latest = await newest(world)
    path = f"/wunder/chat/sessions/{world.session_id}/events?after={latest}"
    answer = await world.call("GET", path, headers=world.alice.headers)
    assert answer.body["data"] == {"events": [], "running": False, "last_event_id": latest}


async def test_a_resume_with_nothing_to_come_says_so(world: World) -> None:
    latest = await newest(world)
    async with world.socket(world.alice.headers) as socket:
        resume = {"type": "resume", "payload": {"session_id": world.session_id, "after_event_id": latest}}
        for _ in range(2):  # the first has ended, so its request_id is free
            await socket.send_json({**resume, "request_id": "r"})
            ack = await socket.receive_json()
            assert (ack["type"], ack["payload"]["turn_id"], ack["payload"]["last_event_id"]) == ("ack", None, latest)


@pytest.mark.parametrize("text", GARBAGE)
async def test_garbage_is_named(world: World, text: str) -> None:
    before = await world.stored()
    for path, field in (
        (f"/wunder/chat/sessions/{world.session_id}/resume?after_event_id={text}", "after_event_id"),
        (f"/wunder/chat/sessions/{world.session_id}/events?after={text}", "after"),
    ):
        answer = await world.call("GET", path, headers=world.alice.headers)
        assert (answer.status, answer.error["code"], answer.error["field"]) == (400, "INVALID_REQUEST", field)
    assert await world.stored() == before


@pytest.mark.parametrize("text", ["-1", "x", "9" * 5000])
async def test_a_garbage_header_is_named(world: World, text: str) -> None:
    path = f"/wunder/chat/sessions/{world.session_id}/resume"
    answer = await world.call("GET", path, headers={**world.alice.headers, "Last-Event-ID": text})
    assert (answer.status, answer.error["field"]) == (400, "Last-Event-ID")


def events_of(text: str) -> list[dict[str, Any]]:
    """The messages of an SSE body that have an id."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "id" in fields:
            found.append({"event": fields["event"], "id": int(fields["id"]), "data": json.loads(fields["data"])})
    return found
