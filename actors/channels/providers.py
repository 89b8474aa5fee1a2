"""Every way out, over two guarded clients: one reaches the providers only, one the URLs of webhook accounts."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from actors.channels.accounts import Account
from actors.channels.base import Outcome
from actors.channels.email import EmailChannel
from actors.channels.feishu import FeishuChannel
from actors.channels.outgoing import Accounts
from actors.channels.sender import ApiChannel
from actors.channels.settings import ChannelsSettings
from actors.channels.slack import SlackChannel
from actors.channels.standard_webhook import CallbackChannel
from actors.channels.telegram import TelegramChannel
from actors.channels.whatsapp import WhatsAppChannel
from actors.clock import Clock
from actors.tools.egress import EgressPolicy, GuardedClient
from actors.tools.lookups import LookupResolver, SharedLookups

HOSTS = ("slack.com", "api.telegram.org", "open.feishu.cn", "open.larksuite.com", "graph.facebook.com")
"""Where the providers' APIs are; others are named in `channels.allow_hosts`."""
_SMTP_PORTS = (25, 465, 587, 2525)
_LOOKUPS = 4
_MAX_ANSWER_BYTES = 262_144


class Providers:
    """The ways out by their names in the outbox."""

    def __init__(self, settings: ChannelsSettings, accounts: Accounts, clock: Clock) -> None:
        hosts, most = settings.allow_hosts, settings.outbox.max_in_flight

        def client(policy: EgressPolicy) -> GuardedClient:
            return GuardedClient(
                policy,
                timeout_s=settings.timeout_s,
                max_bytes=_MAX_ANSWER_BYTES,
                max_redirects=0,
                max_connections=most,
                resolver=_lookups(most),
            )

        known, public = client(EgressPolicy((*HOSTS, *hosts), public=False)), client(EgressPolicy(hosts))
        ports = tuple(f"mail.invalid:{port}" for port in _SMTP_PORTS)  # public addresses, also at these ports
        mail = EgressPolicy((*hosts, *ports))
        channels: tuple[ApiChannel | EmailChannel, ...] = (
            SlackChannel(accounts, known),
            TelegramChannel(accounts, known),
            FeishuChannel(accounts, known, clock),
            WhatsAppChannel(accounts, known),
            CallbackChannel(accounts, public, clock),
            EmailChannel(accounts, mail, timeout_s=settings.timeout_s, resolver=_lookups(most)),
        )
        self.channels: Mapping[str, ApiChannel | EmailChannel] = MappingProxyType({one.name: one for one in channels})
        self._by_channel = {getattr(one, "channel", "") or one.name: one for one in channels}

    async def check(self, account: Account) -> Outcome:
        """Try an account with a call that has no effect (a webhook gets a request of type `test`)."""
        return await self._by_channel[account.settings.channel].check(account.settings)

    async def close(self) -> None:
        for channel in self.channels.values():
            await channel.close()


def _lookups(most: int) -> SharedLookups:
    """Each name is looked up once at a time: what is sent at once goes to few hosts."""
    return SharedLookups(LookupResolver(threads=_LOOKUPS, max_waiting=most))
