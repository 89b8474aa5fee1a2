"""Reading settings: layers, variables, and one report of everything that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from actors.settings import ModelSettings
from gateway.settings import Settings
from gateway.settings_loader import SettingsError, load_settings, option_overrides


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(
    text: str = "", overrides: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    Path("given.yaml").write_text(text)
    return load_settings("given.yaml", overrides or {}, environ or {})


def problems(
    text: str = "", overrides: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(text, overrides, environ)
    assert caught.value.detail is not None
    found: list[str] = caught.value.detail["problems"]
    assert all(line in str(caught.value) for line in found)
    return found


def test_nothing_given_means_the_defaults() -> None:
    assert load_settings(None, {}, {}) == Settings()
    assert load("") == load("# only a comment") == Settings()


def test_the_default_file_is_read_if_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "wunder.yaml").write_text("server: {port: 9000}")
    assert load_settings(None, {}, {}).server.port == 9000


def test_a_missing_file_is_a_problem_when_it_was_asked_for() -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot be read: No such file"):
        load_settings("none.yaml", {}, {})


def test_later_layers_win_and_keep_the_rest() -> None:
    settings = load(
        "server: {port: 1, host: 127.0.0.2, data_dir: here}",
        {"server.port": "3"},
        {"WUNDER_SERVER__PORT": "2", "WUNDER_SERVER__HOST": "localhost"},
    )
    assert (settings.server.port, settings.server.host, settings.server.data_dir) == (3, "localhost", "here")


def test_sections_without_content_are_defaults() -> None:
    text = "server:\nllm:\n  models:\n  agents:\nsessions: {event_writer: }"
    assert load(text) == Settings()
    assert load(text, environ={"WUNDER_SERVER__PORT": "9"}).server.port == 9


def test_text_layers_are_read_as_the_setting_wants() -> None:
    settings = load(
        environ={
            "WUNDER_SERVER__TRUSTED_PROXIES": "[10.0.0.0/8, 192.168.0.1]",
            "WUNDER_TOOLS__HTTP_PUBLIC": "false",
            "WUNDER_SESSIONS__EVENT_WRITER__BATCH_SIZE": "7",
            "WUNDER_SECURITY__API_KEY": "0123456789012345",
            "WUNDER_LLM__MODELS__SCRIPTED__TEMPERATURE": "0.5",
        }
    )
    assert settings.server.trusted_proxies == ("10.0.0.0/8", "192.168.0.1")
    assert settings.tools.http_public is False
    assert settings.sessions.event_writer.batch_size == 7
    assert settings.security.api_key == "0123456789012345"
    assert settings.llm.models["scripted"].temperature == 0.5


def test_a_variable_adds_to_the_models_that_exist() -> None:
    settings = load(environ={"WUNDER_LLM__MODELS__OTHER__RETRY": "3"})
    assert settings.llm.models == {"scripted": ModelSettings(), "other": ModelSettings(retry=3)}


@pytest.mark.parametrize("name", ["WUNDER_LLM__MODELS__GPT_4_1__API_KEY", "llm.models.GPT-4.1.api_key"])
def test_names_of_entries_may_hold_signs_that_variables_cannot(name: str) -> None:
    text = "llm: {default: GPT-4.1, models: {GPT-4.1: {retry: 1}}}"
    layer = {name: "k"}
    settings = load(text, environ=layer) if name.startswith("WUNDER") else load(text, layer)
    assert settings.llm.models == {"GPT-4.1": ModelSettings(retry=1, api_key="k")}


def test_the_first_administrator_has_a_short_variable() -> None:
    settings = load(environ={"WUNDER_BOOTSTRAP_ADMIN_PASSWORD": "correct horse"})
    assert settings.security.bootstrap_admin_password == "correct horse"


def test_variables_of_clients_tests_and_others_are_no_settings() -> None:
    assert load(environ={"WUNDER_TOKEN": "x", "WUNDER_API_KEY": "y", "WUNDER_TEST_X": "z", "HOME": "/"})


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("${NAME}", "wonder"),
        ("a-${NAME}-${NAME}", "a-wonder-wonder"),
        ("${NONE:-other}", "other"),
        ("${NONE:-}", ""),
        ("${EMPTY:-other}", "other"),
        ("${EMPTY}", ""),
        ("$${NAME}", "${NAME}"),
        ("$NAME", "$NAME"),
    ],
)
def test_strings_of_the_file_may_name_variables(written: str, read: str) -> None:
    settings = load(f'llm: {{system_prompt: "{written}"}}', environ={"NAME": "wonder", "EMPTY": ""})
    assert settings.llm.system_prompt == read


def test_variables_fill_numbers_and_lists_too() -> None:
    text = 'server: {port: "${PORT:-8080}", trusted_proxies: ["${NET}", 10.0.0.1]}'
    settings = load(text, environ={"NET": "10.1.0.0/16"})
    assert settings.server.port == 8080
    assert settings.server.trusted_proxies == ("10.1.0.0/16", "10.0.0.1")


def test_text_from_the_environment_is_not_expanded_again() -> None:
    assert load(environ={"WUNDER_LLM__SYSTEM_PROMPT": "${HOME}"}).llm.system_prompt == "${HOME}"


def test_every_problem_is_in_one_report() -> None:
    text = """
        sever: {port: 1}
        server: {port: abc, hst: x, data_dir: "${NOPE}/x"}
        sessions: {lease_s: .inf, event_writer: {batch_size: 1.5, delta_overflow: drop}}
        tools: {http_allow_hosts: x, http_public: 1}
        security: everything
        port: 1
    """
    assert problems(
        text,
        {"server.prt": "1", "gateway.heartbeat_s": "x"},
        {"WUNDER_PORT": "1", "WUNDER_BOOTSTRAP_ADMIN_PASWORD": "x", "WUNDER_AUTH__LOGIN_BURST": "["},
    ) == [
        "WUNDER_BOOTSTRAP_ADMIN_PASWORD: there is no such setting; did you mean WUNDER_BOOTSTRAP_ADMIN_PASSWORD?",
        "WUNDER_PORT: there is no such setting; did you mean WUNDER_SERVER__PORT?",
        "server.prt: there is no such setting; did you mean server.port?  [option]",
        "sever: there is no such setting; did you mean server?  [given.yaml]",
        "server.port: expected a whole number, at least 0, at most 65535, got 'abc'  [given.yaml]",
        "server.hst: there is no such setting; did you mean server.host?  [given.yaml]",
        "server.data_dir: names the environment variable NOPE, which is not set  [given.yaml]",
        "sessions.lease_s: expected a number, above 0, at most 86400, got inf (a number)  [given.yaml]",
        "sessions.event_writer.batch_size: expected a whole number, at least 1, got 1.5 (a number)  [given.yaml]",
        'sessions.event_writer.delta_overflow: expected one of "block_with_timeout", "drop_latest", '
        "\"drop_oldest\", got 'drop'  [given.yaml]",
        "tools.http_allow_hosts: expected a list, each text, such as [a, b], got 'x'  [given.yaml]",
        "tools.http_public: expected true or false, got 1 (a whole number)  [given.yaml]",
        "security: expected a section with settings in it, got a single value  [given.yaml]",
        "port: there is no such setting; did you mean server.port?  [given.yaml]",
        "auth.login_burst: expected a whole number, at least 1, got unreadable YAML"
        "  [environment variable WUNDER_AUTH__LOGIN_BURST]",
        "gateway.heartbeat_s: expected a number, above 0, at most 86400, got 'x'  [option]",
    ]


def test_a_misspelt_setting_of_an_entry_is_named_in_full() -> None:
    assert problems("llm: {models: {scripted: {timout_s: 3}}}") == [
        "llm.models.scripted.timout_s: there is no such setting; "
        "did you mean llm.models.scripted.timeout_s?  [given.yaml]"
    ]


@pytest.mark.parametrize(
    "variable", ["WUNDER_SERVER", "WUNDER_LLM__MODELS", "WUNDER_LLM__MODELS__X", "WUNDER_X__Y", "WUNDER_"]
)
def test_a_variable_that_names_no_single_setting_is_refused(variable: str) -> None:
    (line,) = problems(environ={variable: "1"})
    assert line.startswith(f"{variable}: there is no such setting")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("server: {port: 1", "is not YAML: expected ',' or '}', but got '<stream end>' (line 1, column 17)"),
        ("server: {port: 1}\nserver: {port: 2}", "is not YAML: the key 'server' is there twice (line 2"),
        ("- a\n- b", "expected sections with settings, got ['a', 'b'] (a list)"),
        ("api_key: !!python/object/apply:os.getcwd []", "is not YAML: could not determine a constructor"),
    ],
)
def test_a_file_that_is_no_settings_file(text: str, reason: str) -> None:
    (line,) = problems(text)
    assert line.startswith(f"given.yaml: {reason}")


def test_a_file_that_is_no_text() -> None:
    Path("given.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        load_settings("given.yaml", {}, {})


def test_options_become_overrides() -> None:
    found = option_overrides(["--server.port", "8080", "--llm.models.a-b.api_key=x=y", "--server.data-dir", ""])
    assert found == {"server.port": "8080", "llm.models.a-b.api_key": "x=y", "server.data_dir": ""}


@pytest.mark.parametrize("arguments", [["--server.port"], ["server.port", "1"], ["--port", "1"], ["--"]])
def test_options_that_cannot_be_read(arguments: list[str]) -> None:
    with pytest.raises(SettingsError, match=r"expected --section\.key VALUE"):
        option_overrides(arguments)
