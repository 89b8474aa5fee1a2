"""Attaching to a Ray cluster, or starting a small local one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import ray

from actors.cluster.reach import NAMESPACE
from actors.errors import ServiceUnavailable

_OBJECT_STORE_BYTES = 100_000_000
_ENVIRONMENT = {
    "RAY_worker_niceness": "0",
    "RAY_worker_maximum_startup_concurrency": "32",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def attach(address: str) -> None:
    """Join a running cluster as its driver."""
    try:
        ray.init(address=address, namespace=NAMESPACE, logging_level="warning", log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ServiceUnavailable(f"no Ray cluster at {address!r}: {reason}") from None


def start_local(data_dir: Path, *, dashboard_port: int | None, cpus: int | None = None) -> str:
    """Start Ray on this machine only, with token authentication; the dashboard's address, if there is one."""
    _environment(data_dir)
    context = ray.init(
        num_cpus=cpus,
        namespace=NAMESPACE,
        object_store_memory=_OBJECT_STORE_BYTES,
        include_dashboard=dashboard_port is not None,
        dashboard_host="127.0.0.1",
        dashboard_port=dashboard_port,
        logging_level="warning",
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )
    return str(context.dashboard_url or "")


def _environment(data_dir: Path) -> None:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "RAY_AUTH_MODE" not in os.environ:
        # Ray would write its own token readable by everybody; ours is there first, and private.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(_token(data_dir))


def _token(data_dir: Path) -> Path:
    path = data_dir / "ray_auth_token"
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(32))
    return path.resolve()


def stop_local() -> None:
    """Leave the cluster; one that this process started ends with it."""
    ray.shutdown()
