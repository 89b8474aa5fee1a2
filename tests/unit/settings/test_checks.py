"""The rules between settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from gateway.settings import AuthSettings, ServerSettings, Settings, registration_open
from gateway.settings_loader import SettingsError, load_settings

GOOD = [
    "server: {host: 0.0.0.0, behind_proxy: true, trusted_proxies: [10.0.0.0/8, '::1']}",
    "server: {host: localhost}",
    "server: {host: '::1'}",
    "storage: {url: 'postgresql://u:p@h/d'}",
    "storage: {url: 'postgres:///d?host=/tmp'}",
    "llm: {default: g, models: {g: {provider: openai, base_url: 'https://h/v1', model: m}}}",
    "llm: {agents: {a: {model: scripted}}}",
    "llm: {agents: {a: {system_prompt: x}}}",
    "gateway: {allowed_origins: ['https://a.example', 'http://localhost:3000']}",
    "sessions: {lease_renew_s: 1, lease_stop_s: 2, lease_s: 3}",
    "security: {api_key: short}",
    "agent_queue: {lease_s: 10.5}",
    "channels: {outbox: {per_channel: {slack: {per_account: 1}}}}",
    "channels: {webhooks: {secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw, allow_hosts: [10.0.0.0/8]}}",
    "agent_queue: {retry_base_ms: 500, retry_max_ms: 500}",
    "channels: {accounts: {a: {channel: slack, signing_secret: s, bot_token: t}}, bindings: {b: {peer: C1}}}",
    "channels: {accounts: {a: {channel: email, smtp_host: h, sender: a@b.c, username: u, password: p}}}",
]
BAD = [
    ("server: {host: 0.0.0.0}", ["server.behind_proxy"]),
    ("channels: {accounts: {a: {channel: slack, bot_token: t}}}", ["channels.accounts.a.signing_secret"]),
    ("channels: {accounts: {a b: {channel: slack, signing_secret: s, bot_token: t}}}", ["channels.accounts.a b"]),
    ("channels: {accounts: {a: {signing_secret: short}}}", ["channels.accounts.a.signing_secret"]),
    (
        "channels: {accounts: {a: {channel: slack, signing_secret: s, bot_token: t, agent: x}}}",
        ["channels.accounts.a.agent"],
    ),
    ("channels: {bindings: {b: {agent: x}}}", ["channels.bindings.b.agent"]),
    ("channels: {allow_hosts: ['*']}", ["channels.allow_hosts"]),
    ("server: {host: 10.1.2.3}\nsecurity: {api_key: short}", ["server.behind_proxy", "security.api_key"]),
    ("server: {tls_cert: /nowhere.pem}", ["server.tls_key", "server.tls_cert"]),
    ("server: {behind_proxy: true}", ["server.trusted_proxies"]),
    ("server: {host: 0.0.0.0, behind_proxy: true}", ["server.trusted_proxies"]),
    ("server: {behind_proxy: true, trusted_proxies: [127.0.0.1]}\nsecurity: {api_key: short}", ["security.api_key"]),
    ("server: {trusted_proxies: [10.0.0.0/99]}", ["server.trusted_proxies"]),
    ("storage: {url: 'mysql://h/d'}", ["storage.url"]),
    ("storage: {url: 'wunder.db'}", ["storage.url"]),
    ("storage: {url: 'sqlite:///'}", ["storage.url"]),
    ("storage: {url: 'sqlite://wunder.db'}", ["storage.url"]),
    ("storage: {url: 'sqlite:///:memory:'}", ["storage.url"]),
    ("llm: {default: g}", ["llm.default"]),
    ("llm: {models: {g: {}}}", ["llm.default"]),
    ("llm: {agents: {a: {model: g}}}", ["llm.agents.a.model"]),
    (
        "llm: {models: {scripted: {provider: openai}}}",
        ["llm.models.scripted.model", "llm.models.scripted.base_url"],
    ),
    (
        "llm: {models: {scripted: {provider: openai, model: m, base_url: 'http://[x'}}}",
        ["llm.models.scripted.base_url"],
    ),
    ("llm: {models: {scripted: {max_context: 300, max_output: 300}}}", ["llm.models.scripted.max_output"]),
    ("sessions: {lease_renew_s: 10}", ["sessions.lease_stop_s"]),
    ("sessions: {lease_s: 10}", ["sessions.lease_stop_s"]),
    ("sessions: {event_writer: {max_pending: 10}}", ["sessions.event_writer.batch_size"]),
    ("agent_queue: {lease_s: 10}", ["agent_queue.lease_s"]),
    ("sessions: {lease_stop_s: 20, lease_s: 30}", ["agent_queue.lease_s"]),
    ("agent_queue: {retry_base_ms: 70000}", ["agent_queue.retry_max_ms"]),
    ("agent_queue: {retry_max_ms: 999}", ["agent_queue.retry_max_ms"]),
    ("gateway: {allowed_origins: ['*']}", ["gateway.allowed_origins"]),
    ("gateway: {allowed_origins: ['https://a/path', 'https://*.a']}", ["gateway.allowed_origins"] * 2),
    ("gateway: {request_timeout_s: 5}", ["gateway.owner_timeout_s"]),
    ("security: {secrets_keys: [short]}", ["security.secrets_keys"]),
    ("channels: {webhooks: {secret: short}}", ["channels.webhooks.secret"]),
    ("channels: {webhooks: {old_secrets: [whsec_]}}", ["channels.webhooks.old_secrets"]),
    ("channels: {webhooks: {allow_hosts: ['*']}}", ["channels.webhooks.allow_hosts"]),
    ("channels: {outbox: {breaker_rest_s: 301}}", ["channels.outbox.breaker_max_rest_s"]),
    ("security: {bootstrap_admin_password: short}", ["security.bootstrap_admin_password"]),
]


def load(text: str, directory: Path) -> None:
    file = directory / "given.yaml"
    file.write_text(text)
    load_settings(str(file), {}, {})


@pytest.mark.parametrize("text", GOOD)
def test_good_combinations(text: str, tmp_path: Path) -> None:
    load(text, tmp_path)


@pytest.mark.parametrize(("text", "keys"), BAD)
def test_bad_combinations(text: str, keys: list[str], tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(text, tmp_path)
    assert caught.value.detail is not None
    assert [line.partition(": ")[0] for line in caught.value.detail["problems"]] == keys


@pytest.mark.parametrize(
    ("server", "registration", "is_open"),
    [
        (ServerSettings(), "", True),
        (ServerSettings(host="192.0.2.1"), "", False),
        (ServerSettings(behind_proxy=True), "", False),  # the proxy brings the whole internet to the loopback address
        (ServerSettings(behind_proxy=True), "open", True),
        (ServerSettings(), "closed", False),
    ],
)
def test_strangers_may_register_only_where_no_stranger_can_come(
    server: ServerSettings, registration: Literal["", "open", "closed"], is_open: bool
) -> None:
    settings = Settings(server=server, auth=AuthSettings(registration=registration))
    assert registration_open(settings) is is_open


def test_tls_files_that_exist_make_other_addresses_fine(tmp_path: Path) -> None:
    pem = tmp_path / "x.pem"
    pem.touch()
    load(f"server: {{host: 0.0.0.0, tls_cert: {pem}, tls_key: {pem}}}", tmp_path)


def test_what_is_wrong_by_itself_is_told_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load("sessions: {lease_s: -1, lease_stop_s: 30}\nagent_queue: {lease_s: 60}", tmp_path)
    assert caught.value.detail is not None
    assert len(caught.value.detail["problems"]) == 1
