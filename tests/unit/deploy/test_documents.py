"""The commands in the documents are ones that `wunder` and `ray` take; files and settings that they name exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from gateway.openapi import SUMMARIES
from gateway.settings import Settings
from tests.unit.deploy.commands import commands, wrong_ray, wrong_wunder

ROOT = Path(__file__).parents[3]
DOCUMENTS = ["README.md", *(f"docs/{name}.md" for name in ("deploy", "operations", "upgrade", "tasks"))]
SECTIONS = set(Settings.__struct_fields__)


def shell(text: str) -> str:
    """What stands in shell blocks and between backticks, without comments and placeholders."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    blocks += [f"{found}\n" for found in re.findall(r"`((?:wunder|ray) [^`\n]+)`", text)]
    plain = re.sub(r"<[^>\n]*>", "x", "".join(blocks))
    return re.sub(r"(?m)(^|\s)#.*$", "", plain).replace(" ...", "")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_exist(name: str) -> None:
    found = [words for words in commands(shell((ROOT / name).read_text())) if words]
    for words in found:
        assert not wrong_ray(words), words
        if not any("|" in word for word in words):
            assert not wrong_wunder(words), words
        if "--" in words:
            assert not wrong_wunder(words[words.index("--") + 1 :]), words
    assert any(words[0].endswith("wunder") for words in found)


def test_a_command_that_does_not_exist_is_found() -> None:
    text = "```sh\nwunder drein x   # no\n```\nand `wunder serve --detech`, `ray startt`"
    found = [words for words in commands(shell(text)) if words]
    assert [bool(wrong_wunder(words) or wrong_ray(words)) for words in found] == [True, True, True]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_somewhere(name: str) -> None:
    path = ROOT / name
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_settings_exist(name: str) -> None:
    for key in re.findall(r"`([a-z_]+\.[a-z_]+)[:`]", (ROOT / name).read_text()):
        section, field = key.split(".")
        if section in SECTIONS:
            value: Any = getattr(Settings(), section)
            assert hasattr(value, field), key


@pytest.mark.parametrize("name", DOCUMENTS)
def test_routes_exist(name: str) -> None:
    known = {path for _, path in SUMMARIES}
    for path in re.findall(r"127\.0\.0\.1:18000(/[a-z]+)", (ROOT / name).read_text()):
        assert path in known, path
