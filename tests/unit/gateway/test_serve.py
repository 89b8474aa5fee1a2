"""`wunder serve` before and around its actors: the first password, and the port."""

from __future__ import annotations

import asyncio
import os
import re
import socket
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from actors.cluster import fleet, local, seat, supervisor
from actors.errors import Conflict, ServiceUnavailable
from gateway import serve as module
from gateway.bootstrap import FirstAdmin
from gateway.pid_file import PidFile
from gateway.serve import banner, serve
from gateway.settings import Settings
from gateway.voice import Terminal
from tests.support.facts import eventually
from tests.support.local_cluster import local_settings


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done with Ray, instead of doing it."""
    calls: list[str] = []

    async def run(settings: Settings, admin: FirstAdmin | None, dashboard: str, *_: Any, **__: Any) -> int:
        calls.append("run")
        return 0

    class OurSeat:
        async def take(self) -> bool:
            return True

        async def leave(self) -> None: ...

    monkeypatch.setattr(module, "_run", run)
    monkeypatch.setattr(module, "prepare_environment", lambda data_dir: None)
    monkeypatch.setattr(local, "start_local", lambda **_: calls.append("start_local") or "")
    monkeypatch.setattr(local, "attach", lambda address: calls.append(f"attach {address}") or "")
    monkeypatch.setattr(seat, "Seat", OurSeat)
    monkeypatch.setattr(local, "stop_local", lambda: calls.append("stop_local"))
    return calls


def settings_for(tmp_path: Path, **server: Any) -> Settings:
    return local_settings(tmp_path, server={"port": 0, **server})


def test_the_first_password_is_shown_before_anything_else_can_fail(
    tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(**_: Any) -> str:
        raise ServiceUnavailable("Ray did not start")

    monkeypatch.setattr(local, "start_local", fails)
    with pytest.raises(ServiceUnavailable):
        serve(settings_for(tmp_path))
    assert re.search(r"sign in    admin / \S{20,}$", capsys.readouterr().out, re.MULTILINE)
    monkeypatch.setattr(local, "start_local", lambda **_: "")
    assert serve(settings_for(tmp_path)) == 0
    assert "sign in" not in capsys.readouterr().out, "it is shown once"
    assert calls == ["run", "stop_local"]


def test_the_banner_says_where_the_password_is(tmp_path: Path) -> None:
    text = banner(settings_for(tmp_path), ["http://127.0.0.1:1"], FirstAdmin("admin", "secret"), "")
    assert "sign in    admin with the password shown above" in text
    assert "secret" not in text


def test_a_taken_port_is_found_before_ray_is_started(tmp_path: Path, calls: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ServiceUnavailable, match=r"server\.port"):
        serve(settings_for(tmp_path, port=taken.getsockname()[1]))
    assert calls == []


@pytest.mark.parametrize("ours", [True, False])
def test_on_a_cluster_the_port_may_be_taken_by_a_gateway_of_ours(
    tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch, ours: bool
) -> None:
    monkeypatch.setattr(fleet, "gateway_is_here", lambda: ours)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = settings_for(tmp_path, port=taken.getsockname()[1], ray_address="auto")
        if ours:
            assert serve(settings) == 0
        else:
            with pytest.raises(ServiceUnavailable, match=r"server\.port"):
                serve(settings)
    assert calls == ["attach auto", *(["run"] if ours else []), "stop_local"]


def test_a_data_folder_is_served_from_once(tmp_path: Path, calls: list[str]) -> None:
    holder = PidFile(tmp_path)
    assert holder.take()
    with pytest.raises(Conflict, match="already serves from") as refused:
        serve(settings_for(tmp_path))
    assert str(os.getpid()) in refused.value.message
    holder.leave()
    assert serve(settings_for(tmp_path)) == 0
    assert calls == ["start_local", "run", "stop_local"]


class FakeSupervisor:
    """Starts at once; remembers how it ended."""

    ended: ClassVar[list[str]] = []

    def __init__(self, *_: Any, **__: Any) -> None: ...

    async def start(self) -> list[str]:
        return ["http://127.0.0.1:1"]

    async def stop(self) -> None:
        self.ended.append("stop")

    async def leave(self) -> None:
        self.ended.append("leave")


class FakeSeat:
    """Lost when the test says so."""

    def __init__(self, taken: bool = True) -> None:
        self.taken = taken
        self.is_lost = asyncio.Event()
        self.is_free = asyncio.Event()

    async def take(self) -> bool:
        return self.taken

    async def wait(self) -> None:
        await self.is_free.wait()

    async def lost(self) -> None:
        await self.is_lost.wait()

    async def leave(self) -> None:
        self.taken = False


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(supervisor, "Supervisor", FakeSupervisor)
    FakeSupervisor.ended = []
    return FakeSupervisor.ended


@pytest.mark.parametrize(("leaves", "expected"), [(False, ["stop"]), (True, ["leave"])])
async def test_on_a_cluster_the_actors_may_be_left(
    tmp_path: Path, ended: list[str], leaves: bool, expected: list[str]
) -> None:
    stopping = asyncio.Event()
    stopping.set()
    settings = settings_for(tmp_path, ray_address="auto", leave_actors=leaves)
    assert await module._run(settings, None, "", Terminal(), seat=cast(Any, FakeSeat()), stopping=stopping) == 0
    assert ended == expected


async def test_a_supervisor_that_loses_its_seat_touches_nothing_more(tmp_path: Path, ended: list[str]) -> None:
    held = FakeSeat()
    held.is_lost.set()
    with pytest.raises(ServiceUnavailable, match="seat"):
        await module._run(settings_for(tmp_path), None, "", Terminal(), seat=cast(Any, held), stopping=asyncio.Event())
    assert ended == ["leave"]


async def test_one_that_stands_by_ends_without_having_started(
    tmp_path: Path, ended: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(seat, "Seat", lambda: FakeSeat(taken=False))
    stopping = asyncio.Event()
    monkeypatch.setattr(module, "_stop_signals", lambda: stopping)
    running = asyncio.create_task(module._run_on_cluster(settings_for(tmp_path), "", Terminal(), PidFile(tmp_path)))
    await eventually(lambda: "standing by" in capsys.readouterr().out, "it says that it stands by")
    stopping.set()
    assert await running == 0
    assert ended == []
