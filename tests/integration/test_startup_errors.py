"""`wunder serve` with something wrong: one screen that says what, an exit code, no traceback, in bounded time."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

WUNDER = Path(sys.executable).parent / "wunder"
SCREEN_LINES = 24
BOUND_S = 60


def serve(folder: Path, *arguments: str, **environment: str) -> str:
    """What it says before it gives up."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("WUNDER_", "RAY_"))}
    done = subprocess.run(
        [WUNDER, "serve", *arguments],
        cwd=folder,
        env={**clean, "PYTHONWARNINGS": "error", **environment},
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode not in (0, -6, -9, -11), said
    assert "Traceback" not in said, said
    assert len(said.splitlines()) <= SCREEN_LINES, said
    assert not re.search(r"\b(Exception|Error\()", said), said
    return said


def settings_file(folder: Path, text: str) -> str:
    path = folder / "wunder.yaml"
    path.write_text(text)
    return str(path)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_the_port_is_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = serve(tmp_path, "--port", str(port), "--data-dir", str(tmp_path / "data"))
    assert f"127.0.0.1:{port}" in said
    assert "Address already in use" in said
    assert "--port" in said


def test_the_database_is_not_reachable(tmp_path: Path) -> None:
    url = f"postgresql://wunder:hidden-password@127.0.0.1:{free_port()}/wunder"
    said = serve(tmp_path, "--port", "0", "--data-dir", str(tmp_path / "data"), "--storage-url", url)
    assert "hidden-password" not in said
    assert re.search(r"database|storage|postgres", said, re.IGNORECASE), said


def test_the_database_accepts_and_says_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://wunder@127.0.0.1:{silent.getsockname()[1]}/wunder"
        limit = ["--storage.connect_timeout_s", "1"]
        said = serve(tmp_path, "--port", "0", "--data-dir", str(tmp_path / "data"), "--storage-url", url, *limit)
    assert re.search(r"database|storage|postgres", said, re.IGNORECASE), said


def test_the_data_folder_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "data"
    said = serve(tmp_path, "--port", "0", "--data-dir", str(folder))
    assert "server.data_dir" in said
    assert str(folder) in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("server: [", ["wunder.yaml"]),
        ("- a\n- b\n", ["wunder.yaml"]),
        ("server:\n  prot: 1\n", ["server.prot", "port"]),
        ("sever:\n  port: 1\n", ["sever", "server"]),
        ("server:\n  port: many\n", ["server.port", "many"]),
        ("server:\n  port: 70000\n", ["server.port", "70000"]),
        ("llm:\n  default: nobody\n", ["llm.default", "nobody", "scripted"]),
        ("storage:\n  url: mysql://x/y\n", ["storage.url", "mysql"]),
        ("storage:\n  url: 'sqlite://:memory:'\n", ["storage.url"]),
        ("server:\n  host: 0.0.0.0\n", ["server.behind_proxy"]),
        ("security:\n  api_key: ${NOT_SET_ANYWHERE}\n", ["NOT_SET_ANYWHERE"]),
        (
            "server:\n  port: many\nsessions:\n  lease_s: -1\ngatway: {}\n",
            ["server.port", "sessions.lease_s", "gatway"],
        ),
    ],
)
def test_a_settings_file_that_is_wrong(tmp_path: Path, text: str, says: list[str]) -> None:
    said = serve(tmp_path, "--config", settings_file(tmp_path, text))
    for part in says:
        assert part in said, said


def test_a_settings_file_that_is_not_there(tmp_path: Path) -> None:
    said = serve(tmp_path, "--config", str(tmp_path / "nowhere.yaml"))
    assert "nowhere.yaml" in said


def test_a_settings_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "wunder.yaml"
    path.write_bytes(b"\xff\xfe\x00server")
    assert "wunder.yaml" in serve(tmp_path, "--config", str(path))


def test_a_settings_file_that_is_a_folder(tmp_path: Path) -> None:
    assert str(tmp_path) in serve(tmp_path, "--config", str(tmp_path))


def test_an_option_that_is_wrong(tmp_path: Path) -> None:
    assert "server.port" in serve(tmp_path, "--port", "eighty")
    assert "server.prot" in serve(tmp_path, "--server.prot", "80")


def test_a_variable_that_is_wrong(tmp_path: Path) -> None:
    assert "server.port" in serve(tmp_path, WUNDER_SERVER__PORT="eighty")


def test_a_storage_url_that_is_wrong(tmp_path: Path) -> None:
    said = serve(tmp_path, "--storage-url", "postgres//user:hidden-password@host/db")
    assert "storage.url" in said
    assert "hidden-password" not in said


def test_a_database_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "wunder.db"
    path.write_bytes(b"this is not a database" * 100)
    path.chmod(0o600)
    said = serve(tmp_path, "--port", "0", "--data-dir", str(tmp_path / "d"), "--storage-url", f"sqlite:///{path}")
    assert re.search(r"database|storage|sqlite", said, re.IGNORECASE), said
