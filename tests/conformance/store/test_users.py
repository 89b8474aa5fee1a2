"""Users, access tokens and tickets."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from storage.errors import Conflict, StorageUnavailable
from storage.records import TicketRecord, UserId
from storage.store import AsyncStorageBackend
from tests.conformance.store import make

Stores = tuple[AsyncStorageBackend, AsyncStorageBackend]


def ticket(ticket_hash: str) -> TicketRecord:
    return TicketRecord(ticket_hash=ticket_hash, user_id=make.USER, token_hash="token", expires_us=50)


async def test_a_user_is_found_whatever_the_case(store: AsyncStorageBackend) -> None:
    ada = make.user(username="Straße", email="ada@example.org", is_admin=True)
    await store.create_user(ada)
    assert await store.find_user("STRASSE") == ada
    assert await store.get_user(make.USER) == ada
    assert await store.find_user("nobody") is None


async def test_a_username_is_taken_whatever_the_case(store: AsyncStorageBackend) -> None:
    await store.create_user(make.user())
    with pytest.raises(Conflict) as refused:
        await store.create_user(make.user("u2", "ADA"))
    assert refused.value.field == "username"
    await store.create_user(make.user())  # the very same again is a repetition


async def test_there_is_one_first_admin(store: AsyncStorageBackend) -> None:
    assert not await store.has_admin()
    first, second = make.user(is_admin=True), make.user("u2", "Grace", is_admin=True)
    assert await store.create_first_admin(first)
    assert await store.has_admin()
    assert not await store.create_first_admin(second)
    assert await store.create_first_admin(first)
    assert await store.get_user(UserId("u2")) is None


async def test_concurrent_first_admins(two_stores: Stores) -> None:
    users = [make.user(f"u{n}", f"name{n}", is_admin=True) for n in range(6)]
    made = await asyncio.gather(*(two_stores[n % 2].create_first_admin(u) for n, u in enumerate(users)))
    assert made.count(True) == 1


async def test_update_changes_what_is_given(store: AsyncStorageBackend) -> None:
    await store.create_user(make.user(email="old"))
    changed = await store.update_user(make.USER, password_hash="new")
    assert changed == msgspec.structs.replace(make.user(email="old"), password_hash="new")
    changed = await store.update_user(make.USER, email="other")
    assert changed is not None
    assert (changed.email, changed.password_hash) == ("other", "new")
    assert await store.update_user(UserId("nobody"), email="x") is None


async def test_a_token_lives_until_it_expires(store: AsyncStorageBackend) -> None:
    await store.create_user(make.user())
    await store.put_token(make.token("a"))
    await store.put_token(make.token("a"))
    assert await store.find_token("a", 99) == (make.token("a"), make.user())
    assert await store.find_token("a", 100) is None
    assert await store.delete_token("a")
    assert not await store.delete_token("a")


async def test_a_changed_password_ends_the_other_tokens(store: AsyncStorageBackend) -> None:
    await store.create_user(make.user())
    await store.create_user(make.user("u2", "Grace"))
    for name in "abc":
        await store.put_token(make.token(name))
    await store.put_token(make.token("d", UserId("u2")))
    assert sorted(await store.change_password(make.USER, "new", keep="b") or ()) == ["a", "c"]
    changed = await store.get_user(make.USER)
    assert changed == msgspec.structs.replace(make.user(), password_hash="new")
    assert await store.change_password(make.USER, "newer", keep=None) == ["b"]
    assert await store.find_token("d", 1) is not None
    assert await store.change_password(UserId("nobody"), "x", keep=None) is None


async def test_a_password_and_its_tokens_change_together_or_not_at_all(
    store: AsyncStorageBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the two statements nothing can be left: a stolen token would outlive the old password."""
    await store.create_user(make.user())
    await store.put_token(make.token("stolen"))
    database = store._db  # type: ignore[attr-defined]
    transact = database.transact

    class Cut:
        """A transaction that is lost when the tokens' turn comes."""

        def __init__(self, tx: Any) -> None:
            self._tx = tx

        def __getattr__(self, name: str) -> Any:
            return getattr(self._tx, name)

        async def fetch(self, name: str, *args: Any) -> Any:
            raise StorageUnavailable("the connection was lost")

    async def cut(body: Any) -> Any:
        return await transact(lambda tx: body(Cut(tx)))

    monkeypatch.setattr(database, "transact", cut)
    with pytest.raises(StorageUnavailable):
        await store.change_password(make.USER, "new", keep=None)
    assert await store.get_user(make.USER) == make.user()
    assert await store.find_token("stolen", 1) is not None


async def test_a_ticket_is_taken_once_and_before_it_expires(store: AsyncStorageBackend) -> None:
    await store.create_user(make.user())
    await store.put_token(make.token("token"))
    await store.put_ticket(ticket("a"))
    assert await store.take_ticket("a", 50) is None
    assert await store.take_ticket("a", 49) == (ticket("a"), make.user())
    assert await store.take_ticket("a", 49) is None


async def test_of_concurrent_takers_one_gets_the_ticket(two_stores: Stores) -> None:
    await two_stores[0].create_user(make.user())
    await two_stores[0].put_token(make.token("token"))
    await two_stores[0].put_ticket(ticket("a"))
    taken = await asyncio.gather(*(two_stores[n % 2].take_ticket("a", 1) for n in range(8)))
    assert sum(answer is not None for answer in taken) == 1


async def test_a_tokens_tickets_end_with_it(store: AsyncStorageBackend) -> None:
    await store.create_user(make.user())
    await store.put_token(make.token("token"))
    await store.put_ticket(ticket("a"))
    await store.delete_token("token")
    assert await store.take_ticket("a", 1) is None
    with pytest.raises(Conflict):
        await store.put_ticket(ticket("b"))


async def test_expired_credentials_are_removed(store: AsyncStorageBackend) -> None:
    await store.create_user(make.user())
    await store.put_token(make.token("token"))
    await store.put_token(make.token("old", expires_us=20))
    await store.put_ticket(ticket("a"))
    assert await store.delete_expired_credentials(50) == 2
    assert await store.delete_expired_credentials(50) == 0
    assert await store.find_token("token", 50) is not None
