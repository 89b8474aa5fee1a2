"""`wunder drain`: which node is meant, and when it is empty."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import add_parsers, run_action
from tests.unit.cli.fake_server import FakeServer, fake_server

ADMIN = {"WUNDER_API_KEY": "key"}
NODES = [
    {"node_id": "aa11", "address": "10.0.0.1"},
    {"node_id": "aa22", "address": "10.0.0.2"},
    {"node_id": "bb33", "address": "10.0.0.3"},
]
GATEWAY = {"name": "gateway-x", "node_id": "bb33"}
ACTOR = {"name": "session-actor-x", "node_id": "bb33"}
OUTBOX = {"name": "outbox-x", "node_id": "bb33"}
OTHER = {"name": "session-actor-y", "node_id": "aa11"}


def summary(
    *actors: dict[str, Any], gateways: tuple[dict[str, Any], ...] = (), outboxes: tuple[dict[str, Any], ...] = ()
) -> dict[str, Any]:
    there = {"nodes": NODES, "actors": list(actors), "gateways": list(gateways), "outboxes": list(outboxes)}
    return {"ok": True, "data": {"directory": there}}


async def drain(server: FakeServer, home: Path, *arguments: str, environ: dict[str, str] = ADMIN) -> int:
    parser = argparse.ArgumentParser()
    add_parsers(parser.add_subparsers())
    options = parser.parse_args(["drain", "--url", server.url, *arguments])
    assert options.run is run_action

    async def no_pause(seconds: float) -> None: ...

    return await asyncio.to_thread(run_action, options, environ, home, no_pause)


def answers(server: FakeServer, *summaries: dict[str, Any]) -> None:
    """One after the other; the last one stays."""
    left = list(summaries)
    server.answers["/wunder/admin/summary"] = (200, lambda _: left.pop(0) if len(left) > 1 else left[0])
    server.answers["/wunder/admin/nodes/bb33/drain"] = (202, {"ok": True, "data": {}})


@pytest.mark.parametrize("name", ["bb33", "b", "10.0.0.3"])
async def test_it_waits_until_the_node_is_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    async with fake_server() as server:
        full = summary(ACTOR, OTHER, gateways=(GATEWAY,), outboxes=(OUTBOX,))
        answers(server, full, full, summary(ACTOR, OTHER), summary(OTHER, outboxes=(OUTBOX,)), summary(OTHER))
        assert await drain(server, tmp_path, name) == 0
        assert ("/wunder/admin/nodes/bb33/drain", {"undo": False}) in server.requests
    shown = capsys.readouterr().out.splitlines()
    assert shown == [
        "node bb33: 3 processes left (gateway-x, session-actor-x, outbox-x)",
        "node bb33: 1 processes left (session-actor-x)",
        "node bb33 is empty",
    ]


async def test_one_that_does_not_get_empty_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        answers(server, summary(ACTOR))
        assert await drain(server, tmp_path, "bb33", "--timeout", "3") == 1
    assert "not empty after 3 s" in capsys.readouterr().err


async def test_a_gateway_that_goes_away_meanwhile_is_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with fake_server() as server:
        answers(server, summary(ACTOR))
        asked = 0

        def look(request: Any) -> Any:
            nonlocal asked
            asked += 1
            if asked == 2:
                server.answers["/wunder/admin/summary"] = (503, look)
            if asked == 5:
                server.answers["/wunder/admin/summary"] = (200, summary())
            return summary(ACTOR)

        server.answers["/wunder/admin/summary"] = (200, look)
        assert await drain(server, tmp_path, "bb33") == 0
    assert "is empty" in capsys.readouterr().out


async def test_it_can_be_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        answers(server, summary())
        assert await drain(server, tmp_path, "bb33", "--undo") == 0
        assert server.requests[-1] == ("/wunder/admin/nodes/bb33/drain", {"undo": True})


@pytest.mark.parametrize(("name", "said"), [("aa", "2 nodes"), ("cc", "there is no node"), ("10.0.0", "no node")])
async def test_a_node_that_is_not_clear_is_not_drained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    async with fake_server() as server:
        answers(server, summary())
        assert await drain(server, tmp_path, name) == 1
        assert "POST" not in server.methods
    assert said in capsys.readouterr().err


async def test_nobody_in_particular_drains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        assert await drain(server, tmp_path, "bb33", environ={}) == 1
        assert not server.methods
    assert "WUNDER_API_KEY" in capsys.readouterr().err
