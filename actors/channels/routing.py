"""Pure decisions about a message: which agent answers it, in which session, for whom, and whether it is a command."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

from actors.channels.accounts import Account
from actors.channels.inbound import Inbound
from actors.channels.settings import ChannelAccountSettings, ChannelBindingSettings, ChannelName, SessionStrategy
from storage.channel_records import ChannelCommand, ChannelPace, ChatKey
from storage.records import UserId

_COMMANDS: dict[str, ChannelCommand] = {"new": "new", "stop": "stop", "help": "help"}
_BURST_S = 10


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Where a message goes; `agent` is empty for none in particular."""

    chat: ChatKey
    user_id: UserId
    agent: str


def route(account: Account, bindings: Iterable[tuple[str, ChannelBindingSettings]], message: Inbound) -> Route:
    """The binding that says most about the message decides, then the account."""
    settings = account.settings
    found = best_binding(settings.channel, account.name, bindings, message)
    strategy: SessionStrategy = (found.session if found else "") or settings.session
    return Route(
        chat=ChatKey(channel=settings.channel, account=account.name, peer_key=peer_key(strategy, message)),
        user_id=UserId(settings.user_id or _own_user(account.name, strategy, message)),
        agent=(found.agent if found else "") or settings.agent,
    )


def best_binding(
    channel: ChannelName, account: str, bindings: Iterable[tuple[str, ChannelBindingSettings]], message: Inbound
) -> ChannelBindingSettings | None:
    """The most specific one that fits: a peer counts more than its kind, that more than an account, that more than a
    channel; of two that say as much, the first by name."""
    given = {"peer": message.peer, "peer_kind": message.peer_kind, "account": account, "channel": channel}
    weights = {"peer": 8, "peer_kind": 4, "account": 2, "channel": 1}
    best, most = None, -1
    for _, binding in sorted(bindings, key=lambda entry: entry[0]):
        said = {name: getattr(binding, name) for name in weights if getattr(binding, name)}
        weight = sum(weights[name] for name in said)
        if weight > most and all(given[name] == value for name, value in said.items()):
            best, most = binding, weight
    return best


def peer_key(strategy: SessionStrategy, message: Inbound) -> str:
    """What has a session of its own."""
    if strategy == "main":
        return ""
    if strategy == "thread" and message.thread is not None:
        return f"{message.peer}/{message.thread}"
    return message.peer


def pace(settings: ChannelAccountSettings) -> ChannelPace:
    """The account's limits; what 10 s of the rate bring may come at once."""
    if not settings.messages_per_minute:
        return ChannelPace(max_active=settings.max_active)
    interval_us = max(1, round(60e6 / settings.messages_per_minute))
    ahead = max(0, int(settings.messages_per_minute * _BURST_S / 60) - 1)
    return ChannelPace(interval_us=interval_us, burst_us=ahead * interval_us, max_active=settings.max_active)


def command_of(message: Inbound) -> ChannelCommand | None:
    """`/new`, `/stop` or `/help` alone, also as `!new` (Slack keeps slashes to itself) or `/new@bot`."""
    text = message.text.lower()
    if text[:1] not in ("/", "!") or len(text) > 64:
        return None
    return _COMMANDS.get(text[1:].partition("@")[0])


def _own_user(account: str, strategy: SessionStrategy, message: Inbound) -> str:
    """A chat is a user of its own: chats take turns in the queue, and one cannot use up another's share."""
    if strategy == "main":
        return f"channel:{account}"
    return f"channel:{account}:{hashlib.sha256(message.peer.encode()).hexdigest()[:16]}"
