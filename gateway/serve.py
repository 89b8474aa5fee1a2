"""`wunder serve`: checks everything that can be wrong, starts the actors, and keeps them until it is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from actors.clock import SystemClock
from actors.cluster.environment import prepare_environment
from actors.errors import Conflict, ServiceUnavailable, WunderError
from actors.logs import configure_logs, log
from gateway.bootstrap import FirstAdmin, bootstrap_admin
from gateway.password_rules import PasswordRules, load_common_passwords
from gateway.passwords import PasswordHasher
from gateway.pid_file import PidFile
from gateway.settings import Settings, registration_open
from gateway.voice import Terminal, Voice
from storage.factory import create_store

if TYPE_CHECKING:
    from actors.cluster.seat import Seat

_DATA_DIR_MARK = "{data_dir}"


def serve(settings: Settings, voice: Voice | None = None) -> int:
    """Run until SIGTERM or SIGINT; the exit code. What a person needs to know goes to `voice`."""
    voice = voice or Terminal()
    configure_logs(settings.observability)
    data_dir = private_directory(settings.server.data_dir)
    settings = with_paths(settings, data_dir)
    pid_file = PidFile(data_dir)
    taken = pid_file.take()
    try:
        if settings.server.ray_address:
            return _serve_on_cluster(settings, voice, pid_file)
        if not taken:
            raise Conflict(
                f"server.data_dir: process {pid_file.running()} already serves from {data_dir}",
                hint="`wunder stop` ends it; another --data-dir and --port run a second one",
            )
        return _serve_locally(settings, data_dir, voice)
    finally:
        pid_file.leave()


def _serve_locally(settings: Settings, data_dir: Path, voice: Voice) -> int:
    check_port(settings.server.host, settings.server.port)
    admin = asyncio.run(_prepare(settings, voice))
    prepare_environment(data_dir)
    from actors.cluster.local import start_local, stop_local  # noqa: PLC0415 - Ray reads its environment at import

    dashboard = start_local(dashboard_port=settings.server.dashboard_port or None)
    try:
        return asyncio.run(_run(settings, admin, dashboard, voice))
    finally:
        stop_local()


def _serve_on_cluster(settings: Settings, voice: Voice, pid_file: PidFile) -> int:
    from actors.cluster.local import attach, stop_local  # noqa: PLC0415 - Ray is imported only to serve

    dashboard = attach(settings.server.ray_address)
    try:
        return asyncio.run(_run_on_cluster(settings, dashboard, voice, pid_file))
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
        migrated = await store.migrate(post=settings.storage.migrates_all)
        for name in migrated.applied:
            log.info("migrated", migration=name)
        if migrated.waiting:
            log.warning("migrations_wait", migrations=migrated.waiting, hint="wunder migrate --post")
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


async def _prepare(settings: Settings, voice: Voice) -> FirstAdmin | None:
    admin = await prepare_store(settings)
    if admin is not None and admin.password is not None:
        # Now, not when everything has started: it is kept nowhere, and what comes next may fail.
        voice.say(f"  sign in    {admin.username} / {admin.password}")
        voice.say("             (the first administrator; shown this once, kept nowhere)")
    return admin


async def _run_on_cluster(settings: Settings, dashboard: str, voice: Voice, pid_file: PidFile) -> int:
    """Wait until no other supervisor has the cluster, then look after it."""
    from actors.cluster.fleet import gateway_is_here  # noqa: PLC0415 - Ray is imported only to serve
    from actors.cluster.seat import Seat  # noqa: PLC0415

    seat, stopping = Seat(), _stop_signals()
    try:
        if not await seat.take():
            voice.settled("another supervisor has this cluster: standing by ...")
            if not await _unless(stopping, seat.wait()):
                return 0
            pid_file.take()  # the one before may have had it
        # A gateway that an earlier supervisor left has the port; it is adopted or replaced.
        if not await asyncio.to_thread(gateway_is_here):
            check_port(settings.server.host, settings.server.port)
        admin = await _prepare(settings, voice)
        return await _run(settings, admin, dashboard, voice, seat=seat, stopping=stopping)
    finally:
        await seat.leave()


async def _run(
    settings: Settings,
    admin: FirstAdmin | None,
    dashboard: str,
    voice: Voice,
    *,
    seat: Seat | None = None,
    stopping: asyncio.Event | None = None,
) -> int:
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
    stopping = stopping or _stop_signals()
    leave = False
    try:
        addresses = await supervisor.start()
        voice.settled(banner(settings, addresses, admin, dashboard))
        if seat is not None and await _unless(stopping, seat.lost()):
            leave = True  # before another supervisor and this one pull at the same actors
            raise ServiceUnavailable("the seat of the supervisor was lost: another one may have taken it")
        await stopping.wait()
        leave = settings.server.leave_actors and seat is not None
        voice.say(
            "leaving the actors to the next supervisor" if leave else "stopping: letting running turns finish ..."
        )
    finally:
        await (supervisor.leave() if leave else supervisor.stop())
    return 0


def _stop_signals() -> asyncio.Event:
    """Set by SIGTERM and SIGINT."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping


async def _unless(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Whether `work` has ended before it was time to stop."""
    tasks = [asyncio.create_task(work, name="until"), asyncio.create_task(stopping.wait(), name="stopping")]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].done() and not stopping.is_set() and tasks[0].result() is None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
