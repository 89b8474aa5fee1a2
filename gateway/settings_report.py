"""How settings are shown to people: every problem in one report, and never a secret."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from actors.channels.accounts import SECRETS as CHANNEL_SECRETS
from actors.errors import WunderError
from gateway.settings import Settings

HIDDEN = "***"
_SECRETS = frozenset({"api_key", "bootstrap_admin_password", "secrets_keys", "secret", "old_secrets"}) | CHANNEL_SECRETS
_LONGEST = 60


class SettingsError(WunderError):
    """The settings cannot be used; the message is the whole report, one line for each problem."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong; `what` says what was expected and what came, or what to do instead.

    A problem between settings names the others that it `reads`: if one of these is wrong, only that is told.
    """

    key: str
    what: str
    source: str = ""
    reads: tuple[str, ...] = ()

    def __str__(self) -> str:
        where = f"  [{self.source}]" if self.source else ""
        return f"{self.key}: {self.what}{where}"


def error(problems: Iterable[Problem]) -> SettingsError:
    """The report as an error; `detail["problems"]` holds the lines."""
    lines = [str(problem) for problem in problems]
    count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
    text = "\n".join([f"The settings have {count}:", *(f"  {line}" for line in lines)])
    return SettingsError(text, detail={"problems": lines})


def is_secret(key: str) -> bool:
    """Whether the value of this key is never shown."""
    return key.rsplit(".", 1)[-1] in _SECRETS


def shown(key: str, value: object) -> str:
    """A value as it may appear in a report."""
    if is_secret(key):
        return f"{HIDDEN} ({kind(value)}, not shown)"
    if value is None:
        return "nothing"
    if key.endswith("url"):
        if not isinstance(value, str):
            return kind(value)
        value = hide_password(value)
    text = repr(value)
    if len(text) > _LONGEST:
        text = text[: _LONGEST - 3] + "..."
    return text if isinstance(value, str) else f"{text} ({kind(value)})"


def kind(value: object) -> str:
    """The type of a value, in words."""
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a section",
        type(None): "nothing",
    }
    return names.get(type(value), type(value).__name__)


def hide_password(url: str) -> str:
    """A URL without what may be secret in it: the password and the query."""
    url = re.sub(r"\?.*", f"?{HIDDEN}", url, flags=re.DOTALL)
    match = re.match(r"([a-z0-9+]*://)?([^:/@]*)(:?)(.*)@([^@]*)$", url, re.IGNORECASE | re.DOTALL)
    if match is None:
        return url
    scheme, user, colon, secret, rest = match.groups()
    return f"{scheme or ''}{user}{colon}{HIDDEN if secret else ''}@{rest}"


def describe(settings: Settings) -> dict[str, Any]:
    """The whole tree as plain values, for printing: secrets are replaced by `***`, unset ones stay empty."""
    tree = _hide("", msgspec.to_builtins(settings))
    return tree if isinstance(tree, dict) else {}


def _hide(key: str, value: object) -> object:
    if isinstance(value, dict):
        return {name: _hide(f"{key}.{name}", item) for name, item in value.items()}
    if isinstance(value, list | tuple) and is_secret(key):
        return [HIDDEN for _ in value]
    if isinstance(value, str) and value:
        if is_secret(key):
            return HIDDEN
        if key.endswith("url"):
            return hide_password(value)
    return value
