"""Sign-in over HTTP, from the first registration to a changed password."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import argon2
import msgspec
import pytest

from gateway.credentials import hash_secret
from gateway.errors import RateLimited
from storage.records import UserId, UserRecord
from tests.support.edge import PASSWORD, Edge, Gate, edge_settings, running_edge
from tests.support.manual_clock import ManualClock
from tests.support.users import MemoryUsers

API_KEY = "k-0123456789abcdef"


async def test_register_login_me_logout(edge: Edge) -> None:
    body = {"username": "Ada", "password": PASSWORD, "email": "ada@example.org"}
    status, answer = await edge.call("POST", "/wunder/auth/register", body)
    assert (status, answer["ok"]) == (200, True)
    assert set(answer["data"]) == {"access_token", "expires_at", "user"}
    assert answer["data"]["expires_at"] == "2026-01-31T00:00:00.000Z"

    status, answer = await edge.login("ada")  # case does not count
    token = answer["data"]["access_token"]
    assert status == 200
    assert token.startswith("wund_")

    status, answer = await edge.call("GET", "/wunder/auth/me", token=token)
    assert answer["data"] == {
        "user_id": answer["data"]["user_id"],
        "username": "Ada",
        "email": "ada@example.org",
        "is_admin": False,
        "created_at": "2026-01-01T00:00:00.000Z",
    }
    assert (await edge.call("POST", "/wunder/auth/logout", token=token))[0] == 200
    status, answer = await edge.call("GET", "/wunder/auth/me", token=token)
    assert (status, answer["error"]["code"]) == (401, "AUTH_REQUIRED")


async def test_each_sign_in_is_another_token(edge: Edge) -> None:
    first = await edge.register("ada")
    _, answer = await edge.login("ada")
    assert answer["data"]["access_token"] != first


async def test_a_token_ends_with_its_time(edge: Edge) -> None:
    token = await edge.register("ada")
    assert (await edge.call("GET", "/whoami", token=token))[0] == 200
    edge.clock.advance(edge.settings.auth.token_ttl_s)
    assert (await edge.call("GET", "/whoami", token=token))[0] == 401


async def test_profile_email_can_be_changed_and_removed(edge: Edge) -> None:
    token = await edge.register("ada")
    for sent, shown in [("a@b.example", "a@b.example"), (None, "a@b.example"), ("", None)]:
        _, answer = await edge.call("PATCH", "/wunder/auth/me", {"email": sent}, token=token)
        assert answer["data"]["email"] == shown
    status, answer = await edge.call("PATCH", "/wunder/auth/me", {"email": "nonsense"}, token=token)
    assert (status, answer["error"]["field"]) == (400, "email")


async def test_an_api_key_has_a_profile_but_no_account(edge: Edge) -> None:
    headers = {"X-API-Key": API_KEY}
    _, answer = await edge.call("GET", "/wunder/auth/me", headers=headers)
    assert answer["data"]["is_admin"] is True
    for path in ("logout", "ticket"):
        status, _ = await edge.call("POST", f"/wunder/auth/{path}", headers=headers)
        assert status == 403
    change = {"current_password": "x", "new_password": PASSWORD}
    assert (await edge.call("POST", "/wunder/auth/password", change, headers=headers))[0] == 403


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"username": "ada"}, "password"),
        ({"password": PASSWORD}, "username"),
        ({"username": 7, "password": PASSWORD}, "username"),
        ({"username": "", "password": PASSWORD}, "username"),
        ({"username": "with space", "password": PASSWORD}, "username"),
        ({"username": "ѕріtе", "password": PASSWORD}, "username"),
        ({"username": "x" * 65, "password": PASSWORD}, "username"),
        ({"username": "Admin", "password": PASSWORD}, "username"),
        ({"username": "ada", "password": "short"}, "password"),
        ({"username": "ada", "password": "x7" * 65}, "password"),
        ({"username": "ada", "password": "P@ssw0rd123!"}, "password"),
        ({"username": "ada.lovelace", "password": "ADA.lovelace"}, "password"),
        ({"username": "ada", "password": PASSWORD, "email": "@"}, "email"),
    ],
)
async def test_registration_names_the_field_that_is_wrong(edge: Edge, body: dict[str, Any], field: str) -> None:
    status, answer = await edge.call("POST", "/wunder/auth/register", body)
    assert (status, answer["error"]["code"], answer["error"]["field"]) == (400, "INVALID_REQUEST", field)
    assert field in answer["error"]["message"]


async def test_a_taken_name_is_a_conflict_whatever_its_case(edge: Edge) -> None:
    await edge.register("ada")
    body = {"username": "ADA", "password": PASSWORD}
    status, answer = await edge.call("POST", "/wunder/auth/register", body)
    assert (status, answer["error"]["code"], answer["error"]["field"]) == (409, "CONFLICT", "username")


async def test_closed_registration_is_refused_before_any_hashing(users: MemoryUsers, clock: ManualClock) -> None:
    async with running_edge(users, edge_settings(), clock, registration_open=False) as edge:
        body = {"username": "ada", "password": PASSWORD}
        status, answer = await edge.call("POST", "/wunder/auth/register", body)
        assert (status, answer["error"]["code"]) == (403, "PERMISSION_DENIED")
        assert users.reads == 0


async def test_unknown_name_and_wrong_password_answer_and_work_alike(edge: Edge) -> None:
    await edge.register("ada")
    answers = []
    for username in ("ada", "nobody", "ad\0a", "no such name!"):
        edge.hasher.verified.clear()
        status, answer = await edge.login(username, "not the password")
        error = answer["error"] | {"trace_id": ""}
        answers.append((status, error, list(edge.hasher.verified)))
    assert answers == [answers[0]] * 4
    assert answers[0][0] == 401
    assert answers[0][2] == ["m=8,t=1,p=1"]


async def test_the_throttle_answers_alike_for_names_that_do_not_exist(edge: Edge) -> None:
    await edge.register("ada", network="198.51.100.1")
    seen = []
    for username in ("ada", "nobody"):
        statuses = [(await edge.login(username, "not the password", network="192.0.2.7"))[0] for _ in range(12)]
        seen.append(statuses)
    assert seen[0] == seen[1]
    assert seen[0][0] == 401
    assert seen[0][-1] == 429


async def test_a_flood_on_one_account_does_not_lock_its_owner_out(edge: Edge) -> None:
    """100 tries a second for ten minutes from 50 networks; the owner signs in at the first try."""
    await edge.register("ada", network="198.51.100.1")
    edge.hasher.verified.clear()
    for second in range(600):
        for guess in range(100):
            attacker = f"203.0.113.{guess % 50}"
            if second < 2:
                await edge.login("ada", "guess", network=attacker)
            else:
                _count_only(edge, attacker)
        edge.clock.advance(1)
    for elsewhere in ("192.0.2.9", "198.51.100.1", "2001:db8::1"):
        status, answer = await edge.login("ada", network=elsewhere)
        assert status == 200, answer


def _count_only(edge: Edge, network: str) -> None:
    """An attempt with a wrong password, as far as the throttle goes."""
    try:
        edge.throttle.begin("ada", network)
    except RateLimited:
        return


async def test_password_change_ends_the_other_tokens_only(edge: Edge) -> None:
    first = await edge.register("ada")
    _, answer = await edge.login("ada")
    second = answer["data"]["access_token"]
    ended: list[str] = []
    edge.auth.on_token_ended(ended.append)
    body = {"current_password": PASSWORD, "new_password": "another quiet lamp"}
    status, answer = await edge.call("POST", "/wunder/auth/password", body, token=first)
    assert (status, answer["data"]) == (200, {"changed": True, "ended_tokens": 1})
    assert ended == [hash_secret(second)]
    assert (await edge.call("GET", "/whoami", token=first))[0] == 200
    assert (await edge.call("GET", "/whoami", token=second))[0] == 401
    assert (await edge.login("ada"))[0] == 401
    assert (await edge.login("ada", "another quiet lamp"))[0] == 200


@pytest.mark.parametrize(
    ("current", "new", "status", "field"),
    [
        ("wrong", "another quiet lamp", 403, "current_password"),
        (PASSWORD, "short", 400, "new_password"),
        (PASSWORD, "password123", 400, "new_password"),
        (PASSWORD, "AdaLovelace", 400, "new_password"),
    ],
)
async def test_password_change_is_refused(edge: Edge, current: str, new: str, status: int, field: str) -> None:
    token = await edge.register("adalovelace")
    body = {"current_password": current, "new_password": new}
    got, answer = await edge.call("POST", "/wunder/auth/password", body, token=token)
    assert (got, answer["error"]["field"]) == (status, field)
    assert (await edge.login("adalovelace"))[0] == 200


async def test_a_stolen_token_cannot_guess_the_password_without_end(edge: Edge) -> None:
    token = await edge.register("ada")
    body = {"current_password": "guess", "new_password": "another quiet lamp"}
    statuses = {(await edge.call("POST", "/wunder/auth/password", body, token=token))[0] for _ in range(15)}
    assert statuses == {403, 429}


async def test_an_old_hash_is_raised_at_sign_in(edge: Edge) -> None:
    old = argon2.PasswordHasher(time_cost=1, memory_cost=16, parallelism=1).hash(PASSWORD)
    user = UserRecord(user_id=UserId("u1"), username="ada", password_hash=old, created_us=1)
    await edge.store.create_user(user)
    assert (await edge.login("ada"))[0] == 200
    stored = await edge.store.get_user(UserId("u1"))
    assert stored is not None
    assert "m=8,t=1,p=1" in stored.password_hash
    assert (await edge.login("ada"))[0] == 200


class _ChangedBetween(MemoryUsers):
    """The password changes right after the old one was checked."""

    new_hash = ""

    async def put_token(self, token: Any) -> None:
        await super().put_token(token)
        if self.new_hash:
            await self.update_user(token.user_id, password_hash=self.new_hash)


async def test_a_sign_in_that_races_with_a_password_change_leaves_no_token(clock: ManualClock) -> None:
    users = _ChangedBetween()
    async with running_edge(users, edge_settings(), clock) as edge:
        await edge.register("ada")
        before = set(users.tokens)
        users.new_hash = await edge.hasher.hash("another quiet lamp")
        assert (await edge.login("ada"))[0] == 401
        assert set(users.tokens) == before


@pytest.fixture
async def narrow(users: MemoryUsers, clock: ManualClock) -> AsyncIterator[Edge]:
    settings = edge_settings(auth={"hash_workers": 1, "hash_queue": 1})
    async with running_edge(users, settings, clock) as running:
        yield running


async def test_a_full_hashing_queue_answers_503_and_is_no_failure(narrow: Edge) -> None:
    await narrow.register("ada")
    gate = narrow.hasher.gate = Gate()
    await narrow.hasher.submitted.get()
    waiting = [asyncio.create_task(narrow.login("ada", network=f"192.0.2.{n}")) for n in range(2)]
    for _ in waiting:
        await narrow.hasher.submitted.get()
    response = await narrow.client.post(
        "/wunder/auth/login", data=msgspec.json.encode({"username": "ada", "password": PASSWORD})
    )
    assert response.status == 503
    assert int(response.headers["Retry-After"]) >= 1
    assert (await response.json())["error"]["code"] == "SERVICE_UNAVAILABLE"
    gate.open()
    assert [status for status, _ in await asyncio.gather(*waiting)] == [200, 200]
    assert (await narrow.login("ada"))[0] == 200


async def test_the_store_holds_nothing_that_signs_in(clock: ManualClock, users: MemoryUsers) -> None:
    async with running_edge(users, edge_settings(), clock) as edge:
        token = await edge.register("ada")
        _, answer = await edge.call("POST", "/wunder/auth/ticket", token=token)
        dump = repr((users.users, users.tokens, users.tickets))
        for secret in (token, answer["data"]["ticket"], PASSWORD):
            assert secret not in dump
        for stored in [*users.tokens, *users.tickets]:
            assert (await edge.call("GET", "/whoami", token=stored))[0] == 401
            assert (await edge.call("GET", f"/whoami?ticket={stored}"))[0] == 401
            assert (await edge.call("GET", "/whoami", token=f"wund_{stored[:43]}"))[0] == 401


async def test_a_ticket_works_once_within_its_time_and_on_get_only(edge: Edge) -> None:
    token = await edge.register("ada")

    async def ticket() -> str:
        _, answer = await edge.call("POST", "/wunder/auth/ticket", token=token)
        return str(answer["data"]["ticket"])

    once = await ticket()
    status, answer = await edge.call("GET", f"/whoami?ticket={once}")
    assert (status, answer["data"]["via"]) == (200, "ticket")
    assert (await edge.call("GET", f"/whoami?ticket={once}"))[0] == 401
    assert (await edge.call("POST", f"/whoami?ticket={await ticket()}"))[0] == 401
    late = await ticket()
    edge.clock.advance(30)
    assert (await edge.call("GET", f"/whoami?ticket={late}"))[0] == 401
    orphan = await ticket()
    await edge.call("POST", "/wunder/auth/logout", token=token)
    assert (await edge.call("GET", f"/whoami?ticket={orphan}"))[0] == 401


async def test_of_concurrent_uses_of_a_ticket_one_wins(edge: Edge) -> None:
    token = await edge.register("ada")
    _, answer = await edge.call("POST", "/wunder/auth/ticket", token=token)
    path = f"/whoami?ticket={answer['data']['ticket']}"
    statuses = [status for status, _ in await asyncio.gather(*(edge.call("GET", path) for _ in range(8)))]
    assert sorted(statuses) == [200] + [401] * 7


async def test_while_the_store_is_down_no_attempt_counts(clock: ManualClock, users: MemoryUsers) -> None:
    async with running_edge(users, edge_settings(auth={"login_rate_per_minute": 6000}), clock) as edge:
        await edge.register("ada")
        users.down = True
        for _ in range(30):
            status, answer = await edge.login("ada")
            assert (status, answer["error"]["code"]) == (503, "SERVICE_UNAVAILABLE")
            clock.advance(0.5)
        users.down = False
        assert (await edge.login("ada"))[0] == 200
