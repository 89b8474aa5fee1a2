"""`wunder status`: up or not, ready or not, and what runs where."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import add_parsers, run_status
from tests.unit.cli.fake_server import FakeServer, fake_server

ADMIN = {"WUNDER_API_KEY": "key"}
SUMMARY: dict[str, Any] = {
    "gateway": {"name": "gateway-n1", "node_id": "n1", "connections": 3, "topics": 2},
    "directory": {
        "permits_held": 2,
        "permits_waiting": 1,
        "dashboard": "127.0.0.1:8265",
        "nodes": [
            {"node_id": "n1", "cpus": 2.0, "address": "10.0.0.1", "places": None, "drained": False},
            {"node_id": "n2", "cpus": 4.0, "address": "10.0.0.2", "places": 8, "drained": True},
        ],
        "gateways": [{"name": "gateway-n1", "node_id": "n1", "address": "127.0.0.1:18000"}],
        "actors": [
            {"name": "session-actor-a", "node_id": "n1", "sessions": 5, "suspect": False},
            {"name": "session-actor-b", "node_id": "n2", "sessions": 0, "suspect": True},
            {"name": "session-actor-c", "node_id": "n2", "sessions": 1, "suspect": False},
            {"name": "pool-a", "node_id": "n1", "sessions": 0, "suspect": False, "pool": True},
            {"name": "pool-b", "node_id": "n2", "sessions": 0, "suspect": False, "pool": True},
        ],
    },
    "janitor": {
        **{"schedules_active": 3.0, "schedules_fired": 12.0, "schedules_missed": 2.0, "schedules_refused": 1.0},
        "schedules_lag_seconds": 0.21,
    },
    "tasks": {
        "queued": {"tasks": 4, "oldest_age_s": 61.234},
        "running": {"tasks": 0, "oldest_age_s": 0.0},
    },
    "outbox": {"webhook": {"pending": {"deliveries": 2, "oldest_age_s": 3.0}, "dead": {"deliveries": 0}}},
    "outboxes": {
        "outbox-a": {
            **{"outbox_in_flight": 1.0, "outbox_sent": 7.0, "outbox_refused": 3.0, "outbox_dead": 1.0},
            "breakers": [{"channel": "webhook", "account": "https://a.example", "for_s": 2.0}],
        }
    },
    "actors": {
        "session-actor-a": {"turns_running": 2.0, "turns_queued": 4.0},
        "session-actor-b": {"turns_running": 0.0, "turns_queued": 0.0},
    },
    "pools": {
        "pool-a": {
            **{"pool_slots": 32.0, "pool_slots_in_use": 3.0, "pool_claimed": 120.0},
            **{"turns_retried": 2.0, "turns_dead": 1.0},
        },
    },
}


async def status(server: FakeServer, home: Path, environ: dict[str, str], *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    add_parsers(parser.add_subparsers())
    options = parser.parse_args(["status", "--url", server.url, *arguments])
    assert options.run is run_status
    return await asyncio.to_thread(run_status, options, environ, home)


def ready(server: FakeServer) -> None:
    server.answers["/healthz"] = (200, {"ok": True})
    server.answers["/readyz"] = (200, {"ok": True, "status": "ready"})


async def test_everything_for_administrators(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        ready(server)
        server.answers["/wunder/admin/summary"] = (200, {"ok": True, "data": SUMMARY})
        assert await status(server, tmp_path, ADMIN) == 0
        assert server.requests[-1][1]["X-API-Key"] == "key"
    assert capsys.readouterr().out.splitlines() == [
        f"{server.url}  ready",
        "gateway gateway-n1: 3 connections, 2 sessions followed",
        "Ray dashboard http://127.0.0.1:8265, as its machine reaches it",
        "permits: 2 held, 1 waiting",
        "tasks: 4 queued (oldest 61.2 s), 0 running",
        "schedules: 3 active, 12 fired, 2 missed, 1 refused, the last 0.2 s late",
        "deliveries, webhook: 2 pending (oldest 3.0 s), 0 dead",
        "outbox   outbox-a  1 under way  7 sent, 3 refused, 0 lost, 1 dead  left alone: webhook https://a.example",
        "node n1  10.0.0.1  2 CPUs",
        "  gateway  gateway-n1  127.0.0.1:18000",
        "  actor    session-actor-a  5 sessions  2 running, 4 queued",
        "  pool     pool-a  3 of 32 slots in use  120 claimed, 2 retried, 1 dead",
        "node n2  10.0.0.2  4 CPUs  8 places  drained",
        "  actor    session-actor-b  0 sessions  0 running, 0 queued  suspect",
        "  actor    session-actor-c  1 sessions  does not answer",
        "  pool     pool-b  does not answer",
    ]


async def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        ready(server)
        server.answers["/wunder/admin/summary"] = (200, {"ok": True, "data": SUMMARY})
        assert await status(server, tmp_path, {"WUNDER_TOKEN": "t"}, "--json") == 0
        assert server.requests[-1][1]["Authorization"] == "Bearer t"
    found = json.loads(capsys.readouterr().out)
    assert found == {"url": server.url, "alive": True, "ready": True, "reason": None, "summary": SUMMARY}


@pytest.mark.parametrize("environ", [{}, {"WUNDER_TOKEN": "t"}], ids=str)
async def test_others_see_whether_it_is_ready(
    environ: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with fake_server() as server:
        ready(server)
        error = {"code": "PERMISSION_DENIED", "message": "for administrators"}
        server.answers["/wunder/admin/summary"] = (403, {"ok": False, "error": error})
        assert await status(server, tmp_path, environ) == 0
    line = f"{server.url}  ready  (details need an administrator's token or WUNDER_API_KEY)\n"
    assert capsys.readouterr().out == line


async def test_not_ready(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        ready(server)
        error = {"code": "SERVICE_UNAVAILABLE", "message": "draining"}
        server.answers["/readyz"] = (503, {"ok": False, "error": error})
        server.answers["/wunder/admin/summary"] = (200, {"data": {"gateway": {}, "directory": None}})
        assert await status(server, tmp_path, ADMIN) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == f"{server.url}  not ready  (draining)"
    assert shown[-1] == "the directory does not answer"


async def test_something_else_listens_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        assert await status(server, tmp_path, {}) == 1
    assert capsys.readouterr().err == "wunder status: the server answered 404; is it Wunder?\n"


async def test_unreachable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        pass
    assert await status(server, tmp_path, {}) == 1
    assert capsys.readouterr().err.startswith(f"wunder status: cannot reach {server.url}: ")
    assert await status(server, tmp_path, {}, "--json") == 1
    assert json.loads(capsys.readouterr().out)["alive"] is False
