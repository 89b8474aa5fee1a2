"""deploy/kubernetes: the published schemas, real commands, and parts that fit together.

KubeRay's own schema is in no package: of the RayCluster the pods are checked with Kubernetes' schema, the rest by hand.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import kubernetes_validate
import pytest
import yaml

from gateway.openapi import SUMMARIES
from gateway.settings import Settings
from gateway.settings_loader import load_settings
from tests.unit.deploy.commands import commands, wrong_ray, wrong_wunder

FOLDER = Path(__file__).parents[3] / "deploy" / "kubernetes"
VERSIONS = ("1.33", "1.37")
RAY_CLUSTER_FIELDS = {
    *("rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec", "workerGroupSpecs"),
    *("gcsFaultToleranceOptions", "authOptions", "suspend", "headServiceAnnotations"),
}
GROUP_FIELDS = {
    "groupName",
    "replicas",
    "minReplicas",
    "maxReplicas",
    "rayStartParams",
    "template",
    "idleTimeoutSeconds",
}
OTHERS = {"RayCluster", "Kustomization"}
"""Kinds that Kubernetes' own schema does not have."""


def documents() -> list[dict[str, Any]]:
    return [
        found
        for path in sorted(FOLDER.glob("*.yaml"))
        for found in yaml.safe_load_all(path.read_text())
        if found is not None
    ]


def of(kind: str, name: str = "") -> dict[str, Any]:
    (found,) = [d for d in documents() if d["kind"] == kind and (not name or d["metadata"]["name"] == name)]
    return found


def groups() -> dict[str, dict[str, Any]]:
    spec = of("RayCluster")["spec"]
    return {"head": spec["headGroupSpec"], "worker": spec["workerGroupSpecs"][0]}


def pods() -> dict[str, dict[str, Any]]:
    """Every pod template by a name."""
    return {
        "supervisor": of("Deployment")["spec"]["template"],
        **{name: group["template"] for name, group in groups().items()},
    }


def container(name: str) -> dict[str, Any]:
    (found,) = pods()[name]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", [d for d in documents() if d["kind"] not in OTHERS], ids=lambda d: d["kind"])
def test_kubernetes_takes_it(document: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["head", "worker"])
def test_kubernetes_takes_the_pods_of_the_ray_cluster(name: str, version: str) -> None:
    template = pods()[name]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x", **template["metadata"]},
        "spec": template["spec"],
    }
    kubernetes_validate.validate(pod, version, strict=True)
    pod["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, version, strict=True)


def test_the_ray_cluster_has_the_fields_of_its_kind() -> None:
    cluster = of("RayCluster")
    assert cluster["apiVersion"] == "ray.io/v1"
    assert set(cluster["spec"]) <= RAY_CLUSTER_FIELDS
    for group in groups().values():
        assert set(group) <= GROUP_FIELDS
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "KubeRay wants text"
        options = [f"--{name}={value}" for name, value in group["rayStartParams"].items()]
        assert not wrong_ray(["ray", "start", *options])
    worker = groups()["worker"]
    assert worker["minReplicas"] <= worker["replicas"] <= worker["maxReplicas"]


def test_kustomize_names_every_file_but_the_secrets() -> None:
    files = {path.name for path in FOLDER.glob("*.yaml")}
    assert set(of("Kustomization")["resources"]) == files - {"kustomization.yaml", "secrets.example.yaml"}


def test_all_run_the_same_image_and_version() -> None:
    images = {container(name)["image"] for name in pods()}
    (image,) = images
    (entry,) = of("Kustomization")["images"]
    assert image == f"{entry['name']}:{entry['newTag']}"
    project = (FOLDER.parents[1] / "pyproject.toml").read_text()
    assert f'version = "{entry["newTag"]}"' in project
    lock = (FOLDER.parents[1] / "requirements.lock").read_text()
    locked = re.search(r"^ray(?:\[default\])?==(\S+)", lock, re.MULTILINE)
    assert locked is not None
    assert of("RayCluster")["spec"]["rayVersion"] == locked[1]


def test_the_commands_exist() -> None:
    (text,) = container("supervisor")["args"]
    found = list(commands(text))
    assert [words[0] for words in found if words] == ["ray", "exec"]
    assert not wrong_ray(found[0])
    serve = [words[1:] for words in found if words[:1] == ["exec"]]
    assert [wrong_wunder(words) for words in serve] == [""]
    stop = container("worker")["lifecycle"]["preStop"]["exec"]["command"]
    assert stop[:2] == ["/bin/sh", "-c"]
    words = shlex.split(stop[2])
    assert words[:2] == ["wunder", "drain"]
    assert wrong_wunder(words) == ""
    assert wrong_wunder([*words, "--no-such"])


def test_probes_ask_what_is_served() -> None:
    probe = container("worker")["readinessProbe"]["httpGet"]
    assert ("GET", probe["path"]) in SUMMARIES
    ports = {port["name"]: port["containerPort"] for port in container("worker")["ports"]}
    assert ports[probe["port"]] == settings().server.port
    for name, group in groups().items():
        port = container(name)["livenessProbe"]["tcpSocket"]["port"]
        assert str(port) in {"6379", group["rayStartParams"]["node-manager-port"]}


def settings() -> Settings:
    """What the supervisor would load."""
    path = FOLDER / "settings.yaml"
    text = yaml.safe_load(path.read_text())["data"]["wunder.yaml"]
    values = {
        "api-key": "k" * 32,
        "admin-password": "a long password",
        "database-url": "postgresql://wunder:secret@db/wunder",
    }
    environ = {
        entry["name"]: values[entry["valueFrom"]["secretKeyRef"]["key"]]
        for entry in container("supervisor")["env"]
        if entry["name"].startswith("WUNDER_")
    }
    with NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        return load_settings(file.name, {"server.ray_address": "auto"}, environ)


def test_the_settings_can_be_loaded_and_fit() -> None:
    loaded = settings()
    assert loaded.server.leave_actors
    assert loaded.storage.url.startswith("postgresql://")
    offered = groups()["worker"]["rayStartParams"]["resources"]
    assert yaml.safe_load(yaml.safe_load(offered)) == {loaded.sessions.actor_resource: 8}


def test_a_pod_is_given_the_time_that_its_drain_takes() -> None:
    grace_s = settings().sessions.drain_grace_s
    for name in ("worker", "supervisor"):
        assert pods()[name]["spec"]["terminationGracePeriodSeconds"] > 2 * grace_s + 30
    words = shlex.split(container("worker")["lifecycle"]["preStop"]["exec"]["command"][2])
    patience_s = float(words[words.index("--timeout") + 1])
    assert 2 * grace_s < patience_s < pods()["worker"]["spec"]["terminationGracePeriodSeconds"]


def test_secrets_come_from_the_secret_and_nowhere_else() -> None:
    known = set(of("Secret")["stringData"])
    named = {
        entry["valueFrom"]["secretKeyRef"]["key"]
        for name in pods()
        for entry in container(name)["env"]
        if "secretKeyRef" in entry.get("valueFrom", {})
    }
    assert named == known
    for name in pods():
        plain = {entry["name"]: entry["value"] for entry in container(name)["env"] if "value" in entry}
        assert plain["RAY_AUTH_MODE"] == "token"
        assert not [key for key in plain if re.search("KEY|TOKEN|PASSWORD|URL", key)]
        assert container(name)["securityContext"]["runAsNonRoot"] is True


def test_services_budgets_and_policies_choose_pods_that_exist() -> None:
    labels = [pod["metadata"]["labels"] for pod in pods().values()]
    selectors = [
        of("Service")["spec"]["selector"],
        of("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        *(d["spec"]["selector"]["matchLabels"] for d in documents() if d["kind"] == "PodDisruptionBudget"),
        of("Deployment")["spec"]["selector"]["matchLabels"],
    ]
    for selector in selectors:
        assert any(selector.items() <= own.items() for own in labels), selector
    assert of("Service")["spec"]["selector"].items() <= pods()["worker"]["metadata"]["labels"].items()
    assert not of("Service")["spec"]["selector"].items() <= pods()["head"]["metadata"]["labels"].items()
    assert of("Ingress")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] == "wunder"
