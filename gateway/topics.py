"""The topics of one gateway: follows owners, takes their lines, and finds a new owner when one is lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import defaultdict
from collections.abc import Callable, Iterator

from actors.clock import Clock
from actors.errors import (
    ServiceUnavailable,
    SessionNotFound,
    StorageError,
    StorageUnavailable,
    WunderError,
)
from actors.events import from_record, gap
from actors.handles import Reach, tell
from actors.lines import KEEPALIVE_S
from actors.logs import log
from actors.loop import Loop
from actors.messages import Batch, Follow, ReadBuffer, Unfollow
from actors.owners import Owners
from actors.replies import Buffered, Event, Following, Submitted
from gateway.subscriptions import Sink, Subscription, Topic
from storage.records import SessionId, UserId
from storage.segments import cut
from storage.store import AsyncStorageBackend

_SILENT_S = KEEPALIVE_S * 4
_LINGER_S = 5.0
_PAGE_EVENTS = 500
_PAGE_BYTES = 131_072
_MAX_DELAY_S = 2.0
_STORE_PAUSE_S = 0.5
_JOIN_S = 60.0


class Topics:
    """Every followed session of this gateway."""

    def __init__(
        self,
        gateway: str,
        owners: Owners,
        reach: Reach,
        store: AsyncStorageBackend,
        clock: Clock,
        *,
        topic_bytes: int,
    ) -> None:
        self._gateway = gateway
        self._owners = owners
        self._reach = reach
        self._store = store
        self._clock = clock
        self._topic_bytes = topic_bytes
        self._topics: dict[SessionId, Topic] = {}
        self._heard_s: dict[str, float] = {}
        self._lines: dict[str, int] = {}
        self._watches: dict[str, asyncio.Task[None]] = {}
        self._follows: dict[SessionId, asyncio.Task[None]] = {}
        # Begins above what an earlier process of this name has used.
        self._numbers = itertools.count(clock.now_us())
        self._upkeep = Loop("topics-upkeep", self._keep, interval_s=1.0)
        self.batches = 0
        self.events = 0
        self.pages_owner = 0
        self.pages_store = 0
        self.catch_ups = 0

    def start(self) -> None:
        self._upkeep.start()

    async def stop(self) -> None:
        await self._upkeep.stop()
        for task in [*self._watches.values(), *self._follows.values()]:
            task.cancel()
        for topic in list(self._topics.values()):
            for subscription in list(topic.subscriptions):
                subscription.end()

    def __len__(self) -> int:
        return len(self._topics)

    @property
    def subscriptions(self) -> int:
        return sum(len(topic.subscriptions) for topic in self._topics.values())

    # -- subscribing ---------------------------------------------------------------------------------------------

    def next_number(self) -> int:
        """What the next `Follow`, `Submit` or `Unfollow` carries, so that the owner knows which is newer."""
        return next(self._numbers)

    @contextlib.contextmanager
    def expect(self, session_id: SessionId) -> Iterator[Topic]:
        """The topic of a session that is being followed: it stays, for its line may be faster than the reply."""
        topic = self._topics.get(session_id)
        if topic is None:
            topic = self._topics[session_id] = Topic(session_id, self._topic_bytes)
        topic.expected += 1
        try:
            yield topic
        finally:
            topic.expected -= 1
            topic.idle_since_s = self._clock.monotonic_s()

    def submitted(self, topic: Topic, reply: Submitted, actor: str, user_id: UserId) -> None:
        """A submit has put this gateway on the owner's line."""
        topic.user_id = user_id
        self._joined(topic, actor, reply.epoch, reply.latest)

    async def follow(self, session_id: SessionId, user_id: UserId | None) -> tuple[Topic, Following]:
        """Be on the owner's line; the owner checks that the session is the user's."""
        with self.expect(session_id) as topic:
            reply, actor = await self._owners.ask(session_id, self._command(session_id, user_id), Following)
            topic.user_id = reply.user_id
            self._joined(topic, actor, reply.epoch, reply.latest)
        return topic, reply

    def _command(self, session_id: SessionId, user_id: UserId | None) -> Follow:
        return Follow(session_id=session_id, user_id=user_id, gateway=self._gateway, number=self.next_number())

    def subscribe(
        self,
        topic: Topic,
        sink: Sink,
        frame: Callable[[Event], bytes],
        *,
        cursor: int,
        turn_id: str | None = None,
        until_turn: str | None = None,
        until_seq: int | None = None,
        on_end: Callable[[WunderError | None], None],
    ) -> Subscription:
        """A reader after `cursor`; call `start` on it when its first frame may be sent."""
        return Subscription(
            topic,
            sink,
            frame,
            self,
            cursor=cursor,
            now_us=self._clock.now_us,
            turn_id=turn_id,
            until_turn=until_turn,
            until_seq=until_seq,
            on_end=on_end,
        )

    def _joined(self, topic: Topic, actor: str, epoch: int, latest: int) -> None:
        if epoch < topic.epoch:
            return
        topic.join(actor, epoch, latest)
        self._heard_s[actor] = self._clock.monotonic_s()
        if actor not in self._watches:
            self._watches[actor] = asyncio.create_task(self._watch(actor), name=f"watch-{actor}")

    # -- the line ------------------------------------------------------------------------------------------------

    def take(self, batch: Batch) -> None:
        """A batch from an owner's line."""
        self._heard_s[batch.actor] = self._clock.monotonic_s()
        if self._lines.setdefault(batch.actor, batch.line) != batch.line:
            self._line_changed(batch)
        self.batches += 1
        self.events += len(batch.events)
        topics = self._topics
        for event in batch.events:
            topic = topics.get(event.session_id)
            if topic is not None:
                topic.publish(event)
        for session_id in batch.resync:
            if (topic := topics.get(session_id)) is not None and topic.actor == batch.actor:
                self._lost(topic, None)
        for session_id in batch.dropped:
            if (topic := topics.get(session_id)) is not None and topic.actor == batch.actor:
                self._lost(topic, None)

    def _line_changed(self, batch: Batch) -> None:
        """The owner had lost its line to us, and does not know any more who was followed over it."""
        self._lines[batch.actor] = batch.line
        for topic in list(self._topics.values()):
            if topic.actor == batch.actor:
                self._lost(topic, None)

    # -- reading -------------------------------------------------------------------------------------------------

    async def page(self, session_id: SessionId, after: int, topic: Topic) -> list[Event]:
        """Events after a cursor: from the owner's memory if it reaches back that far, else from the store."""
        buffered = await self._buffered(session_id, after)
        if buffered is not None and not buffered.too_old:
            self.pages_owner += 1
            if not buffered.events:
                await self._wait_for_line(topic)
            return list(buffered.events)
        self.pages_store += 1
        try:
            records = await self._store.read_events(session_id, after=after, limit=_PAGE_EVENTS, max_bytes=_PAGE_BYTES)
        except StorageUnavailable:
            await asyncio.sleep(_STORE_PAUSE_S)
            return []
        if records:
            return [from_record(cut(record, after), topic.epoch) for record in records]
        if buffered is None:
            await self._wait_for_line(topic)
            return []
        return await self._beyond_gap(session_id, after, buffered, topic)

    async def _buffered(self, session_id: SessionId, after: int) -> Buffered | None:
        """A page of the owner's memory; None while there is no owner (the store is what there is)."""
        command = ReadBuffer(session_id=session_id, after=after, max_bytes=_PAGE_BYTES)
        try:
            buffered, _ = await self._owners.ask(session_id, command, Buffered)
        except (ServiceUnavailable, StorageError):
            return None
        return buffered

    async def _beyond_gap(self, session_id: SessionId, after: int, buffered: Buffered, topic: Topic) -> list[Event]:
        """The store has nothing up to the buffer's base: those events are gone for good."""
        rest = await self._buffered(session_id, buffered.base)
        if rest is not None and rest.events:
            return list(rest.events)
        oldest, now_us = buffered.base + 1, self._clock.now_us()
        latest = buffered.latest
        return [gap(session_id, topic.epoch, first=after + 1, oldest=oldest, latest=latest, now_us=now_us)]

    async def _wait_for_line(self, topic: Topic) -> None:
        """Nothing to read yet, though the ring does not reach the cursor: the line is about to bring it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await topic.joined.wait()
        await asyncio.sleep(0.01)

    # -- losing and finding owners -------------------------------------------------------------------------------

    async def _watch(self, actor: str) -> None:
        await self._reach.gone(actor)
        self._actor_lost(actor)

    def _actor_lost(self, actor: str) -> None:
        log.warning("owner_lost", actor=actor)
        self._heard_s.pop(actor, None)
        self._lines.pop(actor, None)
        watch = self._watches.pop(actor, None)
        if watch is not None and watch is not asyncio.current_task():
            watch.cancel()
        for topic in list(self._topics.values()):
            if topic.actor == actor:
                self._owners.forget(topic.session_id)
                self._lost(topic, actor)

    def _lost(self, topic: Topic, actor: str | None) -> None:
        topic.leave()
        self._owners.forget(topic.session_id)
        if topic.session_id not in self._follows:
            self._follows[topic.session_id] = asyncio.create_task(
                self._refollow(topic, actor), name=f"follow-{topic.session_id}"
            )

    async def _refollow(self, topic: Topic, avoid: str | None) -> None:
        """Find the session's owner again, for as long as somebody listens."""
        delay_s = 0.05
        try:
            while topic.subscriptions and not topic.joined.is_set():
                command = self._command(topic.session_id, topic.user_id)
                try:
                    with self.expect(topic.session_id):
                        reply, actor = await self._owners.ask(topic.session_id, command, Following, avoid=avoid)
                        self._joined(topic, actor, reply.epoch, reply.latest)
                    if topic.joined.is_set():
                        return
                except SessionNotFound as error:
                    for subscription in list(topic.subscriptions):
                        subscription.end(error)
                    return
                except WunderError as error:
                    log.info("refollow_retry", session=topic.session_id, message=error.message)
                avoid = None
                await asyncio.sleep(delay_s * (0.5 + random.random()))  # noqa: S311 - jitter is no secret
                delay_s = min(delay_s * 2, _MAX_DELAY_S)
        finally:
            self._follows.pop(topic.session_id, None)

    async def _keep(self) -> None:
        now_s = self._clock.monotonic_s()
        for actor, heard_s in list(self._heard_s.items()):
            if now_s - heard_s > _SILENT_S:
                if any(topic.actor == actor for topic in self._topics.values()):
                    self._actor_lost(actor)
                else:
                    self._heard_s.pop(actor, None)
                    self._lines.pop(actor, None)
                    if (watch := self._watches.pop(actor, None)) is not None:
                        watch.cancel()
        unused: dict[str, list[SessionId]] = defaultdict(list)
        for topic in list(self._topics.values()):
            if topic.subscriptions or topic.expected:
                topic.idle_since_s = now_s
            elif now_s - topic.idle_since_s > (_LINGER_S if topic.joined.is_set() else _JOIN_S):
                del self._topics[topic.session_id]
                # One that was never joined may have been refused a turn, with this gateway on the line already.
                if owner := topic.actor or self._owners.last_seen(topic.session_id):
                    unused[owner].append(topic.session_id)
        for actor, session_ids in unused.items():
            # Whoever came back meanwhile has asked to follow again, and that must not be undone.
            gone = tuple(s for s in session_ids if s not in self._topics)
            with contextlib.suppress(WunderError):
                command = Unfollow(session_ids=gone, gateway=self._gateway, number=self.next_number())
                await tell(self._reach.actor(actor), command, timeout_s=5.0)
