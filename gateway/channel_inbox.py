"""Verified messages of channels become tasks: recorded once, with their task, before the provider has its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from actors.background import Background
from actors.channels.accounts import Account
from actors.channels.inbound import Inbound
from actors.channels.origin import ChannelOrigin
from actors.channels.replies import command_reply
from actors.channels.routing import Route, command_of, pace, route
from actors.clock import Clock
from actors.errors import WunderError
from actors.handles import DirectoryHandle
from actors.logs import log
from actors.messages import Submit
from actors.task_intake import TaskIntake, WantedTask
from gateway.protocol import TurnOptions
from gateway.settings import Settings
from gateway.turns import Turns
from storage.channel_records import Admission, ChannelCommand, ChannelMessage, ChatState
from storage.outbox_records import NewOutboxItem
from storage.records import NewTask, SessionId, TurnId
from storage.store import AsyncStorageBackend

Taken = Literal["accepted", "duplicate", "command"]

GIVES_WAY = -50
"""The priority of messages beyond an account's `max_active`: everything else that waits goes first."""


class ChannelInbox:
    """Takes messages in; the turns run as background tasks, and never in the request."""

    def __init__(
        self,
        settings: Settings,
        store: AsyncStorageBackend,
        clock: Clock,
        directory: DirectoryHandle,
        intake: TaskIntake,
        turns: Turns,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clock = clock
        self._intake = intake
        self._turns = turns
        self._directory = directory
        self._background = Background()

    async def close(self) -> None:
        await self._background.stop()

    async def take(self, account: Account, inbound: Inbound) -> Taken:
        """Record a message; when this returns it is durable. `ServiceUnavailable` while the queue is full."""
        way = route(account, self._settings.channels.bindings.items(), inbound)
        now_us = self._clock.now_us()
        message = ChannelMessage(
            chat=way.chat,
            message_id=inbound.message_id,
            turn_id=TurnId(self._clock.new_id("turn")),
            session_id=SessionId(self._clock.new_id("ses")),
            user_id=way.user_id,
            received_us=now_us,
        )
        command = command_of(inbound)
        if command is not None:
            return await self._command(_origin(account, inbound), message, command)
        await self._intake.refuse_if_full(way.user_id)
        submit = self._submit(account, way, inbound, message)

        def make(admission: Admission) -> NewTask:
            wanted = WantedTask(
                command=msgspec.structs.replace(submit, session_id=admission.session_id),
                priority=GIVES_WAY if admission.gives_way else 0,
                run_at_us=admission.run_at_us,
                reason="channel",
            )
            return self._intake.new_task(wanted, 0, now_us)

        accepted = await self._store.accept_channel_message(message, pace(account.settings), make, now_us=now_us)
        if accepted.enqueued is None:
            return "duplicate"
        self._intake.announce([accepted.enqueued])
        return "accepted"

    def _submit(self, account: Account, way: Route, inbound: Inbound, message: ChannelMessage) -> Submit:
        """The message as a command; its session is known later."""
        agent = way.agent if way.agent in self._settings.llm.agents else None
        command = self._turns.command(
            way.user_id, inbound.text, TurnOptions(), session_id=message.session_id, agent_id=agent
        )
        origin = _origin(account, inbound)
        return msgspec.structs.replace(command, turn_id=message.turn_id, create=True, channel=origin)

    async def _command(self, origin: ChannelOrigin, message: ChannelMessage, command: ChannelCommand) -> Taken:
        def reply(state: ChatState) -> Sequence[NewOutboxItem]:
            return command_reply(origin, message.turn_id, command, state, message.received_us)

        state = await self._store.accept_channel_command(message, command, reply)
        if state is None:
            return "duplicate"
        self._directory.ring_outboxes()
        if command == "stop" and state.active is not None:
            self._background.start(self._stop(state), f"stop-{state.active}")
        return "command"

    async def _stop(self, state: ChatState) -> None:
        """Tell the owner; that the cancel was requested is recorded, so nothing of the turn counts if nobody hears."""
        try:
            await self._turns.cancel(state.session_id or "", state.user_id, state.active)
        except WunderError as error:
            log.warning("stop_not_told", session=state.session_id, message=error.message)


def _origin(account: Account, inbound: Inbound) -> ChannelOrigin:
    return ChannelOrigin(
        channel=account.settings.channel,
        account=account.name,
        peer=inbound.peer,
        thread=inbound.reply_thread,
        reply_to=inbound.reply_to,
    )
