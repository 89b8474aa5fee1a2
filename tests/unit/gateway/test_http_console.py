from __future__ import annotations

import gzip
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from gateway import http_console
from gateway.http_console import ConsoleHandlers, add_console_routes, load_files
from storage.errors import WunderError
from tests.support.edge import Edge, edge_settings, running_edge
from tests.support.manual_clock import ManualClock
from tests.support.users import MemoryUsers

CONSOLE = Path(http_console.__file__).parent / "console"
FILES = load_files(CONSOLE)
SCRIPTS = sorted(CONSOLE.rglob("*.js"))


def name(path: Path) -> str:
    return path.relative_to(CONSOLE).as_posix()


@pytest.fixture
async def edge(users: MemoryUsers, clock: ManualClock) -> AsyncIterator[Edge]:
    def add_routes(app: web.Application) -> None:
        add_console_routes(app, ConsoleHandlers())

    async with running_edge(users, edge_settings(), clock, add_routes=add_routes) as running:
        yield running


@pytest.mark.parametrize("path", ["/", "/console"])
async def test_the_root_leads_to_the_console(edge: Edge, path: str) -> None:
    async with edge.client.get(path, allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (302, "/console/")


@pytest.mark.parametrize("path", sorted([*CONSOLE.rglob("*.*")]), ids=name)
async def test_every_file_is_served_with_its_type_and_its_guards(edge: Edge, path: Path) -> None:
    types = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
    async with edge.client.get(f"/console/{name(path)}") as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == f"{types[path.suffix]}; charset=utf-8"
        assert await response.read() == FILES[name(path)].body
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Cache-Control"] == "no-cache"
        policy = response.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'self'" in policy
        assert "unsafe" not in policy
        host = f"127.0.0.1:{edge.client.port}"
        assert f"connect-src 'self' ws://{host};" in policy


async def test_behind_tls_its_sockets_are_too(edge: Edge) -> None:
    headers = {"X-Forwarded-Proto": "https", "Host": "chat.example.org"}
    async with edge.client.get("/console/", headers=headers) as response:
        assert "connect-src 'self' wss://chat.example.org;" in response.headers["Content-Security-Policy"]


async def test_a_strange_host_is_not_written_into_the_policy(edge: Edge) -> None:
    async with edge.client.get("/console/", headers={"Host": "a; script-src *"}) as response:
        assert "connect-src 'self';" in response.headers["Content-Security-Policy"]
        assert "script-src *" not in response.headers["Content-Security-Policy"]


async def test_what_is_known_is_not_sent_again(edge: Edge) -> None:
    async with edge.client.get("/console/app.js") as response:
        tag = response.headers["ETag"]
    async with edge.client.get("/console/app.js", headers={"If-None-Match": tag}) as response:
        assert (response.status, await response.read()) == (304, b"")
        assert response.headers["ETag"] == tag
    async with edge.client.get("/console/app.js", headers={"If-None-Match": '"other"'}) as response:
        assert response.status == 200


async def test_head_says_what_get_would(edge: Edge) -> None:
    async with edge.client.get("/console/") as got, edge.client.head("/console/") as head:
        assert head.status == 200
        assert await head.read() == b""
        for header in ("ETag", "Content-Type", "Content-Length"):
            assert head.headers[header] == got.headers[header]


async def test_it_is_packed_for_those_who_unpack(edge: Edge) -> None:
    request = edge.client.session.get(
        edge.client.make_url("/console/app.js"), headers={"Accept-Encoding": "identity"}, auto_decompress=False
    )
    async with request as plain:
        assert "Content-Encoding" not in plain.headers
        body = await plain.read()
    request = edge.client.session.get(edge.client.make_url("/console/app.js"), headers={"Accept-Encoding": "gzip"})
    async with request as packed:
        assert packed.headers["Content-Encoding"] == "gzip"
        assert int(packed.headers["Content-Length"]) < len(body)
        assert await packed.read() == body


@pytest.mark.parametrize(
    "path", ["/console/nothing.js", "/console/../app.py", "/console/%2e%2e/app.py", "/console/css", "/console/app.js/"]
)
async def test_anything_else_does_not_exist(edge: Edge, path: str) -> None:
    status, answer = await edge.call("GET", path)
    assert (status, answer["error"]["code"]) == (404, "NOT_FOUND")


async def test_it_is_read_only(edge: Edge) -> None:
    status, _ = await edge.call("POST", "/console/app.js", {})
    assert status == 405


def test_a_folder_without_a_page_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WunderError, match=r"no index\.html"):
        load_files(tmp_path)


def test_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_console, "_MAX_BYTES", 10)
    (tmp_path / "index.html").write_bytes(b"x" * 11)
    with pytest.raises(WunderError, match="larger than 10 bytes"):
        load_files(tmp_path)


def test_packed_files_are_the_same_files() -> None:
    for path, file in FILES.items():
        assert gzip.decompress(file.packed) == file.body == (CONSOLE / path).read_bytes()


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_scripts_are_small_and_never_make_markup_or_code_of_text(path: Path) -> None:
    text = path.read_text()
    assert name(path).startswith("text/") or len(text.splitlines()) < 300
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\(|new Function", text
    )
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)[a-z0-9]", text), "it names another server"
    for imported in re.findall(r'from "([^"]+)"', text):
        assert (path.parent / imported).is_file(), imported


def test_pure_scripts_know_no_page() -> None:
    for path in (CONSOLE / "state").glob("*.js"):
        assert not re.search(r"\b(document|window|localStorage|fetch|WebSocket|setTimeout)\b", path.read_text()), path
        assert all("/" not in found[2:] for found in re.findall(r'from "([^"]+)"', path.read_text())), path


def test_every_text_that_is_used_is_written() -> None:
    keys = set(re.findall(r'^  "?([\w.]+)"?: "', (CONSOLE / "text" / "en.js").read_text(), re.MULTILINE))
    used = {key for path in SCRIPTS for key in re.findall(r'\bt\("([\w.]+)"', path.read_text())}
    assert len(used) > 100
    assert used <= keys


def test_a_page_has_no_script_or_style_inside() -> None:
    text = (CONSOLE / "index.html").read_text()
    assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*\bsrc=)", text)
    for linked in re.findall(r'(?:href|src)="([^"]+)"', text):
        assert (CONSOLE / linked).is_file(), linked
