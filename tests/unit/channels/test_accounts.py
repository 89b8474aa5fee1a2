"""Accounts: what they need, how they are stored and shown, and who hides whom."""

from __future__ import annotations

import base64

import msgspec
import pytest

from actors.channels.account_book import AccountBook, masked, opened, sealed
from actors.channels.accounts import MASK, NEEDED, SECRETS, problems
from actors.channels.settings import ChannelAccountSettings, ChannelsSettings
from actors.errors import InvalidRequest, StorageUnavailable
from actors.secrets import SecretBox
from storage.channel_records import ChannelAccountRecord
from tests.support.channel_requests import ACCOUNTS
from tests.support.manual_clock import ManualClock

KEY = base64.urlsafe_b64encode(b"k" * 32).decode()
OTHER = base64.urlsafe_b64encode(b"o" * 32).decode()


class Store:
    """Accounts in memory; `away` makes it fail."""

    def __init__(self) -> None:
        self.records: list[ChannelAccountRecord] = []
        self.away = False
        self.asked = 0

    async def list_channel_accounts(self) -> list[ChannelAccountRecord]:
        self.asked += 1
        if self.away:
            raise StorageUnavailable("away")
        return self.records


@pytest.mark.parametrize("name", sorted(ACCOUNTS))
def test_an_account_is_stored_without_a_readable_secret(name: str) -> None:
    settings, box = ACCOUNTS[name], SecretBox((KEY,))
    record = sealed("team", settings, box, 5)
    assert opened(record, box) == settings
    stored = record.settings.decode() + (record.secrets or "") + repr(masked(settings))
    for secret in SECRETS:
        if value := getattr(settings, secret):
            assert value not in stored
            assert masked(settings)[secret] == MASK


def test_without_a_key_no_secret_is_stored() -> None:
    with pytest.raises(InvalidRequest):
        sealed("team", ACCOUNTS["slack"], SecretBox(()), 5)


@pytest.mark.parametrize("name", sorted(ACCOUNTS))
def test_what_an_account_needs(name: str) -> None:
    assert list(problems(ACCOUNTS[name])) == []
    for setting in NEEDED[ACCOUNTS[name].channel]:
        missing = msgspec.structs.replace(ACCOUNTS[name], **{setting: ""})
        assert [found for found, _ in problems(missing)] == [setting]


def test_what_an_account_may_not_say() -> None:
    slack = ACCOUNTS["slack"]
    for wrong, setting in (
        (msgspec.structs.replace(slack, bot_token=MASK), "bot_token"),
        (msgspec.structs.replace(slack, base_url="ftp://x"), "base_url"),
        (msgspec.structs.replace(ACCOUNTS["webhook"], signing_secret="short"), "signing_secret"),
        (msgspec.structs.replace(slack, smtp_tls="none", password="p"), "smtp_tls"),
    ):
        assert [found for found, _ in problems(wrong)] == [setting]


async def test_the_book() -> None:
    store, clock, box = Store(), ManualClock(), SecretBox((KEY,))
    settings = ChannelsSettings(accounts={"file": ACCOUNTS["slack"], "both": ACCOUNTS["telegram"]})
    book = AccountBook(settings, store, box, clock)
    store.records = [
        sealed("both", ACCOUNTS["feishu"], box, 1),
        sealed("api", ACCOUNTS["feishu"], box, 1),
        sealed("lost", ACCOUNTS["whatsapp"], SecretBox((OTHER,)), 1),
    ]
    assert sorted(await book.all()) == ["api", "both", "file"]
    both = await book.account("both")
    assert both is not None
    assert both.settings.channel == "telegram"
    only = await book.only_of("feishu")
    assert only is not None
    assert only.name == "api"
    assert await book.only_of("whatsapp") is None
    assert store.asked == 1
    store.records = []
    store.away = True
    clock.advance(settings.accounts_cache_s)
    assert sorted(await book.all()) == ["api", "both", "file"]  # while the database is away, what was known
    store.away = False
    book.forget()
    assert sorted(await book.all()) == ["both", "file"]


async def test_accounts_of_the_file_need_no_database() -> None:
    store = Store()
    store.away = True
    book = AccountBook(
        ChannelsSettings(accounts={"file": ChannelAccountSettings()}), store, SecretBox(()), ManualClock()
    )
    assert await book.account("file") is not None
    with pytest.raises(StorageUnavailable):
        await book.account("other")
