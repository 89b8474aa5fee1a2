"""`wunder serve` before and around its actors: the first password, and the port."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest

from actors.cluster import fleet, local
from actors.errors import ServiceUnavailable
from gateway import serve as module
from gateway.bootstrap import FirstAdmin
from gateway.serve import banner, serve
from gateway.settings import Settings
from tests.support.local_cluster import local_settings


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done with Ray, instead of doing it."""
    calls: list[str] = []

    async def run(settings: Settings, admin: FirstAdmin | None, dashboard: str) -> int:
        calls.append("run")
        return 0

    monkeypatch.setattr(module, "_run", run)
    monkeypatch.setattr(module, "prepare_environment", lambda data_dir: None)
    monkeypatch.setattr(local, "start_local", lambda **_: calls.append("start_local") or "")
    monkeypatch.setattr(local, "attach", lambda address: calls.append(f"attach {address}"))
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
