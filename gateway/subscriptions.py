"""Who listens to what: topics (sessions followed by this gateway) and their subscriptions.

    line from the owner ─► Topic ─► live subscriptions: straight into the connection's queue
                             │
                             └ ring of recent events ◄─ subscriptions that catch up

    a subscription is LIVE or CATCHING UP:
      catching up:  cursor before the ring?  read a page from the owner's buffer, else from the store
                    cursor inside the ring?  copy the rest and go live, in one step of the event loop
      live:         its connection's queue is full?  fall back to catching up (nothing is dropped)

A reader gets every event after its cursor exactly once, or a `gap` that says which it cannot have.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from actors.errors import WunderError
from actors.events import JUMP_KINDS, TERMINAL, gap
from actors.logs import log
from actors.replies import Event
from storage.records import SessionId, UserId


class Sink(Protocol):
    """Where a subscription's frames go: the bounded queue of one connection."""

    @property
    def full(self) -> bool: ...
    def put(self, frame: bytes) -> None:
        """Queue a frame; never waits, never drops."""

    async def writable(self) -> None:
        """Return when the queue has room again."""


class PageReader(Protocol):
    """Reads events after a cursor from the owner's buffer or the store."""

    async def page(self, session_id: SessionId, after: int, topic: Topic) -> list[Event]: ...


class Topic:
    """One followed session."""

    def __init__(self, session_id: SessionId, max_bytes: int) -> None:
        self.session_id = session_id
        self.user_id: UserId | None = None
        self.actor = ""
        self.epoch = 0
        self.base = -1
        self.latest = -1
        self.joined = asyncio.Event()
        self.subscriptions: set[Subscription] = set()
        self.expected = 0
        self.idle_since_s = 0.0
        self._events: deque[Event] = deque()
        self._bytes = 0
        self._max_bytes = max_bytes

    def join(self, actor: str, epoch: int, latest: int) -> None:
        """The owner has put this gateway on its line: events after `latest` come from now on."""
        if not self.joined.is_set() or (actor, epoch) != (self.actor, self.epoch) or self.latest < latest:
            self._restart(epoch, latest)
        self.actor, self.epoch = actor, epoch
        self.joined.set()

    def leave(self) -> None:
        """The owner is lost: until one is joined again nobody is served from its line, which may have holes."""
        self.joined.clear()
        for subscription in self.subscriptions:
            subscription.live = False

    def _restart(self, epoch: int, latest: int) -> None:
        # Events of this owner that came before the reply to our request are already after `latest`.
        kept = [e for e in self._events if e.epoch == epoch and e.seq > latest]
        if kept and kept[0].first_seq > latest + 1 and kept[0].kind not in JUMP_KINDS:
            kept, latest = [], max(latest, kept[-1].seq)
        self._events = deque(kept)
        self._bytes = sum(len(e.body) for e in kept)
        self.base = latest
        self.latest = kept[-1].seq if kept else latest
        for subscription in list(self.subscriptions):
            subscription.catch_up()

    def publish(self, event: Event) -> None:
        """An event from the line."""
        if event.epoch < self.epoch or event.seq <= self.latest:
            return
        if event.first_seq > self.latest + 1:
            # A part of the line was lost on the way (or is before a rewind): readers fetch it before this event.
            self._events.clear()
            self._bytes, self.base = 0, event.first_seq - 1
            for subscription in tuple(self.subscriptions) if self.joined.is_set() else ():
                subscription.catch_up()
        self.latest = event.seq
        self._events.append(event)
        self._bytes += len(event.body)
        while self._bytes > self._max_bytes and len(self._events) > 1:
            removed = self._events.popleft()
            self._bytes -= len(removed.body)
            self.base = removed.seq
        for subscription in tuple(self.subscriptions):
            if subscription.live:
                subscription.offer(event)

    def after(self, cursor: int) -> list[Event] | None:
        """The ring's events after a cursor; None if the ring does not reach back that far."""
        if not self.joined.is_set() or cursor < self.base:
            return None
        if cursor >= self.latest:
            return []
        found = []
        for event in reversed(self._events):
            if event.seq <= cursor:
                break
            found.append(event)
        found.reverse()
        return found


class Subscription:
    """One reader of one session, with a cursor. `turn_id` limits it to a turn.

    It ends after the terminal event of `until_turn`, or on reaching `until_seq`; `on_end(error)` is called once.
    """

    def __init__(
        self,
        topic: Topic,
        sink: Sink,
        frame: Callable[[Event], bytes],
        reader: PageReader,
        *,
        cursor: int,
        now_us: Callable[[], int],
        turn_id: str | None = None,
        until_turn: str | None = None,
        until_seq: int | None = None,
        on_end: Callable[[WunderError | None], None],
    ) -> None:
        self.topic = topic
        self.cursor = cursor
        self.live = False
        self.ended = False
        self.catch_ups = 0
        self._sink = sink
        self._frame = frame
        self._reader = reader
        self._now_us = now_us
        self._turn_id = turn_id
        self._until_turn = until_turn
        self._until_seq = until_seq
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None
        topic.subscriptions.add(self)

    def start(self) -> None:
        """Begin to deliver."""
        self.catch_up()

    def offer(self, event: Event) -> None:
        """A live event."""
        if self._sink.full:
            self.catch_up()
        else:
            self._deliver(event)

    def catch_up(self) -> None:
        """Read on from the cursor at the connection's pace, then go live again."""
        self.live = False
        if not self.ended and self._task is None:
            self.catch_ups += 1
            self._task = asyncio.create_task(self._catch_up(), name=f"catch-up-{self.topic.session_id}")

    def end(self, error: WunderError | None = None) -> None:
        """Stop; nothing more is delivered."""
        if self.ended:
            return
        self.ended, self.live = True, False
        self.topic.subscriptions.discard(self)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._on_end(error)

    async def _catch_up(self) -> None:
        try:
            while not self.ended:
                await self._sink.writable()
                if self._join_live():
                    return
                await self._read_page()
        except WunderError as error:
            self.end(error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("catch_up_failed", error, session=self.topic.session_id)
            self.end(WunderError("reading the stream failed"))
        finally:
            self._task = None

    def _join_live(self) -> bool:
        """Copy what the ring has after the cursor and go live: no other code runs in between."""
        events = self.topic.after(self.cursor)
        if events is None:
            return False
        for event in events:
            if self._sink.full:
                return False
            self._deliver(event)
        if not self.ended:
            self._reached()
        self.live = not self.ended
        return True

    async def _read_page(self) -> None:
        events = await self._reader.page(self.topic.session_id, self.cursor, self.topic)
        for event in events:
            self._deliver(event)
        if not self.ended:
            self._reached()

    def _deliver(self, event: Event) -> None:
        if self.ended or event.seq <= self.cursor:
            return
        if event.first_seq > self.cursor + 1 and event.kind not in JUMP_KINDS:
            missing = gap(
                self.topic.session_id,
                event.epoch,
                first=self.cursor + 1,
                oldest=event.first_seq,
                latest=max(self.topic.latest, event.seq),
                now_us=self._now_us(),
            )
            self._sink.put(self._frame(missing))
        self.cursor = event.seq
        if self._turn_id is None or event.turn_id in ("", self._turn_id):
            self._sink.put(self._frame(event))
        if event.kind == TERMINAL and event.turn_id == self._until_turn:
            self.end()

    def _reached(self) -> None:
        if self._until_seq is not None and self.cursor >= self._until_seq:
            self.end()
