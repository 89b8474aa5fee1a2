"""Commands in files and documents: each of `ray` and `wunder` has to be one that these programs take."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator

import click
from ray.scripts import scripts

from gateway.__main__ import _parser

_RAY_SHORT = {"--head", "--block", "--help"}


def commands(text: str) -> Iterator[list[str]]:
    """The simple commands of a shell text, each as its words."""
    joined = re.sub(r"\\\n\s*", " ", text)
    for line in joined.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if re.fullmatch(r"[;&|]+", word):
                yield words
                words = []
            else:
                words.append(word)
        yield words


def wrong_ray(words: list[str]) -> list[str]:
    """Options that `ray COMMAND` does not have; None is wrong with something else than `ray`."""
    if not words or words[0].rpartition("/")[2] != "ray":
        return []
    command: click.Command = scripts.cli
    for word in words[1:]:
        if not isinstance(command, click.Group) or (word not in command.commands and command is not scripts.cli):
            break
        if word not in command.commands:
            return [word]
        command = command.commands[word]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    own = words[: words.index("--")] if "--" in words else words
    return [word for word in own if word.startswith("--") and word.partition("=")[0] not in known | _RAY_SHORT]


def wrong_wunder(words: list[str]) -> str:
    """What `wunder` would say of its options, or nothing."""
    if not words or words[0].rpartition("/")[2] != "wunder":
        return ""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            _, rest = _parser().parse_known_args(words[1:])
    except SystemExit as ended:
        is_name_only = (
            "arguments are required" in said.getvalue()
        )  # a sentence about `wunder drain`, not a command line
        return said.getvalue() if ended.code and not is_name_only else ""
    settings = words[1] in {"serve", "stop", "migrate"}
    return "" if not rest or (settings and all("." in word for word in rest[::2])) else f"unknown: {rest}"
