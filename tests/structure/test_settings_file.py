"""config/wunder.yaml is complete, true to the defaults, and explains itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from gateway import settings_schema as schema
from gateway.settings import Settings
from gateway.settings_loader import load_settings

FILE = Path(__file__).parents[2] / "config" / "wunder.yaml"


def test_it_equals_the_defaults() -> None:
    loaded = load_settings(str(FILE), {}, {})
    assert msgspec.to_builtins(loaded) == msgspec.to_builtins(Settings())
    assert loaded == Settings()


EXAMPLES = ("llm.agents.*.", "channels.accounts.*.", "channels.bindings.*.")
"""Entries that nobody has by default: their settings stand in a comment."""


@pytest.mark.parametrize("key", [key for key in schema.all_keys() if not key.startswith(EXAMPLES)])
def test_every_setting_is_in_it(key: str) -> None:
    node: Any = yaml.safe_load(FILE.read_text())
    for part in key.split("."):
        assert isinstance(node, dict)
        name = next(iter(node)) if part == schema.ENTRY else part
        assert name in node, f"{key} is missing in config/wunder.yaml"
        node = node[name]


@pytest.mark.parametrize("prefix", EXAMPLES)
def test_the_settings_of_such_entries_are_in_an_example(prefix: str) -> None:
    text = FILE.read_text().split(f"{prefix.split('.')[1]}:", 1)[1]
    settings = [key.rsplit(".", 1)[-1] for key in schema.all_keys() if key.startswith(prefix)]
    assert settings
    assert all(f"{name}: " in text for name in settings)


def test_every_section_is_in_the_types_of_the_tree() -> None:
    assert list(yaml.safe_load(FILE.read_text())) == list(Settings.__struct_fields__)
