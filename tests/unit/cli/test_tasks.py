"""`wunder tasks`: list, show, cancel, retry, and drain."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.cli import add_parsers, run_action
from tests.unit.cli.fake_server import FakeServer, fake_server

ADMIN = {"WUNDER_API_KEY": "key"}
USER = {"WUNDER_TOKEN": "t"}
TASK: dict[str, Any] = {
    "task_id": "turn_1",
    "session_id": "ses_1",
    "user_id": "ada",
    "origin": "task",
    "status": "dead",
    "priority": 0,
    "attempt": 3,
    "max_attempts": 2,
    "crashes": 1,
    "answer": None,
    "error": {"code": "LLM_UNAVAILABLE", "message": "away"},
    "usage": None,
    "stop_reason": "dead",
    "run_at": None,
    "created_at": "2026-11-24T04:40:41.866Z",
    "started_at": "2026-11-24T04:40:42.000Z",
    "finished_at": "2026-11-24T04:40:43.000Z",
}
ATTEMPTS = [
    {"attempt": 1, "outcome": "failed", "error": TASK["error"], "started_at": None, "finished_at": "then"},
    {"attempt": 3, "outcome": "dead", "error": TASK["error"], "started_at": None, "finished_at": "now"},
]


class Pauses:
    """How long was waited; after each pause the server is in its next state."""

    def __init__(self, server: FakeServer, *summaries: dict[str, Any]) -> None:
        self.seconds: list[float] = []
        self._server = server
        self._rest = list(summaries)

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        if self._rest:
            self._server.answers["/wunder/admin/summary"] = (200, {"data": {"tasks": self._rest.pop(0)}})


async def tasks(server: FakeServer, home: Path, environ: dict[str, str], *arguments: str, pause: Any = None) -> int:
    parser = argparse.ArgumentParser()
    add_parsers(parser.add_subparsers())
    options = parser.parse_args(["tasks", *arguments, "--url", server.url])
    assert options.run is run_action
    return await asyncio.to_thread(run_action, options, environ, home, pause or Pauses(server))


def answer(server: FakeServer, path: str, data: Any, status: int = 200) -> None:
    server.answers[path] = (status, {"ok": True, "data": data})


def refuse(server: FakeServer, path: str, status: int, code: str, message: str) -> None:
    server.answers[path] = (status, {"ok": False, "error": {"code": code, "message": message}})


def depth(queued: int, running: int) -> dict[str, Any]:
    return {"queued": {"tasks": queued, "oldest_age_s": 1.0}, "running": {"tasks": running, "oldest_age_s": 1.0}}


async def test_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        answer(server, "/wunder/tasks", {"items": [TASK], "next": None})
        assert await tasks(server, tmp_path, ADMIN, "list", "--status", "dead", "--session", "ses_1") == 0
        assert server.queries == [{"status": "dead", "session_id": "ses_1", "user_id": "*", "limit": "50"}]
    assert capsys.readouterr().out == (
        "turn_1  dead         ada  ses_1  2026-11-24T04:40:41.866Z  attempt 3  LLM_UNAVAILABLE\n"
    )


@pytest.mark.parametrize(
    ("environ", "arguments", "user_id"),
    [(ADMIN, ("--user", "ada"), "ada"), (ADMIN, (), "*"), (USER, (), None)],
    ids=["of-one", "of-all", "own"],
)
async def test_whose(tmp_path: Path, environ: dict[str, str], arguments: tuple[str, ...], user_id: str | None) -> None:
    async with fake_server() as server:
        answer(server, "/wunder/tasks", {"items": [], "next": None})
        assert await tasks(server, tmp_path, environ, "list", *arguments) == 0
        assert server.queries[0].get("user_id") == user_id


async def test_a_long_list_is_asked_for_in_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def pages(request: web.Request) -> dict[str, Any]:
        start = int(request.query.get("cursor", "0"))
        items = [{**TASK, "task_id": f"turn_{n}"} for n in range(start, start + int(request.query["limit"]))]
        return {"data": {"items": items, "next": str(start + len(items))}}

    async with fake_server() as server:
        server.answers["/wunder/tasks"] = (200, pages)
        assert await tasks(server, tmp_path, ADMIN, "list", "--limit", "450", "--json") == 0
        assert [query["limit"] for query in server.queries] == ["200", "200", "50"]
    assert [task["task_id"] for task in json.loads(capsys.readouterr().out)] == [f"turn_{n}" for n in range(450)]


async def test_one_with_its_attempts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        answer(server, "/wunder/tasks/turn_1", {**TASK, "attempts": ATTEMPTS})
        assert await tasks(server, tmp_path, USER, "show", "turn_1") == 0
    assert capsys.readouterr().out.splitlines() == [
        "turn_1  dead  (LLM_UNAVAILABLE: away)",
        "  user      ada",
        "  session   ses_1",
        "  priority  0",
        "  attempts  3 started, 1 crashed, 2 may fail",
        "  created   2026-11-24T04:40:41.866Z",
        "  started   2026-11-24T04:40:42.000Z",
        "  finished  2026-11-24T04:40:43.000Z",
        "  attempt 1: failed  then  (LLM_UNAVAILABLE: away)",
        "  attempt 3: dead  now  (LLM_UNAVAILABLE: away)",
    ]


async def test_its_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        done = {**TASK, "status": "succeeded", "error": None, "answer": "42", "attempts": []}
        answer(server, "/wunder/tasks/turn_1", done)
        assert await tasks(server, tmp_path, USER, "show", "turn_1") == 0
    assert capsys.readouterr().out.endswith("\n\n42\n")


@pytest.mark.parametrize(
    ("receipt", "code", "said"),
    [
        ((True, "cancelled"), 0, "turn_1  cancelled\n"),
        ((False, "succeeded"), 1, "turn_1  had ended before: succeeded\n"),
    ],
)
async def test_cancelling(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], receipt: tuple[bool, str], code: int, said: str
) -> None:
    async with fake_server() as server:
        data = {"cancelled": receipt[0], "task_id": "turn_1", "status": receipt[1]}
        answer(server, "/wunder/tasks/turn_1", data)
        assert await tasks(server, tmp_path, USER, "cancel", "turn_1") == code
        assert server.methods == ["DELETE"]
    assert capsys.readouterr().out == said


async def test_trying_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        answer(server, "/wunder/tasks/turn_1/retry", {**TASK, "status": "queued"}, 202)
        assert await tasks(server, tmp_path, USER, "retry", "turn_1") == 0
        refuse(server, "/wunder/tasks/turn_1/retry", 400, "INVALID_REQUEST", "this one is running")
        assert await tasks(server, tmp_path, USER, "retry", "turn_1") == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("turn_1  queued\n", "wunder tasks: this one is running\n")


async def test_answering(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        asks = {"task_id": "turn_1", "status": "waiting", "waiting": {"question": "Which?", "call_id": "c1"}}
        answer(server, "/wunder/tasks/turn_1", asks)
        answer(server, "/wunder/tasks/turn_1/answer", {"task_id": "turn_1", "status": "queued"})
        assert await tasks(server, tmp_path, USER, "answer", "turn_1", "that one") == 0
        assert server.requests[-1] == ("/wunder/tasks/turn_1/answer", {"call_id": "c1", "answer": "that one"})
        answer(server, "/wunder/tasks/turn_1", {**asks, "waiting": {"agents": ["turn_2"]}})
        assert await tasks(server, tmp_path, USER, "answer", "turn_1", "that one") == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("turn_1  queued\n", "wunder tasks: this task waits for no answer\n")


async def test_draining(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        answer(server, "/wunder/admin/summary", {"tasks": depth(3, 2)})
        pause = Pauses(server, {}, depth(0, 1), depth(0, 0))
        assert await tasks(server, tmp_path, ADMIN, "drain", pause=pause) == 0
        assert pause.seconds == [1.0, 1.0, 1.0]
    assert capsys.readouterr().out.splitlines() == [
        "3 queued, 2 running",
        "cannot be known now",
        "0 queued, 1 running",
        "0 queued, 0 running",
    ]


async def test_draining_gives_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        answer(server, "/wunder/admin/summary", {"tasks": depth(1, 0)})
        assert await tasks(server, tmp_path, ADMIN, "drain", "--timeout", "0") == 1
    assert capsys.readouterr().err == "wunder tasks: not drained in time\n"


async def test_a_user_drains_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        answer(server, "/wunder/tasks", {"items": [], "next": None})
        assert await tasks(server, tmp_path, USER, "drain") == 0
        assert [query["status"] for query in server.queries] == ["queued", "waiting", "running"]
    assert capsys.readouterr().out == "0 queued, 0 waiting, 0 running\n"


async def test_a_service_that_is_away_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    async with fake_server() as server:
        refuse(server, "/wunder/admin/summary", 503, "SERVICE_UNAVAILABLE", "restarting")
        assert await tasks(server, tmp_path, ADMIN, "drain", pause=Pauses(server, depth(0, 0))) == 0


async def test_what_goes_wrong_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        assert await tasks(server, tmp_path, {"HOME": "x"}, "list") == 1
        refuse(server, "/wunder/tasks/a%2Fb", 404, "NOT_FOUND", "there is no such task")
        assert await tasks(server, tmp_path, USER, "show", "a/b") == 1
        refuse(server, "/wunder/admin/summary", 403, "PERMISSION_DENIED", "this is for admins")
        assert await tasks(server, tmp_path, ADMIN, "drain") == 1
    assert capsys.readouterr().err.splitlines() == [
        "wunder tasks: who are you? (set WUNDER_API_KEY or WUNDER_TOKEN, or sign in with `wunder chat`)",
        "wunder tasks: there is no such task",
        "wunder tasks: this is for admins",
    ]
