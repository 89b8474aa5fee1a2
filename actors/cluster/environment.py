"""What Ray reads from the environment when it is imported: set before that, so this module does not import it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_ENVIRONMENT = {
    # Ray's way to keep every listener of a local cluster on loopback; without it they bind the machine's address.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_worker_niceness": "0",
    "RAY_worker_maximum_startup_concurrency": "32",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def prepare_environment(data_dir: Path) -> None:
    """Settings of a local Ray, and token authentication with a token of our own."""
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
