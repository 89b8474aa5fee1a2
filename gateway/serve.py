"""`wunder serve`: checks everything that can be wrong, starts the actors, and keeps them until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import msgspec

from actors.clock import SystemClock
from actors.cluster.environment import prepare_environment
from actors.errors import ServiceUnavailable, WunderError
from actors.logs import configure_logs, log
from gateway.bootstrap import FirstAdmin, bootstrap_admin
from gateway.password_rules import PasswordRules, load_common_passwords
from gateway.passwords import PasswordHasher
from gateway.settings import Settings, registration_open
from storage.factory import create_store

_DATA_DIR_MARK = "{data_dir}"


def serve(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    configure_logs(settings.observability)
    data_dir = private_directory(settings.server.data_dir)
    settings = with_paths(settings, data_dir)
    if settings.server.ray_address:
        return _serve_on_cluster(settings)
    check_port(settings.server.host, settings.server.port)
    admin = _prepare(settings)
    prepare_environment(data_dir)
    from actors.cluster.local import start_local, stop_local  # noqa: PLC0415 - Ray reads its environment at import

    dashboard = start_local(dashboard_port=settings.server.dashboard_port or None)
    try:
        return asyncio.run(_run(settings, admin, dashboard))
    finally:
        stop_local()


def _serve_on_cluster(settings: Settings) -> int:
    from actors.cluster.fleet import gateway_is_here  # noqa: PLC0415 - Ray is imported only to serve
    from actors.cluster.local import attach, stop_local  # noqa: PLC0415

    attach(settings.server.ray_address)
    try:
        if not gateway_is_here():  # one that an earlier supervisor left has the port; it is adopted or replaced
            check_port(settings.server.host, settings.server.port)
        return asyncio.run(_run(settings, _prepare(settings), ""))
    finally:
        stop_local()


def private_directory(path: str) -> Path:
    """The data folder, made if needed, readable by its owner only."""
    directory = Path(path).expanduser().resolve()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        probe = directory / ".writable"
        probe.touch(mode=0o600)
        probe.unlink()
    except OSError as error:
        raise WunderError(f"server.data_dir: cannot write to {directory}: {error.strerror}") from None
    return directory


def with_paths(settings: Settings, data_dir: Path) -> Settings:
    """Settings whose paths mean the same in every process."""
    url = settings.storage.url.replace(_DATA_DIR_MARK, str(data_dir))
    scheme, _, path = url.partition("sqlite:///")
    if not scheme and path and not path.startswith((":", "/")):
        url = f"sqlite:///{Path(path).resolve()}"
    replace = msgspec.structs.replace
    return replace(
        settings,
        storage=replace(settings.storage, url=url),
        server=replace(settings.server, data_dir=str(data_dir)),
    )


def check_port(host: str, port: int) -> None:
    """Find out now, not in an actor's log, that the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServiceUnavailable(
                f"server.port: cannot listen on {host}:{port}: {os.strerror(error.errno or 0)}",
                hint="another server may be running; choose another with --port",
            ) from None


async def prepare_store(settings: Settings) -> FirstAdmin | None:
    """Reach the database, bring its schema up to date, and make the first admin."""
    store = create_store(settings.storage)
    hasher = PasswordHasher(settings.auth)
    try:
        await store.open()
        for name in await store.migrate():
            log.info("migrated", migration=name)
        return await bootstrap_admin(
            store,
            hasher,
            PasswordRules(min_length=settings.auth.password_min_length, common=load_common_passwords()),
            SystemClock(),
            configured_password=settings.security.bootstrap_admin_password,
        )
    finally:
        hasher.close()
        await store.close()


def _prepare(settings: Settings) -> FirstAdmin | None:
    admin = asyncio.run(prepare_store(settings))
    if admin is not None and admin.password is not None:
        # Now, not when everything has started: it is kept nowhere, and what comes next may fail.
        print(f"  sign in    {admin.username} / {admin.password}")
        print("             (the first administrator; shown this once, kept nowhere)", flush=True)
    return admin


async def _run(settings: Settings, admin: FirstAdmin | None, dashboard: str) -> int:
    from actors.cluster.fleet import RayFleet  # noqa: PLC0415 - Ray is imported only to serve
    from actors.cluster.supervisor import Supervisor  # noqa: PLC0415

    fleet = RayFleet(
        msgspec.msgpack.encode(settings.for_actors()),
        msgspec.msgpack.encode(settings),
        "gateway.main:create_gateway",
        msgspec.msgpack.encode(settings.for_outbox()),
    )
    supervisor = Supervisor(
        fleet,
        grace_s=settings.sessions.drain_grace_s,
        pools=settings.agent_queue.enabled,
        outboxes=settings.channels.outbox.enabled,
    )
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        addresses = await supervisor.start()
        print(banner(settings, addresses, admin, dashboard), flush=True)
        await stopping.wait()
        print("stopping: letting running turns finish ...", flush=True)
    finally:
        await supervisor.stop()
    return 0


def banner(settings: Settings, addresses: list[str], admin: FirstAdmin | None, dashboard: str) -> str:
    """What a person needs to know now."""
    lines = ["", "Wunder is ready.", *(f"  address    {address}" for address in addresses)]
    if admin is not None and admin.password is not None:
        lines.append(f"  sign in    {admin.username} with the password shown above")
    elif admin is not None:
        lines.append(f"  sign in    {admin.username} with the password from the settings")
    else:
        lines.append("  sign in    with an existing account")
    if registration_open(settings):
        lines.append("  register   open: wunder chat --register (the default on a loopback address)")
    if dashboard:
        lines.append(f"  Ray        http://{dashboard}")
    model = settings.llm.models[settings.llm.default]
    scripted = " (built in: answers by a script)" if model.provider == "scripted" else ""
    lines.append(f"  model      {settings.llm.default}{scripted}")
    lines.append(f"  console    {addresses[0]}/console/")
    lines.append(f"  chat       wunder chat --url {addresses[0]}")
    return "\n".join([*lines, ""])
