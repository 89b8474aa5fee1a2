"""What single settings cannot say: the rules between them. Each rule names the keys that it reads."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from actors.channels.accounts import ACCOUNT_NAME
from actors.channels.accounts import problems as account_problems
from actors.channels.signing import SECRET_FORM, is_signing_secret
from actors.secrets import KEY_HINT, is_key
from actors.tools.egress import EgressPolicy
from gateway.settings import Settings, is_local, is_loopback
from gateway.settings_report import Problem, hide_password, shown

_STORES = ("sqlite", "postgresql", "postgres")


def check(settings: Settings) -> Iterator[Problem]:
    """Every broken rule, under the key that should change."""
    for rule in _RULES:
        yield from rule(settings)


def _models(settings: Settings) -> Iterator[Problem]:
    known = ", ".join(sorted(settings.llm.models)) or "none"
    if settings.llm.default not in settings.llm.models:
        yield Problem("llm.default", f"expected a name in llm.models ({known}), got {settings.llm.default!r}")
    for name, agent in settings.llm.agents.items():
        if agent.model and agent.model not in settings.llm.models:
            key = f"llm.agents.{name}.model"
            yield Problem(key, f"expected a name in llm.models ({known}) or nothing, got {agent.model!r}")
    for name, model in settings.llm.models.items():
        key = f"llm.models.{name}"
        if model.max_output >= model.max_context:
            yield Problem(
                f"{key}.max_output",
                f"must be below max_context ({model.max_context})",
                reads=(f"{key}.max_context",),
            )
        if model.provider != "openai":
            continue
        if not model.model:
            what = "is needed with provider openai: the upstream's name of the model"
            yield Problem(f"{key}.model", what, reads=(f"{key}.provider",))
        if not _is_http(model.base_url):
            what = "with provider openai expected a URL such as https://host/v1"
            yield Problem(f"{key}.base_url", f"{what}, got {shown('base_url', model.base_url)}")


def _leases(settings: Settings) -> Iterator[Problem]:
    sessions = settings.sessions
    if not sessions.lease_renew_s < sessions.lease_stop_s < sessions.lease_s:
        what = "expected lease_renew_s < lease_stop_s < lease_s"
        got = f"got {sessions.lease_renew_s:g}, {sessions.lease_stop_s:g}, {sessions.lease_s:g}"
        what = f"{what} (an owner stops before its lease ends), {got}"
        yield Problem("sessions.lease_stop_s", what, reads=("sessions.lease_renew_s", "sessions.lease_s"))
    writer = sessions.event_writer
    if writer.batch_size > writer.max_pending:
        key = "sessions.event_writer.batch_size"
        what = f"must not be above max_pending ({writer.max_pending}), got {writer.batch_size}"
        yield Problem(key, what, reads=("sessions.event_writer.max_pending",))


def _queue(settings: Settings) -> Iterator[Problem]:
    queue, stop_s = settings.agent_queue, settings.sessions.lease_stop_s
    if queue.lease_s <= stop_s:
        what = f"must be above sessions.lease_stop_s ({stop_s:g}): a pool stops before its lease ends"
        yield Problem("agent_queue.lease_s", f"{what}, got {queue.lease_s:g}", reads=("sessions.lease_stop_s",))
    if queue.retry_max_ms < queue.retry_base_ms:
        what = f"must not be below retry_base_ms ({queue.retry_base_ms:g}), got {queue.retry_max_ms:g}"
        yield Problem("agent_queue.retry_max_ms", what, reads=("agent_queue.retry_base_ms",))


def _storage(settings: Settings) -> Iterator[Problem]:
    url = settings.storage.url
    scheme, separator, rest = url.partition("://")
    if scheme == "sqlite" and rest.lstrip("/").startswith(":memory:"):
        yield Problem("storage.url", "a database in memory belongs to one process; name a file")
    elif not separator or scheme not in _STORES or not rest.strip("/") or _is_relative(scheme, rest):
        what = "expected sqlite:///path/to/file or postgresql://user:password@host/database"
        yield Problem("storage.url", f"{what}, got {hide_password(url)!r}")


def _listening(settings: Settings) -> Iterator[Problem]:
    server = settings.server
    if bool(server.tls_cert) != bool(server.tls_key):
        missing, given = ("tls_key", "tls_cert") if server.tls_cert else ("tls_cert", "tls_key")
        yield Problem(f"server.{missing}", f"is needed with {given}", reads=(f"server.{given}",))
    for name in ("tls_cert", "tls_key"):
        path = getattr(server, name)
        if path and not Path(path).is_file():
            yield Problem(f"server.{name}", f"there is no file {path!r}")
    if is_loopback(server.host) or server.behind_proxy or server.tls_cert:
        return
    what = f"must be true to listen on {server.host!r} without TLS: passwords would cross the network in clear"
    yield Problem("server.behind_proxy", f"{what}; set it behind a proxy that does TLS, or set tls_cert, tls_key")


def _networks(settings: Settings) -> Iterator[Problem]:
    if settings.server.behind_proxy and not settings.server.trusted_proxies:
        what = "is needed with behind_proxy: the addresses of the proxy, such as 127.0.0.1"
        why = "without it every client has the proxy's address, and our own https pages look foreign"
        yield Problem("server.trusted_proxies", f"{what}; {why}", reads=("server.behind_proxy",))
    for proxy in settings.server.trusted_proxies:
        try:
            ipaddress.ip_network(proxy, strict=False)
        except ValueError:
            what = f"expected addresses or networks such as 10.0.0.0/8, got {proxy!r}"
            yield Problem("server.trusted_proxies", what)
    for origin in settings.gateway.allowed_origins:
        parts = urlsplit(origin)
        if not _is_http(origin) or parts.path or parts.query or parts.fragment or "*" in origin:
            what = f"expected origins such as https://chat.example.org, got {origin!r}"
            yield Problem("gateway.allowed_origins", what)


def _secrets(settings: Settings) -> Iterator[Problem]:
    password, least = settings.security.bootstrap_admin_password, settings.auth.password_min_length
    if password and len(password) < least:
        what = f"is shorter than auth.password_min_length ({least})"
        yield Problem("security.bootstrap_admin_password", what, reads=("auth.password_min_length",))
    key = settings.security.api_key
    if key and len(key) < 16 and not is_local(settings):
        what = "expected at least 16 characters when others can reach the gateway: it opens everything"
        yield Problem("security.api_key", what, reads=("server.host", "server.behind_proxy"))


def _channels(settings: Settings) -> Iterator[Problem]:
    if not all(map(is_key, settings.security.secrets_keys)):
        yield Problem("security.secrets_keys", f"expected keys, each {KEY_HINT}; one of them is not (not shown)")
    webhooks = settings.channels.webhooks
    if webhooks.secret and not is_signing_secret(webhooks.secret):
        yield Problem("channels.webhooks.secret", f"expected {SECRET_FORM}, got something else (not shown)")
    if not all(map(is_signing_secret, webhooks.old_secrets)):
        what = f"expected each to be {SECRET_FORM}; one of them is not (not shown)"
        yield Problem("channels.webhooks.old_secrets", what)
    try:
        EgressPolicy(webhooks.allow_hosts)
    except ValueError as error:
        yield Problem("channels.webhooks.allow_hosts", str(error))
    outbox = settings.channels.outbox
    if outbox.breaker_max_rest_s < outbox.breaker_rest_s:
        what = f"must not be below breaker_rest_s ({outbox.breaker_rest_s:g}), got {outbox.breaker_max_rest_s:g}"
        yield Problem("channels.outbox.breaker_max_rest_s", what, reads=("channels.outbox.breaker_rest_s",))


def _channel_accounts(settings: Settings) -> Iterator[Problem]:
    channels, agents = settings.channels, settings.llm.agents
    for name, account in channels.accounts.items():
        key = f"channels.accounts.{name}"
        if not ACCOUNT_NAME.fullmatch(name):
            yield Problem(key, "expected a name of at most 64 letters, digits, -, _ or .")
        for setting, what in account_problems(account):
            yield Problem(f"{key}.{setting}", what, reads=(f"{key}.channel",))
        if account.agent and account.agent not in agents:
            yield Problem(f"{key}.agent", _no_agent(account.agent, agents))
    for name, binding in channels.bindings.items():
        if binding.agent and binding.agent not in agents:
            yield Problem(f"channels.bindings.{name}.agent", _no_agent(binding.agent, agents))
    try:
        EgressPolicy(channels.allow_hosts)
    except ValueError as error:
        yield Problem("channels.allow_hosts", str(error))


def _no_agent(agent: str, agents: Collection[str]) -> str:
    return f"expected a name in llm.agents ({', '.join(sorted(agents)) or 'none'}) or nothing, got {agent!r}"


def _deadlines(settings: Settings) -> Iterator[Problem]:
    gateway = settings.gateway
    if gateway.owner_timeout_s >= gateway.request_timeout_s:
        what = f"must be below request_timeout_s ({gateway.request_timeout_s:g})"
        yield Problem(
            "gateway.owner_timeout_s",
            f"{what}, got {gateway.owner_timeout_s:g}",
            reads=("gateway.request_timeout_s",),
        )


def _is_relative(scheme: str, rest: str) -> bool:
    """`sqlite://file` looks as if `file` were a host."""
    return scheme == "sqlite" and not rest.startswith("/")


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False


_RULES: tuple[Callable[[Settings], Iterator[Problem]], ...] = (
    _models,
    _leases,
    _queue,
    _storage,
    _listening,
    _networks,
    _secrets,
    _channels,
    _channel_accounts,
    _deadlines,
)
