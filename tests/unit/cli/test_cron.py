"""`wunder cron`: list, show, add, pause, resume, run, delete."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import add_parsers, run_action
from gateway.cli.cron import duration
from tests.unit.cli.fake_server import FakeServer, fake_server

ADMIN = {"WUNDER_API_KEY": "key"}
USER = {"WUNDER_TOKEN": "t"}
SCHEDULE: dict[str, Any] = {
    "schedule_id": "sch_1",
    "user_id": "ada",
    "name": "news",
    "at": None,
    "every": None,
    "cron": "0 9 * * mon-fri",
    "zone": "Europe/Berlin",
    "missed": "latest",
    "grace_s": 60.0,
    "session_id": None,
    "task": {"question": "what is new?"},
    "paused": False,
    "pause_reason": None,
    "next_run_at": "2026-11-25T08:00:00.000Z",
    "upcoming": ["2026-11-25T08:00:00.000Z", "2026-11-26T08:00:00.000Z"],
    "last_run_at": None,
    "runs": 0,
}
LINE = "sch_1  next 2026-11-25T08:00:00.000Z  cron '0 9 * * mon-fri' Europe/Berlin  ada  news\n"
RUN = {
    "due_at": "a", "outcome": "fired", "manual": True, "task_id": "turn_1", "task_status": "succeeded", "missed": 0,
    "until": None, "error": None,
}  # fmt: skip


async def cron(server: FakeServer, home: Path, environ: dict[str, str], *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_parsers(parser.add_subparsers())
    options = parser.parse_args(["cron", *arguments, "--url", server.url])
    return await asyncio.to_thread(run_action, options, environ, home)


def answer(server: FakeServer, path: str, data: Any, status: int = 200) -> None:
    server.answers[path] = (status, {"ok": True, "data": data})


@pytest.mark.parametrize(("environ", "user_id"), [(ADMIN, "*"), (USER, None)])
async def test_a_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], environ: dict[str, str], user_id: str | None
) -> None:
    async with fake_server() as server:
        answer(server, "/wunder/cron", {"items": [SCHEDULE], "next": None})
        assert await cron(server, tmp_path, environ, "list") == 0
        assert server.queries[0].get("user_id") == user_id
    assert capsys.readouterr().out == LINE


async def test_no_schedules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        answer(server, "/wunder/cron", {"items": [], "next": None})
        assert await cron(server, tmp_path, USER, "list") == 0
    assert capsys.readouterr().out == "no schedules\n"


async def test_one_with_its_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skipped = {**RUN, "outcome": "skipped", "manual": False, "task_id": None, "missed": 3, "until": "z"}
    refused = {**RUN, "outcome": "refused", "manual": False, "error": {"code": "X", "message": "full"}}
    async with fake_server() as server:
        answer(server, "/wunder/cron/sch_1", SCHEDULE)
        history = {"items": [RUN, skipped, refused], "next": None}
        server.answers["/wunder/cron/sch_1/history"] = (200, {"data": history})
        assert await cron(server, tmp_path, USER, "show", "sch_1") == 0
        out = capsys.readouterr().out
        assert await cron(server, tmp_path, USER, "show", "sch_1", "--json") == 0
        assert json.loads(capsys.readouterr().out)["history"] == history["items"]
    assert out.splitlines() == [
        "sch_1  cron '0 9 * * mon-fri' Europe/Berlin",
        "  name      news",
        "  user      ada",
        "  asks      what is new?",
        "  session   one for each run",
        "  missed    latest, grace 60 s",
        "  upcoming  2026-11-25T08:00:00.000Z, 2026-11-26T08:00:00.000Z",
        "  runs      0",
        "  a  fired    turn_1  succeeded  by hand",
        "  a  skipped  3 due until z",
        "  a  refused  X: full",
    ]


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (
            ("what is new?", "--cron", "0 9 * * mon-fri", "--zone", "Europe/Berlin", "--name", "news"),
            {"question": "what is new?", "cron": "0 9 * * mon-fri", "zone": "Europe/Berlin", "name": "news"},
        ),
        (
            ("q", "--every", "15m", "--missed", "all", "--grace", "90", "--session", "s", "--user", "bob"),
            {"question": "q", "every": 900.0, "missed": "all", "grace_s": 90.0, "session_id": "s", "user_id": "bob"},
        ),
        (
            ("q", "--at", "2027-01-02T03:04:05Z", "--agent", "a", "--model", "m", "--paused"),
            {"question": "q", "at": "2027-01-02T03:04:05Z", "agent_id": "a", "model_name": "m", "paused": True},
        ),
    ],
)
async def test_adding_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], body: dict[str, Any]
) -> None:
    async with fake_server() as server:
        answer(server, "/wunder/cron", SCHEDULE, 201)
        assert await cron(server, tmp_path, ADMIN, "add", *arguments) == 0
        assert server.requests == [("/wunder/cron", {"paused": False, **body})]
        assert server.methods == ["POST"]
    assert capsys.readouterr().out == LINE


@pytest.mark.parametrize(
    "arguments", [("q",), ("q", "--every", "5", "--cron", "* * * * *"), ("q", "--every", "soon"), ("--every", "5")]
)
async def test_what_is_not_understood(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    async with fake_server() as server:
        with pytest.raises(SystemExit):
            await cron(server, tmp_path, USER, "add", *arguments)
        assert server.requests == []


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("1d", 86_400)])
def test_a_duration(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize(("action", "paused"), [("pause", True), ("resume", False)])
async def test_pause_and_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str, paused: bool) -> None:
    async with fake_server() as server:
        answer(server, "/wunder/cron/sch_1", {**SCHEDULE, "paused": paused})
        assert await cron(server, tmp_path, USER, action, "sch_1") == 0
        assert (server.methods, server.requests) == (["PATCH"], [("/wunder/cron/sch_1", {"paused": paused})])
    assert capsys.readouterr().out.split()[1] == ("paused" if paused else "next")


async def test_run_and_delete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        answer(server, "/wunder/cron/sch_1/run", {"task_id": "turn_1", "status": "queued", "session_id": "s"}, 202)
        assert await cron(server, tmp_path, USER, "run", "sch_1") == 0
        answer(server, "/wunder/cron/sch_1", {"deleted": True, "schedule_id": "sch_1"})
        assert await cron(server, tmp_path, USER, "delete", "sch_1") == 0
        assert server.methods == ["POST", "DELETE"]
    assert capsys.readouterr().out == "turn_1  queued  s\nsch_1  deleted\n"


async def test_a_refusal_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        error = {"code": "INVALID_REQUEST", "message": "zone: no", "hint": "did you mean 'UTC'?"}
        server.answers["/wunder/cron"] = (400, {"ok": False, "error": error})
        assert await cron(server, tmp_path, USER, "add", "q", "--every", "5") == 1
    assert capsys.readouterr().err == "wunder cron: zone: no (did you mean 'UTC'?)\n"
