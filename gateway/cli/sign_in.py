"""Getting a token: from the environment, from an earlier sign-in, or by asking for the password."""

from __future__ import annotations

import getpass
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from gateway.cli.api import Api
from storage.errors import InvalidRequest

TOKEN_VARIABLE = "WUNDER_TOKEN"  # noqa: S105 - its name
API_KEY_VARIABLE = "WUNDER_API_KEY"


class TokenFile:
    """`~/.config/wunder/token-<host>`: who is signed in there, readable by its owner only."""

    def __init__(self, home: Path, url: str) -> None:
        host = re.sub(r"[^A-Za-z0-9.-]", "_", urlsplit(url).netloc.rpartition("@")[2])
        self.path = home / ".config" / "wunder" / f"token-{host}"

    def read(self, user: str | None = None) -> str | None:
        """The token, if it is this user's (or anybody's without a name)."""
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            token, owner = str(kept["token"]), str(kept["user"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return token if user is None or user.casefold() == owner.casefold() else None

    def write(self, user: str, token: str) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:  # noqa: PTH123
            json.dump({"user": user, "token": token}, file)
        partial.replace(self.path)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def known_token(environ: Mapping[str, str], file: TokenFile, user: str | None = None) -> str | None:
    """A token that is there already."""
    return environ.get(TOKEN_VARIABLE) or file.read(user)


def credential(environ: Mapping[str, str], file: TokenFile) -> dict[str, str] | None:
    """The headers of whoever is signed in: the API key goes before a token."""
    if environ.get(API_KEY_VARIABLE):
        return {"X-API-Key": environ[API_KEY_VARIABLE]}
    token = known_token(environ, file)
    return {"Authorization": f"Bearer {token}"} if token else None


class Identity(msgspec.Struct, frozen=True):
    """Who wants to sign in."""

    user: str
    password: str

    def __repr__(self) -> str:
        return f"Identity({self.user})"


def ask_identity(user: str | None, *, from_stdin: bool) -> Identity:
    """Ask for what is not known; without a terminal everything has to be given."""
    terminal = sys.stdin.isatty()
    hint = f"use --user NAME and --password-stdin, or a token in {TOKEN_VARIABLE}"
    if not user:
        if from_stdin or not terminal:
            raise InvalidRequest("who wants to sign in?", hint=hint)
        user = input("user: ").strip()
    if from_stdin:
        return Identity(user, sys.stdin.readline().rstrip("\r\n"))
    if not terminal:
        raise InvalidRequest("there is no terminal to ask for the password", hint=hint)
    return Identity(user, getpass.getpass(f"password of {user}: "))


async def sign_in(api: Api, file: TokenFile, identity: Identity, *, register: bool) -> str:
    """Sign in, as a new user with `register`; the token is kept in the file."""
    path = "/wunder/auth/register" if register else "/wunder/auth/login"
    body = {"username": identity.user, "password": identity.password}
    answer = await api.request("POST", path, body=body)
    token = str(answer["data"]["access_token"])
    file.write(identity.user, token)
    return token
