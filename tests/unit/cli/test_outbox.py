"""`wunder outbox`: list, show, retry and drop."""

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
DELIVERY: dict[str, Any] = {
    "delivery_id": "msg_1",
    "channel": "webhook",
    "account": "https://a.example",
    "peer": "ses_1",
    "task_id": "turn_1",
    "state": "dead",
    "attempt": 2,
    "failures": 2,
    "code": "http_404",
    "due_at": None,
    "created_at": "2026-11-24T04:40:41.866Z",
    "first_attempt_at": "2026-11-24T04:40:42.000Z",
    "finished_at": "2026-11-24T04:40:43.000Z",
}
ATTEMPTS = [
    {"attempt": 1, "outcome": "lost", "status": None, "code": "lost", "detail": "no answer", "finished_at": "then"},
    {"attempt": 2, "outcome": "refused", "status": 404, "code": "http_404", "detail": None, "finished_at": "now"},
]


async def outbox(server: FakeServer, home: Path, *arguments: str, environ: dict[str, str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    add_parsers(parser.add_subparsers())
    options = parser.parse_args(["outbox", *arguments, "--url", server.url])
    assert options.run is run_action
    return await asyncio.to_thread(run_action, options, ADMIN if environ is None else environ, home)


def answer(server: FakeServer, path: str, data: Any, status: int = 200) -> None:
    server.answers[path] = (status, {"ok": True, "data": data})


async def test_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        answer(server, "/wunder/admin/outbox", {"items": [DELIVERY], "next": None})
        assert await outbox(server, tmp_path, "list", "--state", "dead", "--channel", "webhook") == 0
        assert server.queries == [{"state": "dead", "channel": "webhook", "limit": "50", "user_id": "*"}]
    assert capsys.readouterr().out == (
        "msg_1  dead     webhook  https://a.example  ses_1  2026-11-24T04:40:41.866Z  attempt 2  http_404\n"
    )


async def test_a_long_list_is_asked_for_in_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def pages(request: web.Request) -> dict[str, Any]:
        start = int(request.query.get("cursor", "0"))
        items = [{**DELIVERY, "delivery_id": f"d{n}"} for n in range(start, start + int(request.query["limit"]))]
        return {"data": {"items": items, "next": str(start + len(items))}}

    async with fake_server() as server:
        server.answers["/wunder/admin/outbox"] = (200, pages)
        assert await outbox(server, tmp_path, "list", "--limit", "250", "--json") == 0
    assert [found["delivery_id"] for found in json.loads(capsys.readouterr().out)] == [f"d{n}" for n in range(250)]


async def test_one_with_its_attempts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        answer(server, "/wunder/admin/outbox/msg_1", {**DELIVERY, "body": {"url": "u"}, "attempts": ATTEMPTS})
        assert await outbox(server, tmp_path, "show", "msg_1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "msg_1  dead"
    assert "  attempt 1: lost lost  then" in lines
    assert "    no answer" in lines
    assert "  attempt 2: refused 404 http_404  now" in lines


@pytest.mark.parametrize("change", ["retry", "drop"])
async def test_named_ones_are_changed(tmp_path: Path, change: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        answer(server, f"/wunder/admin/outbox/{change}", {"delivery_ids": ["a"], "more": False})
        assert await outbox(server, tmp_path, change, "a") == 0
        assert await outbox(server, tmp_path, change, "a", "b") == 1, "one was not"
    assert capsys.readouterr().out == "a\na\n"


async def test_all_that_fit_are_changed_page_after_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rest = [["a", "b"], ["c"], []]

    def pages(request: web.Request) -> dict[str, Any]:
        return {"data": {"delivery_ids": rest.pop(0), "more": bool(rest)}}

    async with fake_server() as server:
        server.answers["/wunder/admin/outbox/retry"] = (200, pages)
        assert await outbox(server, tmp_path, "retry", "--state", "dead", "--account", "https://a", "--json") == 0
    assert json.loads(capsys.readouterr().out) == ["a", "b", "c"]


@pytest.mark.parametrize("arguments", [("retry",), ("drop", "a", "--state", "dead")])
async def test_which_ones_has_to_be_clear(
    tmp_path: Path, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    async with fake_server() as server:
        assert await outbox(server, tmp_path, *arguments) == 1
    assert "name deliveries, or give --state" in capsys.readouterr().err


async def test_strangers_are_told_how(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        assert await outbox(server, tmp_path, "list", environ={}) == 1
    assert "WUNDER_API_KEY" in capsys.readouterr().err
