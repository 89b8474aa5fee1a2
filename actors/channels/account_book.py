"""Finds accounts: those of the settings file, and those kept by the API, read again when they are a few seconds old."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

import msgspec

from actors.channels.accounts import MASK, SECRETS, Account
from actors.channels.settings import ChannelAccountSettings, ChannelsSettings
from actors.clock import Clock
from actors.errors import InvalidRequest, StorageUnavailable, WunderError
from actors.logs import log
from actors.secrets import SecretBox
from storage.channel_records import ChannelAccountRecord


class AccountStorage(Protocol):
    """What the book asks of the store."""

    async def list_channel_accounts(self) -> list[ChannelAccountRecord]: ...


class AccountBook:
    """Accounts by name; one of the file hides one of the API that has its name."""

    def __init__(self, settings: ChannelsSettings, store: AccountStorage, box: SecretBox, clock: Clock) -> None:
        self._from_file = {
            name: Account(name=name, settings=account, from_file=True) for name, account in settings.accounts.items()
        }
        self._keep_s = settings.accounts_cache_s
        self._store = store
        self._box = box
        self._clock = clock
        self._found: Mapping[str, Account] = {}
        self._read_s = float("-inf")
        self._lock = asyncio.Lock()

    async def account(self, name: str) -> Account | None:
        """The account of that name."""
        return self._from_file.get(name) or (await self.all()).get(name)

    async def only_of(self, channel: str) -> Account | None:
        """The channel's account, if there is exactly one."""
        found = [account for account in (await self.all()).values() if account.settings.channel == channel]
        return found[0] if len(found) == 1 else None

    async def all(self) -> Mapping[str, Account]:
        """Every account. While the database does not answer, those that were known."""
        async with self._lock:
            if self._clock.monotonic_s() - self._read_s >= self._keep_s:
                try:
                    await self._read()
                except StorageUnavailable:
                    if self._read_s == float("-inf"):
                        raise
            return self._found

    def forget(self) -> None:
        """Read again at the next question."""
        self._read_s = min(self._read_s, self._clock.monotonic_s() - self._keep_s)

    async def _read(self) -> None:
        kept = {}
        for record in await self._store.list_channel_accounts():
            try:
                kept[record.name] = Account(name=record.name, settings=opened(record, self._box), from_file=False)
            except WunderError as error:
                log.warning("channel_account_unreadable", account=record.name, message=error.message)
        self._found = {**kept, **self._from_file}
        self._read_s = self._clock.monotonic_s()


def opened(record: ChannelAccountRecord, box: SecretBox) -> ChannelAccountSettings:
    """A stored account with its secrets."""
    values = msgspec.json.decode(record.settings, type=dict[str, object])
    if record.secrets is not None:
        values |= msgspec.json.decode(box.open(record.secrets), type=dict[str, str])
    try:
        return msgspec.convert(values, ChannelAccountSettings)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"a stored account is of another version: {error}") from None


def sealed(name: str, settings: ChannelAccountSettings, box: SecretBox, now_us: int) -> ChannelAccountRecord:
    """An account as it is stored; `InvalidRequest` without a key to seal with."""
    values = msgspec.to_builtins(settings)
    secrets = {key: values.pop(key) for key in sorted(SECRETS)}
    given = {key: value for key, value in secrets.items() if value}
    return ChannelAccountRecord(
        name=name,
        channel=settings.channel,
        settings=msgspec.json.encode(values),
        secrets=box.seal(msgspec.json.encode(given).decode(), field=next(iter(given))) if given else None,
        created_us=now_us,
        updated_us=now_us,
    )


def masked(settings: ChannelAccountSettings) -> dict[str, object]:
    """An account as it may be shown."""
    values: dict[str, object] = msgspec.to_builtins(settings)
    return {key: MASK if key in SECRETS and value else value for key, value in values.items()}
