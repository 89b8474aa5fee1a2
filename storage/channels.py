"""Messages from messaging providers: recorded once, with their task, in one transaction.

the message's id is new? ──no──► it came before
      │ yes
the chat's session (locked), or a new one ──► its pace and its turns ──► the task, in that session's line
"""

from __future__ import annotations

from storage.channel_records import (
    Admission,
    ChannelAccepted,
    ChannelAccountRecord,
    ChannelCommand,
    ChannelMessage,
    ChannelPace,
    ChatKey,
    ChatState,
    MakeReply,
    MakeTask,
)
from storage.database import Row, Runner
from storage.errors import Conflict
from storage.outbox_writer import post_step
from storage.records import Enqueued, SessionId
from storage.rows import maybe_task
from storage.task_queue import TaskQueueTopic, enqueue_into

_LATELY_US = 3_600_000_000
"""Chats that have not written for so long are not counted among an account's turns."""


class ChannelTopic(TaskQueueTopic):
    """`ChannelStorage` in SQL."""

    async def put_channel_account(self, account: ChannelAccountRecord) -> None:
        await self._db.execute(
            "put_channel_account",
            account.name,
            account.channel,
            account.settings.decode(),
            account.secrets,
            account.updated_us,
        )

    async def delete_channel_account(self, name: str) -> bool:
        return await self._db.execute("delete_channel_account", name) > 0

    async def list_channel_accounts(self) -> list[ChannelAccountRecord]:
        return [_account(row) for row in await self._db.fetch("list_channel_accounts")]

    async def accept_channel_message(
        self, message: ChannelMessage, pace: ChannelPace, make: MakeTask, *, now_us: int
    ) -> ChannelAccepted:
        async def body(tx: Runner) -> ChannelAccepted:
            if not await record_message(tx, message):
                return ChannelAccepted()
            session_id = await _session_of(tx, message)
            item = make(await _admission(tx, message.chat, pace, session_id, now_us))
            enqueued = await enqueue_into(tx, item, now_us)
            if enqueued is None or enqueued.task is None:
                raise Conflict("the task of a message was refused", field="turn_id")
            return ChannelAccepted(enqueued=enqueued)

        accepted = await self._db.transact(body)
        if accepted.enqueued is None and await self._is_ours(message):
            return ChannelAccepted(enqueued=Enqueued(task=await self.get_task(message.turn_id)))
        return accepted

    async def accept_channel_command(
        self, message: ChannelMessage, command: ChannelCommand, reply: MakeReply
    ) -> ChatState | None:
        async def body(tx: Runner) -> ChatState | None:
            if not await record_message(tx, message):
                return None
            state = await _state_of(tx, message.chat)
            if command == "new":
                await tx.execute("delete_channel_peer", *_key(message.chat))
            elif command == "stop" and state.active is not None:
                await tx.fetchrow("request_cancel", state.active)
            await post_step(tx, reply(state))
            return state

        return await self._db.transact(body)

    async def delete_channel_messages(self, before_us: int) -> int:
        return await self._db.execute("delete_channel_messages", before_us)

    async def _is_ours(self, message: ChannelMessage) -> bool:
        """Whether an earlier try, whose answer was lost, has recorded it."""
        chat = message.chat
        row = await self._db.fetchrow("find_channel_message", chat.channel, chat.account, message.message_id)
        return row is not None and row["turn_id"] == message.turn_id


async def record_message(tx: Runner, message: ChannelMessage) -> bool:
    """False if it came before."""
    chat = message.chat
    row = (chat.channel, chat.account, message.message_id, message.turn_id, message.received_us)
    return await tx.execute("record_channel_message", *row) > 0


async def _state_of(tx: Runner, chat: ChatKey) -> ChatState:
    found = await tx.fetchrow("get_channel_peer", *_key(chat))
    session = await tx.fetchrow("get_session", found["session_id"]) if found is not None else None
    if session is None:
        return ChatState()
    active = maybe_task(await tx.fetchrow("active_tasks", session["session_id"], 1))
    return ChatState(
        session_id=session["session_id"],
        user_id=session["user_id"],
        active=active.turn_id if active is not None else None,
    )


def _key(chat: ChatKey) -> tuple[str, str, str]:
    return chat.channel, chat.account, chat.peer_key


async def _session_of(tx: Runner, message: ChannelMessage) -> SessionId:
    """The chat's session, locked. One that was deleted, or belongs to somebody else now, is replaced."""
    chat = _key(message.chat)
    found = await tx.fetchrow("claim_channel_peer", *chat, message.session_id, message.received_us)
    session_id: SessionId = found["session_id"] if found is not None else message.session_id
    if session_id == message.session_id:
        return session_id
    await tx.fetchrow("lock_session", session_id)
    session = await tx.fetchrow("get_session", session_id)
    if session is not None and session["user_id"] == message.user_id:
        return session_id
    await tx.execute("set_channel_peer", *chat, message.session_id)
    return message.session_id


async def _admission(tx: Runner, chat: ChatKey, pace: ChannelPace, session_id: SessionId, now_us: int) -> Admission:
    run_at_us, gives_way = None, False
    if pace.interval_us:
        first_us = now_us + pace.interval_us
        row = await tx.fetchrow("take_channel_slot", chat.channel, chat.account, first_us, now_us, pace.interval_us)
        start_us = (row["next_us"] if row is not None else first_us) - pace.interval_us - pace.burst_us
        run_at_us = start_us if start_us > now_us else None
    if pace.max_active:
        since_us = now_us - _LATELY_US
        counted = await tx.fetchrow("count_channel_turns", chat.channel, chat.account, since_us, pace.max_active)
        gives_way = counted is not None and counted["turns"] >= pace.max_active
    return Admission(session_id=session_id, run_at_us=run_at_us, gives_way=gives_way)


def _account(row: Row) -> ChannelAccountRecord:
    return ChannelAccountRecord(
        name=row["name"],
        channel=row["channel"],
        settings=row["settings"].encode(),
        secrets=row["secrets"],
        created_us=row["created_us"],
        updated_us=row["updated_us"],
    )
