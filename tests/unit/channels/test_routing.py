"""Which agent, session and user a message belongs to, and what a command is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from actors.channels.accounts import Account
from actors.channels.inbound import Inbound
from actors.channels.routing import command_of, pace, route
from actors.channels.settings import ChannelAccountSettings, ChannelBindingSettings
from storage.channel_records import ChannelPace

MESSAGE = Inbound(message_id="m", peer="C1", peer_kind="group", sender="U1", text="hi", thread="17.1")


def account(**fields: Any) -> Account:
    return Account(name="team", settings=ChannelAccountSettings(channel="slack", **fields), from_file=True)


def binding(**fields: Any) -> ChannelBindingSettings:
    return ChannelBindingSettings(**fields)


def test_the_binding_that_says_most_counts() -> None:
    bindings = {
        "everything": binding(agent="everything"),
        "channel": binding(channel="slack", agent="channel"),
        "account": binding(account="team", agent="account"),
        "both": binding(channel="slack", account="team", agent="both"),
        "kind": binding(peer_kind="group", agent="kind"),
        "peer": binding(peer="C1", agent="peer"),
        "other-peer": binding(peer="C2", channel="slack", account="team", agent="other"),
    }
    for expected in ("peer", "kind", "both", "account", "channel", "everything"):
        assert route(account(agent="own"), bindings.items(), MESSAGE).agent == expected
        del bindings[expected]
    assert route(account(agent="own"), bindings.items(), MESSAGE).agent == "own"


def test_of_two_that_say_as_much_the_first_by_name_counts() -> None:
    bindings = [("b", binding(peer="C1", agent="second")), ("a", binding(peer="C1", agent="first"))]
    assert route(account(), bindings, MESSAGE).agent == "first"


@pytest.mark.parametrize(("strategy", "key"), [("per_peer", "C1"), ("thread", "C1/17.1"), ("main", "")])
def test_sessions(strategy: Any, key: str) -> None:
    assert route(account(session=strategy), (), MESSAGE).chat.peer_key == key
    bound = [("a", binding(session=strategy))]
    assert route(account(), bound, MESSAGE).chat.peer_key == key


def test_a_thread_that_is_none_is_the_chat() -> None:
    message = msgspec.structs.replace(MESSAGE, thread=None)
    assert route(account(session="thread"), (), message).chat.peer_key == "C1"


def test_each_chat_is_a_user_of_its_own() -> None:
    first = route(account(), (), MESSAGE).user_id
    other = route(account(), (), msgspec.structs.replace(MESSAGE, peer="C2")).user_id
    assert first != other
    assert first.startswith("channel:team:")
    assert route(account(session="main"), (), MESSAGE).user_id == "channel:team"
    assert route(account(user_id="ada"), (), MESSAGE).user_id == "ada"


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/new", "new"), ("/STOP", "stop"), ("!help", "help"), ("/new@my_bot", "new"),
        ("/new please", None), ("new", None), ("/other", None), ("/", None), ("", None),
    ],
)  # fmt: skip
def test_commands(text: str, command: str | None) -> None:
    assert command_of(msgspec.structs.replace(MESSAGE, text=text)) == command


def test_paces() -> None:
    assert pace(account().settings) == ChannelPace()
    assert pace(account(messages_per_minute=60.0).settings) == ChannelPace(interval_us=1_000_000, burst_us=9_000_000)
    assert pace(account(messages_per_minute=1.0, max_active=3).settings) == ChannelPace(
        interval_us=60_000_000, burst_us=0, max_active=3
    )
