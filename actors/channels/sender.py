"""`ApiChannel`: the part of a way out that all providers share; each says how one text is sent, and how it is tried."""

from __future__ import annotations

from abc import ABC, abstractmethod

from actors.channels.base import Delivery, Outcome, Refused
from actors.channels.outgoing import NO_ACCOUNT, Accounts, Outgoing, outgoing
from actors.channels.settings import ChannelAccountSettings
from actors.tools.egress import GuardedClient


class ApiChannel(ABC):
    """A `Channel` over a provider's HTTP API."""

    name: str
    channel = ""
    """The accounts' channel, where it is not the name."""
    base_url = ""

    def __init__(self, accounts: Accounts, client: GuardedClient) -> None:
        self._accounts = accounts
        self._client = client

    async def send(self, delivery: Delivery) -> Outcome:
        account = await self._accounts.account(delivery.account)
        if account is None or not account.settings.enabled or account.settings.channel != (self.channel or self.name):
            return NO_ACCOUNT
        body = outgoing(delivery)
        return body if isinstance(body, Refused) else await self.deliver(account.settings, delivery, body)

    async def close(self) -> None:
        """Closes the client, which others may share: they end together."""
        await self._client.close()

    @abstractmethod
    async def deliver(self, account: ChannelAccountSettings, delivery: Delivery, body: Outgoing) -> Outcome:
        """Send one text."""

    @abstractmethod
    async def check(self, account: ChannelAccountSettings) -> Outcome:
        """A call without an effect that shows whether the account's credentials are good."""

    def url(self, account: ChannelAccountSettings, path: str) -> str:
        return f"{(account.base_url or self.base_url).rstrip('/')}/{path}"
