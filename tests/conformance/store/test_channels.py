"""Messages of providers: recorded once with their task, whoever brings them how often; on every database."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from storage.channel_records import (
    Admission,
    ChannelAccepted,
    ChannelAccountRecord,
    ChannelMessage,
    ChannelPace,
    ChatKey,
    ChatState,
    MakeTask,
)
from storage.outbox_records import NewOutboxItem, OutboxFilter
from storage.records import NewTask, SessionId, TurnId, UserId
from storage.store import AsyncStorageBackend
from tests.conformance.store import make

NOW_US = 1_000_000_000_000
NO_LIMIT = ChannelPace()


def message(message_id: str = "m1", turn: str = "t1", session: str = "s-new", **fields: str) -> ChannelMessage:
    values = {"channel": "slack", "account": "team", "peer_key": "D1", **fields}
    return ChannelMessage(
        chat=ChatKey(channel=values["channel"], account=values["account"], peer_key=values["peer_key"]),
        message_id=message_id,
        turn_id=TurnId(turn),
        session_id=SessionId(session),
        user_id=UserId(values.get("user", "u1")),
        received_us=NOW_US,
    )


def maker(given: ChannelMessage) -> MakeTask:
    def task(admission: Admission) -> NewTask:
        made = make.task(
            given.turn_id,
            "queued",
            session_id=admission.session_id,
            user_id=given.user_id,
            origin="task",
            attempt=0,
            run_at_us=admission.run_at_us,
            priority=-50 if admission.gives_way else 0,
        )
        session = make.session(admission.session_id, given.user_id)
        return NewTask(task=made, session=session, event=b'{"position":1}')

    return task


async def accept(
    store: AsyncStorageBackend, given: ChannelMessage, pace: ChannelPace = NO_LIMIT, now_us: int = NOW_US
) -> ChannelAccepted:
    return await store.accept_channel_message(given, pace, maker(given), now_us=now_us)


def silent(state: ChatState) -> list[NewOutboxItem]:
    return []


async def accepted(store: AsyncStorageBackend, turn: str, pace: ChannelPace, **fields: str) -> tuple[int | None, int]:
    """When the task of a new message may start, and its priority."""
    found = await accept(store, message(f"m-{turn}", turn, f"s-{turn}", **fields), pace)
    assert found.enqueued is not None
    assert found.enqueued.task is not None
    return found.enqueued.task.run_at_us, found.enqueued.task.priority


async def test_a_message_is_recorded_with_its_task(store: AsyncStorageBackend) -> None:
    found = await accept(store, message())
    assert found.enqueued is not None
    stored = await store.get_task(TurnId("t1"))
    assert stored == found.enqueued.task
    assert stored is not None
    assert stored.session_id == "s-new"
    assert await store.get_session(SessionId("s-new")) is not None
    await store.register_owner(make.OWNER, "node", lease_s=60)
    claimed = await store.claim_tasks(make.OWNER, limit=5, seq_block=64, now_us=NOW_US)
    assert [one.task.turn_id for one in claimed] == ["t1"]


async def test_the_same_message_again_starts_nothing(store: AsyncStorageBackend) -> None:
    await accept(store, message())
    assert await accept(store, message(turn="t2", session="s-2")) == ChannelAccepted()
    assert await store.get_task(TurnId("t2")) is None
    assert await store.get_session(SessionId("s-2")) is None


async def test_repeating_the_call_gives_its_answer_again(store: AsyncStorageBackend) -> None:
    """The first answer was lost: the gateway asks again with the same turn."""
    first = await accept(store, message())
    again = await accept(store, message())
    assert again.enqueued is not None
    assert first.enqueued is not None
    assert again.enqueued.task == first.enqueued.task


async def test_accounts_and_channels_have_ids_of_their_own(store: AsyncStorageBackend) -> None:
    for turn, fields in (("t1", {}), ("t2", {"account": "other"}), ("t3", {"channel": "telegram"})):
        found = await accept(store, message("m1", turn, f"s-{turn}", **fields))
        assert found.enqueued is not None


async def test_a_chat_keeps_its_session(store: AsyncStorageBackend) -> None:
    await accept(store, message("m1", "t1", "s-1"))
    found = await accept(store, message("m2", "t2", "s-2"))
    assert found.enqueued is not None
    assert found.enqueued.task is not None
    assert found.enqueued.task.session_id == "s-1"
    await store.register_owner(make.OWNER, "node", lease_s=60)
    claimed = await store.claim_tasks(make.OWNER, limit=5, seq_block=64, now_us=NOW_US)
    assert [one.task.turn_id for one in claimed] == ["t1"]  # the second waits in its session's line


@pytest.mark.parametrize("why", ["deleted", "another user"])
async def test_a_session_that_is_gone_is_replaced(store: AsyncStorageBackend, why: str) -> None:
    await accept(store, message("m1", "t1", "s-1"))
    if why == "deleted":
        await store.delete_session(SessionId("s-1"))
    user = "u1" if why == "deleted" else "u2"
    for number in (2, 3):
        found = await accept(store, message(f"m{number}", f"t{number}", f"s-{number}", user=user))
        assert found.enqueued is not None
        assert found.enqueued.task is not None
        assert found.enqueued.task.session_id == "s-2"


async def test_the_owner_of_the_session_is_named(store: AsyncStorageBackend) -> None:
    await accept(store, message("m1", "t1", "s-1"))
    owner = await make.owner(store)
    await store.open_session(SessionId("s-1"), owner, seq_block=64, now_us=NOW_US)
    found = await accept(store, message("m2", "t2", "s-2"))
    assert found.enqueued is not None
    assert found.enqueued.owner_id == owner


async def test_messages_beyond_the_pace_start_later(store: AsyncStorageBackend) -> None:
    """One every 10 s, three at once."""
    pace = ChannelPace(interval_us=10_000_000, burst_us=20_000_000)
    starts = [(await accepted(store, f"t{number}", pace, peer_key=str(number)))[0] for number in range(5)]
    assert starts == [None, None, None, NOW_US + 10_000_000, NOW_US + 20_000_000]
    assert (await accepted(store, "other", pace, account="other"))[0] is None
    promoted = await store.promote_due(limit=10, now_us=NOW_US + 15_000_000)
    assert [session_id for session_id, _ in promoted] == ["s-t3"]


async def test_a_repeated_message_takes_no_place(store: AsyncStorageBackend) -> None:
    pace = ChannelPace(interval_us=10_000_000, burst_us=10_000_000)
    for _ in range(3):
        await accept(store, message(), pace)
    assert (await accepted(store, "t2", pace))[0] is None


async def test_with_many_turns_further_ones_give_way(store: AsyncStorageBackend) -> None:
    pace = ChannelPace(max_active=2)
    found = [await accepted(store, f"t{number}", pace, peer_key=str(number)) for number in range(3)]
    assert [priority for _, priority in found] == [0, 0, -50]


async def test_a_command_begins_another_session(store: AsyncStorageBackend) -> None:
    await accept(store, message("m1", "t1", "s-1"))
    assert await store.accept_channel_command(message("m2", "t2"), "new", silent) == ChatState(
        session_id=SessionId("s-1"), user_id=UserId("u1"), active=TurnId("t1")
    )
    assert await store.accept_channel_command(message("m2", "t3"), "new", silent) is None
    found = await accept(store, message("m3", "t4", "s-3"))
    assert found.enqueued is not None
    assert found.enqueued.task is not None
    assert found.enqueued.task.session_id == "s-3"


async def test_a_command_and_its_answer_are_recorded_once(store: AsyncStorageBackend) -> None:
    def answer(state: ChatState) -> list[NewOutboxItem]:
        return [
            NewOutboxItem(
                delivery_id="t1-1", channel="slack", account="team", peer="D1", body=b'{"text":"x"}', created_us=NOW_US
            )
        ]

    assert await store.accept_channel_command(message("m1", "t1"), "help", answer) == ChatState()
    assert await store.accept_channel_command(message("m1", "t2"), "help", answer) is None
    posted = await store.list_outbox(OutboxFilter(), before=None, limit=5)
    assert [item.delivery_id for item in posted] == ["t1-1"]


async def test_a_command_stops_the_active_turn(store: AsyncStorageBackend) -> None:
    assert await store.accept_channel_command(message("m0", "t0"), "stop", silent) == ChatState()
    for number in (1, 2):
        await accept(store, message(f"m{number}", f"t{number}"))
    await store.register_owner(make.OWNER, "node", lease_s=60)
    await store.claim_tasks(make.OWNER, limit=5, seq_block=64, now_us=NOW_US)
    state = await store.accept_channel_command(message("m3", "t3"), "stop", silent)
    assert state is not None
    assert state.active == "t1"
    cancelled = [(await store.get_task(TurnId(turn))).cancel_requested for turn in ("t1", "t2")]  # type: ignore[union-attr]
    assert cancelled == [True, False]


async def test_messages_are_forgotten_in_time(store: AsyncStorageBackend) -> None:
    await accept(store, message())
    assert await store.delete_channel_messages(NOW_US) == 0
    assert await store.delete_channel_messages(NOW_US + 1) == 1


async def test_accounts_are_kept(store: AsyncStorageBackend) -> None:
    account = ChannelAccountRecord(
        name="team", channel="slack", settings=b'{"a":1}', secrets="sealed", created_us=5, updated_us=5
    )
    await store.put_channel_account(account)
    changed = msgspec.structs.replace(account, settings=b"{}", secrets=None, updated_us=6)
    await store.put_channel_account(changed)
    assert await store.list_channel_accounts() == [changed]
    assert await store.delete_channel_account("team")
    assert not await store.delete_channel_account("team")


async def test_of_many_who_bring_a_message_one_enqueues_it(
    two_stores: tuple[AsyncStorageBackend, AsyncStorageBackend],
) -> None:
    """The provider's retries reach two gateways at once; messages of one chat besides."""
    calls = []
    for number in range(20):
        store = two_stores[number % 2]
        calls.append(accept(store, message("same", f"t{number}", f"s-{number}")))
        calls.append(accept(store, message(f"m{number}", f"u{number}", f"s-u{number}")))
    found = await asyncio.gather(*calls)
    assert len([one for one in found[::2] if one.enqueued is not None]) == 1
    assert all(one.enqueued is not None for one in found[1::2])
    tasks = await two_stores[0].list_tasks(None, status=None, session_id=None, before=None, limit=100)
    assert len(tasks) == 21
    assert len({task.session_id for task in tasks}) == 1


async def test_a_session_that_is_deleted_meanwhile_stops_nobody(
    two_stores: tuple[AsyncStorageBackend, AsyncStorageBackend],
) -> None:
    first, second = two_stores
    for number in range(10):
        await accept(first, message(f"a{number}", f"ta{number}", f"s-a{number}"))
        (task, *_) = await first.list_tasks(None, status=None, session_id=None, before=None, limit=1)
        _, found = await asyncio.gather(
            second.delete_session(task.session_id),
            accept(first, message(f"b{number}", f"tb{number}", f"s-b{number}")),
        )
        assert found.enqueued is not None
