"""Starting and joining Ray."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import ray

from actors.cluster import local
from actors.errors import ServiceUnavailable


def test_a_local_ray_is_one_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def init(**options: Any) -> Any:
        given.update(options)
        return SimpleNamespace(dashboard_url="127.0.0.1:8265")

    monkeypatch.setattr(ray, "init", init)
    assert local.start_local(dashboard_port=8265) == "127.0.0.1:8265"
    assert given["address"] == "local"
    assert given["_node_ip_address"] == given["dashboard_host"] == "127.0.0.1"


def test_a_cluster_that_is_refused_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[str] = []

    def refuse(address: str, nodes: int) -> None:
        assert (address, nodes) == ("10.0.0.1:6379", 2)
        raise ServiceUnavailable("open to strangers")

    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}, {"Alive": False}, {"Alive": True}])
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(gcs_address="10.0.0.1:6379"))
    monkeypatch.setattr(ray, "shutdown", lambda: left.append("left"))
    monkeypatch.setattr(local, "check_access", refuse)
    with pytest.raises(ServiceUnavailable, match="open to strangers"):
        local.attach("auto")
    assert left == ["left"]
