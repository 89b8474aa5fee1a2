"""Attaching to a Ray cluster, or starting a small local one."""

from __future__ import annotations

import ray

from actors.cluster.access import check_access
from actors.cluster.reach import NAMESPACE
from actors.errors import ServiceUnavailable
from actors.logs import log

_OBJECT_STORE_BYTES = 100_000_000
_START_ATTEMPTS = 3


def attach(address: str) -> str:
    """Join a running cluster as its driver; its dashboard's address, if any. Several open nodes are refused."""
    try:
        context = ray.init(address=address, namespace=NAMESPACE, logging_level="warning", log_to_driver=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ServiceUnavailable(f"no Ray cluster at {address!r}: {reason}") from None
    try:
        check_access(ray.get_runtime_context().gcs_address, sum(node["Alive"] for node in ray.nodes()))
    except ServiceUnavailable:
        ray.shutdown()
        raise
    return str(context.dashboard_url or "")


def start_local(*, dashboard_port: int | None, cpus: int | None = None) -> str:
    """Start Ray on this machine only, as `prepare_environment` has set it up; its dashboard's address, if any."""
    last = ""
    for _ in range(_START_ATTEMPTS):
        try:
            return _start(dashboard_port, cpus)
        except Exception as error:  # Ray raises bare Exceptions when a part of it was too slow to start
            last = str(error).partition("\n")[0]
            log.warning("ray_start_failed", message=last)
            ray.shutdown()
    raise ServiceUnavailable(f"Ray did not start: {last}", hint="is the machine overloaded? Ray's logs: /tmp/ray")


def _start(dashboard_port: int | None, cpus: int | None) -> str:
    context = ray.init(
        address="local",  # else Ray joins a cluster that somebody has started on this machine
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


def stop_local() -> None:
    """Leave the cluster; one that this process started ends with it."""
    ray.shutdown()
