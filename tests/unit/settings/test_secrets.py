"""No secret is ever in a report, a description or an error."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from actors.channels.settings import ChannelsSettings, WebhooksSettings
from actors.settings import LlmSettings, ModelSettings
from gateway.settings import SecuritySettings, Settings
from gateway.settings_loader import SettingsError, describe, load_settings
from gateway.settings_report import hide_password
from storage.settings import StorageSettings

CANARY = "canary-4711"


@pytest.mark.parametrize(
    "text",
    [
        f"security: {{api_key: [{CANARY}]}}",
        f"security: {CANARY}",
        f"security: {{apikey: {CANARY}}}",
        f"security: {{secrets_keys: {CANARY}}}",
        f"security: {{secrets_keys: [{CANARY}]}}",
        f"channels: {{webhooks: {{secret: {CANARY}}}}}",
        f"channels: {{webhooks: {{old_secrets: [{CANARY}]}}}}",
        f"security: {{bootstrap_admin_password: {{{CANARY}: 1}}}}",
        f"llm: {{models: {{scripted: {CANARY}}}}}",
        f"llm: {{models: {{scripted: {{api_key: [{CANARY}]}}}}}}",
        f"llm: {{models: {{scripted: {{base_url: ['http://u:{CANARY}@h']}}}}}}",
        f"storage: {{url: mysql://u:{CANARY}@h/d}}",
        f"storage: {{url: 'postgres//u:{CANARY}@h/d'}}",
        f"storage: {{url: 'mysql://h/d?password={CANARY}'}}",
        f"security: {{api_key: '{CANARY}",
        f"security: {{api_key: {CANARY}, api_key: {CANARY}}}",
        f"llm: {{models: {{scripted: {{provider: openai, model: m, base_url: 'ftp://u:{CANARY}@h'}}}}}}",
        f"server: {{host: 0.0.0.0}}\nsecurity: {{api_key: {CANARY}}}",
    ],
)
def test_problems_do_not_show_secrets(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(str(file), {}, {})
    error = caught.value
    shown = f"{error} {error!r} {error.detail} {error.__cause__}"
    assert CANARY not in shown
    assert error.__suppress_context__ or error.__context__ is None


def test_the_description_does_not_show_secrets() -> None:
    settings = Settings(
        security=SecuritySettings(api_key=CANARY, bootstrap_admin_password=CANARY, secrets_keys=(CANARY,)),
        channels=ChannelsSettings(webhooks=WebhooksSettings(secret=CANARY, old_secrets=(CANARY,))),
        storage=StorageSettings(url=f"postgresql://wunder:{CANARY}@db:5432/wunder?sslpassword={CANARY}"),
        llm=LlmSettings(models={"scripted": ModelSettings(api_key=CANARY, base_url=f"https://u:{CANARY}@h/v1")}),
    )
    tree = describe(settings)
    assert CANARY not in str(tree)
    assert tree["security"]["api_key"] == "***"
    assert tree["security"]["secrets_keys"] == ["***"]
    assert tree["storage"]["url"] == "postgresql://wunder:***@db:5432/wunder?***"
    assert tree["server"]["port"] == settings.server.port
    assert describe(Settings())["security"]["api_key"] == ""


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("sqlite:///data/wunder.db", "sqlite:///data/wunder.db"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://user@host/db", "postgresql://user@host/db"),
        ("postgresql://user:p@ss:w/rd@host/db", "postgresql://user:***@host/db"),
        ("postgresql://user:secret@host/db?password=x", "postgresql://user:***@host/db?***"),
        ("user:secret@host", "user:***@host"),
    ],
)
def test_passwords_in_urls_are_hidden(url: str, safe: str) -> None:
    assert hide_password(url) == safe


def test_the_report_survives_pickling() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {"nothing.here": "1"}, {})
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert type(copy) is SettingsError
    assert str(copy) == str(caught.value)
