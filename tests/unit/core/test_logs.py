"""A log line is an action with fields; it can neither be forged nor betray a value."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from actors import logs
from actors.logs import Log, configure_logs
from actors.settings import ObservabilitySettings


@pytest.fixture
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A logger of its own for each test."""
    found = f"wunder-test-{request.node.name}"
    monkeypatch.setattr(logs, "_ROOT", found)
    yield found
    logging.getLogger(found).handlers.clear()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_json_has_the_action_and_the_fields(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(ObservabilitySettings(log_format="json", log_level="info"))
    Log(name).info("turn_finished", status="failed", count=3)
    Log(name).debug("not_shown")
    (line,) = lines(capsys)
    found = json.loads(line)
    assert (found["action"], found["level"], found["status"], found["count"]) == ("turn_finished", "info", "failed", 3)
    assert found["time"].endswith("Z")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_value_cannot_make_a_line_of_its_own(name: str, capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    configure_logs(ObservabilitySettings(log_format=log_format))  # type: ignore[arg-type]
    Log(name).warning("signed_in", username="eve\n2026 ERROR forged\x1b[31m")
    (line,) = lines(capsys)
    assert "\x1b" not in line


def test_an_unexpected_error_says_where_but_not_what(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(ObservabilitySettings(log_format="console"))
    try:
        raise ValueError("the secret")
    except ValueError as error:
        Log(name).exception("turn_failed", error, turn="t1")
    (line,) = lines(capsys)
    assert "ValueError" in line
    assert "test_logs.py" in line
    assert "turn=t1" in line
    assert "the secret" not in line


def test_logs_are_configured_once(name: str) -> None:
    for _ in range(3):
        configure_logs(ObservabilitySettings(log_format="json"))
    assert len(logging.getLogger(name).handlers) == 1
