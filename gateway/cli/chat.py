"""`wunder chat`: a conversation in the terminal, one line a turn."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import aiohttp

from gateway.cli.api import Api
from gateway.cli.screen import Screen
from gateway.cli.sign_in import TOKEN_VARIABLE, TokenFile, ask_identity, known_token, sign_in
from gateway.cli.turn_client import Accepted, TurnClient
from gateway.errors import AuthRequired
from gateway.settings_loader import environment
from storage.errors import WunderError

_INTERRUPTED = 130


class Chat:
    """A session of turns. `session` is its id once the first turn is accepted."""

    def __init__(self, api: Api, options: argparse.Namespace, environ: Mapping[str, str], home: Path) -> None:
        self._api = api
        self._options = options
        self._environ = environ
        self._file = TokenFile(home, api.url)
        self._token = ""
        self._colour = sys.stdout.isatty()
        self.session: str | None = options.session

    async def sign_in(self) -> None:
        """Have a token, from wherever there is one."""
        options = self._options
        known = None if options.register else known_token(self._environ, self._file, options.user)
        if known:
            self._token = known
            return
        identity = ask_identity(options.user, from_stdin=options.password_stdin)
        self._token = await sign_in(self._api, self._file, identity, register=options.register)

    async def ask(self, content: str) -> str:
        """One turn; returns its terminal status. A second Ctrl-C leaves it to itself and raises."""
        client = TurnClient(
            self._api.http,
            self._api.url,
            self._token,
            content,
            session_id=self.session,
            model=self._options.model,
        )
        screen = Screen(sys.stdout, colour=self._colour)
        with _on_interrupt(Interrupts(client, screen)):
            async for item in client.run():
                if isinstance(item, Accepted):
                    self.session = item.session_id
                screen.show(item)
        return screen.status

    async def ask_signed_in(self, content: str) -> str:
        """The same, with one new sign-in if the token has ended meanwhile."""
        try:
            return await self.ask(content)
        except AuthRequired as error:
            if self._environ.get(TOKEN_VARIABLE):
                raise AuthRequired(error.message, hint=f"the token is the one in {TOKEN_VARIABLE}") from None
            self._file.remove()
            if not sys.stdin.isatty():
                raise
        await self.sign_in()
        return await self.ask(content)


class Interrupts:
    """Ctrl-C during a turn: the first cancels it, the second leaves."""

    def __init__(self, client: TurnClient, screen: Screen) -> None:
        self._client = client
        self._screen = screen
        self._owner = asyncio.current_task()
        self._cancelling: asyncio.Task[None] | None = None

    def pressed(self) -> None:
        if self._cancelling is None:
            self._screen.note("[cancelling; Ctrl-C again leaves]")
            self._cancelling = asyncio.create_task(self._client.cancel(), name="cancel-turn")
        elif self._owner is not None:
            self._owner.cancel()

    def end(self) -> None:
        if self._cancelling is not None:
            self._cancelling.cancel()


@contextlib.contextmanager
def _on_interrupt(interrupts: Interrupts) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
        loop.add_signal_handler(signal.SIGINT, interrupts.pressed)
    try:
        yield
    finally:
        interrupts.end()
        with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
            loop.remove_signal_handler(signal.SIGINT)


def run_chat(options: argparse.Namespace, environ: Mapping[str, str] | None = None, home: Path | None = None) -> int:
    """0, or 1 if a turn did not succeed or the server cannot be reached, or 130 after Ctrl-C."""
    with asyncio.Runner() as runner:
        http = runner.run(_open())
        try:
            chat = Chat(Api(http, options.url), options, environ or environment(), home or Path.home())
            runner.run(chat.sign_in())
            if options.message is not None:
                return int(runner.run(chat.ask_signed_in(options.message)) != "succeeded")
            return _converse(runner, chat)
        except WunderError as error:
            hint = f" ({error.hint})" if error.hint else ""
            print(f"wunder chat: {error.message}{hint}", file=sys.stderr)
            return 1
        except (KeyboardInterrupt, asyncio.CancelledError):
            return _INTERRUPTED
        finally:
            runner.run(http.close())


async def _open() -> aiohttp.ClientSession:
    return aiohttp.ClientSession()


def _converse(runner: asyncio.Runner, chat: Chat) -> int:
    """Line after line, until the end of input or Ctrl-C twice."""
    terminal = sys.stdin.isatty()
    if terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401, PLC0415 - line editing, where there is a terminal
    status = "succeeded"
    for line in _lines(terminal):
        if not line.strip():
            continue
        status = runner.run(chat.ask_signed_in(line))
    if terminal and chat.session:
        print(f"to go on later: wunder chat --session {chat.session}")
    return 0 if terminal else int(status != "succeeded")


def _lines(terminal: bool) -> Iterator[str]:
    if not terminal:
        yield from sys.stdin
        return
    interrupted = False
    while True:
        try:
            line = input("> ")
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            if interrupted:
                return
            interrupted = True
            print("Ctrl-C again, or Ctrl-D, leaves")
            continue
        interrupted = False
        yield line
