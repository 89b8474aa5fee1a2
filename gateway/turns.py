"""Starting turns: checks what a client asked for, finds or makes the session, and gets it accepted by the owner."""

from __future__ import annotations

import difflib
import hashlib

import msgspec

from actors.clock import Clock
from actors.errors import InvalidRequest
from actors.messages import BusyPolicy, CancelTurn, Submit
from actors.models.registry import Models
from actors.owners import Owners
from actors.replies import CancelReceipt, Submitted
from actors.tools.registry import NAMED_TOOLS, Tools
from actors.transcript import title_of
from gateway.protocol import TurnOptions
from gateway.settings import Settings
from gateway.subscriptions import Topic
from gateway.topics import Topics
from storage.records import SessionId, TurnId, UserId


class Started(msgspec.Struct, frozen=True):
    """An accepted turn and the topic on which its events come."""

    submitted: Submitted
    topic: Topic


class Turns:
    """Accepts and cancels turns on behalf of clients."""

    def __init__(self, settings: Settings, owners: Owners, topics: Topics, clock: Clock, *, gateway: str) -> None:
        self._settings = settings
        self._owners = owners
        self._topics = topics
        self._clock = clock
        self._gateway = gateway
        self._models = Models(settings.llm)
        self._tools = Tools(settings.tools, elsewhere=NAMED_TOOLS)

    async def close(self) -> None:
        await self._models.close()
        await self._tools.close()

    async def start(
        self,
        user_id: UserId,
        content: str,
        options: TurnOptions,
        *,
        session_id: str | None,
        agent_id: str | None,
    ) -> Started:
        """Get a turn accepted; when this returns it is durable and its events are on the way."""
        command = self.command(user_id, content, options, session_id=session_id, agent_id=agent_id)
        session = command.session_id
        with self._topics.expect(session) as topic:
            submitted, actor = await self._owners.ask(session, command, Submitted)
            if submitted.session_id == session:
                self._topics.submitted(topic, submitted, actor, user_id)
                return Started(submitted, topic)
        # The idempotency key belongs to a turn of another session: that one is followed instead.
        topic, _ = await self._topics.follow(submitted.session_id, user_id)
        return Started(submitted, topic)

    def command(
        self, user_id: UserId, content: str, options: TurnOptions, *, session_id: str | None, agent_id: str | None
    ) -> Submit:
        """What a client asked for, checked, as a command to its session's owner."""
        self.check(options, agent_id)
        create = session_id is None
        return Submit(
            session_id=SessionId(session_id) if session_id else self._new_session(user_id, options),
            user_id=user_id,
            turn_id=TurnId(self._clock.new_id("turn")),
            content=content,
            create=create,
            title=title_of(content) if create else "",
            agent_id=agent_id,
            model_name=options.model_name,
            tool_names=options.tool_names,
            attachments=tuple(msgspec.to_builtins(a) for a in options.attachments),
            config_overrides=msgspec.to_builtins(options.config_overrides),
            busy=busy_policy(options),
            idempotency_key=options.idempotency_key,
            gateway=self._gateway,
            number=self._topics.next_number(),
        )

    async def cancel(self, session_id: str, user_id: UserId | None, turn_id: str | None) -> CancelReceipt:
        """Cancel a turn (the running one by default); the receipt means that it is recorded."""
        command = CancelTurn(
            session_id=SessionId(session_id),
            user_id=user_id,
            turn_id=TurnId(turn_id) if turn_id else None,
        )
        receipt, _ = await self._owners.ask(SessionId(session_id), command, CancelReceipt)
        return receipt

    def _new_session(self, user_id: UserId, options: TurnOptions) -> SessionId:
        if options.idempotency_key is None:
            return SessionId(self._clock.new_id("ses"))
        # A repetition without a session id has to meet the same owner, or it would make a second session.
        digest = hashlib.sha256(f"{user_id}\0{options.idempotency_key}".encode()).hexdigest()
        return SessionId(f"ses_{digest[:32]}")

    def check(self, options: TurnOptions, agent_id: str | None) -> None:
        """`InvalidRequest` for a model, a tool or an agent that is not configured."""
        if options.model_name is not None:
            self._models.get(options.model_name)
        if options.tool_names is not None:
            self._tools.check(options.tool_names)
        self.check_agent(agent_id)

    def check_agent(self, agent_id: str | None) -> None:
        """`InvalidRequest` for an agent that is not in `llm.agents`."""
        known = self._settings.llm.agents
        if agent_id is None or agent_id in known:
            return
        close = difflib.get_close_matches(agent_id, known, 1)
        raise InvalidRequest(
            f"agent_id: unknown agent {agent_id!r}",
            field="agent_id",
            hint=f"did you mean {close[0]!r}?" if close else f"known agents: {', '.join(known) or 'none'}",
        )


def busy_policy(options: TurnOptions) -> BusyPolicy:
    """`busy` if given; without it `allow_queue` chooses between waiting and refusing."""
    return options.busy or ("enqueue" if options.allow_queue else "reject")
