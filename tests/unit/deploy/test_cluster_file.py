"""cluster.yaml: Ray's own checks, its programs' options, and what we promise about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from gateway.settings import Settings
from tests.unit.deploy.commands import commands, wrong_ray, wrong_wunder

FILE = Path(__file__).parents[3] / "cluster.yaml"
STARTS = ("head_start_ray_commands", "worker_start_ray_commands")


def local() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


def aws() -> dict[str, Any]:
    """The file with the variant that is commented out in it."""
    variant = "\n".join(line[3:] for line in FILE.read_text().splitlines() if line.startswith("#| "))
    found = local()
    for name in ("provider", "min_workers", "max_workers"):
        del found[name]
    return found | yaml.safe_load(variant)


@pytest.mark.parametrize("config", [local(), aws()], ids=["local", "aws"])
def test_ray_takes_it(config: dict[str, Any]) -> None:
    validate_config(prepare_config(config))


@pytest.mark.parametrize("config", [local(), aws()], ids=["local", "aws"])
def test_ray_would_refuse_a_mistake(config: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="setup_comands"):
        validate_config(prepare_config(config | {"setup_comands": []}))


def start(name: str) -> list[str]:
    """The words of `ray start`."""
    (found,) = [words for text in local()[name] for words in commands(text) if "start" in words]
    return found


@pytest.mark.parametrize("name", STARTS)
def test_the_options_of_ray_exist(name: str) -> None:
    assert not wrong_ray(start(name))
    assert wrong_ray([*start(name), "--no-such-option=1"]) == ["--no-such-option=1"]


@pytest.mark.parametrize("name", STARTS)
def test_a_token_is_asked_for_and_the_dashboard_is_not_open(name: str) -> None:
    text = " ".join(local()[name])
    assert "RAY_AUTH_MODE=token" in text
    assert "--dashboard-host=0.0.0.0" not in text
    if name == "head_start_ray_commands":
        assert "--dashboard-host=127.0.0.1" in text


def test_both_kinds_of_nodes_use_the_ports_of_the_firewall() -> None:
    ports = [{word for word in start(name) if re.search(r"port=\d+$", word)} for name in STARTS]
    assert ports[1] < ports[0]
    assert ports[0] - ports[1] == {"--port=6379", "--dashboard-port=8265"}
    opened = re.search(r"define ray_ports = \{ (.*) \}", (FILE.parent / "deploy/nftables/wunder.nft").read_text())
    assert opened is not None
    for word in ports[0] - {"--dashboard-port=8265"}:
        assert _is_in(int(word.rpartition("=")[2]), opened[1]), word
    assert not _is_in(8265, opened[1])


def _is_in(port: int, ranges: str) -> bool:
    bounds = [part.strip().split("-") for part in ranges.split(",")]
    return any(int(low[0]) <= port <= int(low[-1]) for low in bounds)


def test_a_stop_has_time_to_drain() -> None:
    wait = re.search(r"RAY_JOB_STOP_WAIT_TIME_S=(\d+)", " ".join(local()["head_start_ray_commands"]))
    assert wait is not None
    assert float(wait[1]) > 2 * Settings().sessions.drain_grace_s


def test_the_nodes_offer_what_session_actors_take() -> None:
    (offered,) = [word for word in start("worker_start_ray_commands") if word.startswith("--resources=")]
    assert yaml.safe_load(offered.partition("=")[2]) == {"wunder_session": 16}
    assert aws()["available_node_types"]["wunder_worker"]["resources"]["wunder_session"] == 16
    assert "sessions.actor_resource: wunder_session" in FILE.read_text()


def test_its_commands_for_people_exist() -> None:
    shown = [line[4:] for line in FILE.read_text().splitlines() if line.startswith("#   ") and "  #" not in line[:3]]
    text = "\n".join(line.partition("  # ")[0].partition(" # ")[0] for line in shown)
    found = [words for words in commands(text) if words and words[0] == "ray"]
    assert [words[1] for words in found] == ["get-auth-token", "up", "dashboard", "job"]
    for words in found:
        assert not wrong_ray(words)
        if "--" in words:
            assert not wrong_wunder(words[words.index("--") + 1 :])
