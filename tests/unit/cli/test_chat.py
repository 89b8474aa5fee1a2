"""`wunder chat`: signing in, one question, several, and Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import io
import stat
from pathlib import Path
from typing import Any

import pytest

from gateway.cli import add_parsers, run_chat
from gateway.cli.chat import Interrupts
from gateway.cli.screen import Screen
from gateway.cli.sign_in import Identity, TokenFile, known_token
from gateway.cli.turn_client import TurnClient
from tests.unit.cli.fake_server import SESSION, TOKEN, FakeServer, Peer, fake_server

SIGNED_IN = {"WUNDER_TOKEN": TOKEN}
LOGIN, REGISTER = "/wunder/auth/login", "/wunder/auth/register"


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_parsers(parser.add_subparsers())
    return parser.parse_args(["chat", *arguments])


async def chat(server: FakeServer, home: Path, environ: dict[str, str], *arguments: str) -> int:
    parsed = options("--url", server.url, *arguments)
    assert parsed.run is run_chat
    return await asyncio.to_thread(run_chat, parsed, environ, home)


def answering(answer: str, *, status: str = "succeeded", session: str | None = None) -> Any:
    async def connection(peer: Peer) -> None:
        payload = await peer.receive("start")
        assert payload.get("session_id") == session
        await peer.ack()
        await peer.deltas(1, answer)
        await peer.end(2, status)
        await peer.gone()

    return connection


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


async def test_one_question(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server(answering("Hello")) as server:
        assert await chat(server, tmp_path, SIGNED_IN, "--message", "hi") == 0
    assert capsys.readouterr().out == "Hello\n"


async def test_a_turn_that_fails_is_an_exit_code(tmp_path: Path) -> None:
    async with fake_server(answering("", status="failed")) as server:
        assert await chat(server, tmp_path, SIGNED_IN, "--message", "hi") == 1


async def test_lines_of_a_pipe_are_turns_of_one_session(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "one\n\ntwo\n")
    async with fake_server(answering("1"), answering("2", session=SESSION)) as server:
        assert await chat(server, tmp_path, SIGNED_IN) == 0
        assert server.finished
    assert capsys.readouterr().out == "1\n2\n"


@pytest.mark.parametrize(("arguments", "path"), [([], LOGIN), (["--register"], REGISTER)], ids=str)
async def test_signing_in_keeps_the_token(
    arguments: list[str], path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "secret word\n")
    async with fake_server(answering("a"), answering("b")) as server:
        server.answers[path] = (200, {"ok": True, "data": {"access_token": TOKEN}})
        given = ["--user", "ann", "--password-stdin", "--message", "hi"]
        assert await chat(server, tmp_path, {}, *given, *arguments) == 0
        assert server.requests == [(path, {"username": "ann", "password": "secret word"})]
        assert await chat(server, tmp_path, {}, "--user", "Ann", "--message", "hi") == 0
        file = TokenFile(tmp_path, server.url).path
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert "secret word" not in file.read_text()


async def test_a_refused_sign_in_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "wrong\n")
    error = {"code": "AUTH_REQUIRED", "message": "unknown user or wrong password", "hint": None}
    async with fake_server() as server:
        server.answers[LOGIN] = (401, {"ok": False, "error": error})
        assert await chat(server, tmp_path, {}, "--user", "ann", "--password-stdin", "--message", "x") == 1
    assert capsys.readouterr().err == "wunder chat: unknown user or wrong password\n"


async def test_without_a_terminal_nothing_is_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "")
    async with fake_server() as server:
        assert await chat(server, tmp_path, {}, "--message", "hi") == 1
    assert "who wants to sign in? (use --user NAME" in capsys.readouterr().err


async def test_a_token_that_ended_is_forgotten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "")
    async with fake_server(401) as server:
        file = TokenFile(tmp_path, server.url)
        file.write("ann", "wund_old")
        assert await chat(server, tmp_path, {}, "--message", "hi") == 1
        assert file.read() is None
        assert await chat(server, tmp_path, {"WUNDER_TOKEN": "wund_old"}, "--message", "hi") == 1
    assert capsys.readouterr().err.count("the token is not valid (any more)") == 2


async def test_nobody_listening_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with fake_server() as server:
        pass
    assert await chat(server, tmp_path, SIGNED_IN, "--message", "hi") == 1
    assert capsys.readouterr().err.startswith(f"wunder chat: cannot reach {server.url}: ")


def test_a_url_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_chat(options("--url", "localhost:1", "--message", "hi"), {}, tmp_path) == 1
    assert "--url: expected something like http://host:18000" in capsys.readouterr().err


async def test_the_first_interrupt_cancels_the_second_leaves() -> None:
    async with fake_server() as server:
        client = TurnClient(None, server.url, TOKEN, "x")  # type: ignore[arg-type]
    out = io.StringIO()

    async def turn() -> None:
        interrupts = Interrupts(client, Screen(out, colour=False))
        interrupts.pressed()
        await asyncio.sleep(0)
        interrupts.pressed()
        await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await turn_task(turn)
    assert out.getvalue() == "[cancelling; Ctrl-C again leaves]\n"


async def turn_task(turn: Any) -> None:
    await asyncio.create_task(turn(), name="turn")


def test_tokens_are_kept_by_host_and_user(tmp_path: Path) -> None:
    file = TokenFile(tmp_path, "http://u:p@127.0.0.1:18000")
    assert file.path.name == "token-127.0.0.1_18000"
    assert file.read() is None
    file.write("ann", "wund_1")
    assert (file.read(), file.read("ANN"), file.read("bob")) == ("wund_1", "wund_1", None)
    assert known_token({"WUNDER_TOKEN": "wund_2"}, file) == "wund_2"
    assert known_token({}, file, "bob") is None
    file.path.write_text("broken")
    assert file.read() is None
    file.remove()
    file.remove()


def test_an_identity_does_not_show_its_password() -> None:
    assert "pw" not in f"{Identity('ann', 'pw')!r} {Identity('ann', 'pw')}"
