"""Bounds that hold for any history: the owner's buffer, a connection's queue, permits, placement."""

from __future__ import annotations

import asyncio
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from actors.event_buffer import EventBuffer
from actors.messages import RegisterActor
from actors.permits import Holder, Permits
from actors.placement import ActorInfo, Node, Placement
from actors.replies import Event
from gateway.out_queue import OutQueue
from storage.records import OwnerId, SessionId, UserId

SESSION = SessionId("s")
MAX_EVENTS, MAX_BYTES = 5, 60
sessions = st.sampled_from([SessionId(f"s{n}") for n in range(8)])
actors = st.sampled_from(["a0", "a1", "a2"])


class Buffer(RuleBasedStateMachine):
    """A reader of buffer and store together gets everything."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = EventBuffer(base=3, max_events=MAX_EVENTS, max_bytes=MAX_BYTES)
        self.said: list[Event] = []

    @rule(size=st.integers(0, 40), count=st.integers(1, 6))
    def append(self, size: int, count: int) -> None:
        for _ in range(count):
            seq = self.buffer.latest + 1
            event = Event(SESSION, 1, seq, seq, "t", "x", b"." * size)
            self.said.append(event)
            self.buffer.append(event)

    @rule(back=st.integers(0, 8))
    def store(self, back: int) -> None:
        self.buffer.mark_stored(max(0, self.buffer.latest - back))

    @rule(cursor=st.integers(0, 60), max_bytes=st.integers(1, 100))
    def read(self, cursor: int, max_bytes: int) -> None:
        found = self.buffer.after(cursor, max_bytes)
        if found is None:
            assert cursor < self.buffer.base
            return
        wanted = [e for e in self.said if e.seq > cursor]
        assert list(found) == wanted[: len(found)]
        assert found or not wanted
        assert len(found) <= 1 or sum(len(e.body) for e in found) <= max_bytes

    @invariant()
    def nothing_is_in_neither(self) -> None:
        assert self.buffer.base <= max(self.buffer.stored, 3)
        assert len(self.buffer) == self.buffer.latest - self.buffer.base

    @invariant()
    def what_is_stored_is_bounded(self) -> None:
        kept = [e for e in self.said if e.seq > self.buffer.base]
        stored = [e for e in kept if e.seq <= self.buffer.stored]
        assert not stored or (len(kept) <= MAX_EVENTS and sum(len(e.body) for e in kept) <= MAX_BYTES)


class Queue(RuleBasedStateMachine):
    """Everything that was put is taken once and in order; the depth is exact."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.runner = asyncio.Runner()
        self.queue = OutQueue(100, lambda: self.now_s)
        self.put_in: list[bytes] = []
        self.taken: list[bytes] = []
        self.writing: list[bytes] = []

    @rule(size=st.integers(1, 60))
    def put(self, size: int) -> None:
        frame = b"%d" % len(self.put_in) + b"." * size
        self.put_in.append(frame)
        self.queue.put(frame)

    @rule()
    def take(self) -> None:
        if not self.writing and len(self.taken) < len(self.put_in):
            self.writing = self.runner.run(self.queue.take())
            assert self.writing
            self.taken += self.writing

    @rule()
    def written(self) -> None:
        self.queue.written()
        self.writing = []

    @rule(seconds=st.floats(0, 5))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def nothing_is_lost_or_mixed_up(self) -> None:
        assert self.taken == self.put_in[: len(self.taken)]
        waiting = self.put_in[len(self.taken) :]
        depth = sum(map(len, [*waiting, *self.writing]))
        assert self.queue.depth_bytes == depth
        assert self.queue.full == (depth > 100)

    @invariant()
    def a_quiet_queue_does_not_stall(self) -> None:
        if not self.writing and len(self.taken) == len(self.put_in):
            assert self.queue.stalled_s() == 0

    def teardown(self) -> None:
        self.queue.finish()
        rest = self.runner.run(self.queue.take())
        self.queue.close()
        assert self.taken + rest == self.put_in
        assert self.runner.run(self.queue.take()) == []
        self.runner.run(self.queue.writable())
        self.runner.close()


class Giving(RuleBasedStateMachine):
    """Permits are never above their limits, none is lost, and nobody holds one and waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.permits = Permits(max_active=3, max_active_per_user=2, max_waiting=4, max_waiting_per_user=2)
        self.users = {SessionId(f"s{n}"): UserId(f"u{n % 3}") for n in range(8)}

    def holder(self, session: SessionId, actor: str) -> Holder:
        return Holder(self.users[session], actor)

    @rule(session=sessions, actor=actors)
    def acquire(self, session: SessionId, actor: str) -> None:
        held, active = session in self.permits.held, Counter(h.user_id for h in self.permits.held.values())
        free = len(self.permits.held) < 3 and active[self.users[session]] < 2
        assert self.permits.acquire(session, self.holder(session, actor)) == (held or free)

    @rule(session=sessions, actor=actors)
    def wait(self, session: SessionId, actor: str) -> None:
        if session in self.permits.held:
            return
        position = self.permits.wait(session, self.holder(session, actor))
        assert position is None or position == list(self.permits.waiting).index(session) + 1

    @rule(session=sessions)
    def leave(self, session: SessionId) -> None:
        self.permits.leave(session)
        assert session not in self.permits.waiting

    @rule(session=sessions, actor=st.none() | actors)
    def release(self, session: SessionId, actor: str | None) -> None:
        before = self.permits.held.get(session)
        released = self.permits.release(session, actor)
        assert released == (before is not None and actor in (None, before.actor))

    @rule()
    def grant(self) -> None:
        order = list(self.permits.waiting)
        granted = [session for session, _ in self.permits.grantable()]
        assert granted == [session for session in order if session in granted]
        active = Counter(holder.user_id for holder in self.permits.held.values())
        for holder in self.permits.waiting.values():
            assert active.total() == 3 or active[holder.user_id] == 2

    @rule(actor=actors)
    def an_actor_dies(self, actor: str) -> None:
        held, waiting = self.permits.of_actor(actor)
        for session in held:
            self.permits.release(session, actor)
        for session in waiting:
            self.permits.leave(session)
        assert self.permits.of_actor(actor) == ([], [])

    @invariant()
    def limits_hold(self) -> None:
        held = Counter(h.user_id for h in self.permits.held.values())
        waiting = Counter(h.user_id for h in self.permits.waiting.values())
        assert held.total() <= 3
        assert max(held.values(), default=0) <= 2
        assert waiting.total() <= 4
        assert max(waiting.values(), default=0) <= 2
        assert not self.permits.held.keys() & self.permits.waiting.keys()

    def teardown(self) -> None:
        """Whatever happened, all permits can be had again."""
        for session in list(self.permits.waiting):
            self.permits.leave(session)
        for session in list(self.permits.held):
            assert self.permits.release(session)
        granted = [self.permits.acquire(SessionId(f"s{n}"), Holder(UserId(f"v{n}"), "a")) for n in range(4)]
        assert granted == [True, True, True, False]


class Placing(RuleBasedStateMachine):
    """A session is in one place, both maps agree, and no node gets more actors than its budget."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.placement = Placement(budget=2, spare=1, monotonic_s=lambda: self.now_s)
        self.placement.nodes = {"n0": Node("n0", 1.0), "n1": Node("n1", 1.0)}
        self.incarnations = 0

    @rule(new=st.booleans(), index=st.integers(0, 3), held=st.lists(sessions, max_size=3, unique=True))
    def register(self, new: bool, index: int, held: list[SessionId]) -> None:
        actor = f"a{index}"
        known = self.placement.actors.get(actor)
        self.incarnations += 1
        owner = OwnerId(f"o{self.incarnations}") if new or known is None else known.owner_id
        command = RegisterActor(actor=actor, node_id=f"n{index % 2}", owner_id=owner, sessions=tuple(held))
        first, former = self.placement.register(command)
        assert first == (known is None)
        assert (former is not None) == (known is not None and new)
        assert set(held) <= self.placement.actors[actor].sessions.keys()

    @rule(session=sessions, avoid=st.none() | st.sampled_from(["a0", "a1"]))
    def place(self, session: SessionId, avoid: str | None) -> None:
        chosen = self.placement.choose(avoid)
        if chosen is None:
            return
        usable = [a for a in self.placement.actors.values() if a.name != avoid]
        assert chosen.name != avoid
        assert len(chosen.sessions) == min(len(a.sessions) for a in usable)
        self.placement.assign(session, chosen)
        assert self.placement.location(session) is chosen

    @rule(session=sessions, actor=actors)
    def forget(self, session: SessionId, actor: str) -> None:
        self.placement.forget(session, actor)
        location = self.placement.location(session)
        assert location is None or location.name != actor

    @rule(actor=actors)
    def remove(self, actor: str) -> None:
        before = self.placement.actors.get(actor)
        had = dict(before.sessions) if before else {}
        removed = self.placement.remove(actor)
        assert (removed.sessions if removed else {}) == had

    @rule(demand=st.integers(0, 5))
    def start(self, demand: int) -> None:
        wanted = Counter(self.placement.wanted(demand))
        for node_id, count in wanted.items():
            own = sum(a.node_id == node_id for a in self.placement.actors.values())
            assert own + count <= self.placement.budget(node_id)

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @invariant()
    def a_session_is_in_one_place(self) -> None:
        lists: dict[SessionId, list[ActorInfo]] = {}
        for info in self.placement.actors.values():
            for session in info.sessions:
                lists.setdefault(session, []).append(info)
        assert all(len(found) == 1 for found in lists.values())
        assert {s: found[0].name for s, found in lists.items()} == self.placement.locations


TestBuffer = Buffer.TestCase
TestQueue = Queue.TestCase
TestGiving = Giving.TestCase
TestPlacing = Placing.TestCase


@given(st.lists(st.integers(1, 50), max_size=20))
def test_a_writer_that_waits_for_room_gets_it(sizes: list[int]) -> None:
    async def run() -> None:
        queue = OutQueue(60, lambda: 0.0)
        for size in sizes:
            queue.put(b"." * size)
        waiter = asyncio.create_task(queue.writable())
        while queue.depth_bytes:
            await queue.take()
            queue.written()
        await waiter

    asyncio.run(run())
