"""The plain object inside an `Outbox`: sends what is recorded, and records what became of it.

    woken (something was recorded, a slot is free, a time has come) ──► look: which accounts have something ready?
        ──► claim for each what is free for it ──► each is sent, once ──► what became of it, many at a time
                                                                              └─► the next of its line is ready: look

At least once: an attempt is counted before it is made. One whose process died, or whose answer never came, may have
had its effect; it is recorded as that, and made again under the same delivery id. What is under way belongs to this
process's lease, which is renewed by a loop of its own; the number of the attempt is the fence.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Mapping

import msgspec

from actors.background import Background
from actors.channels.base import Channel, Delivery, Lost, Outcome, Refused
from actors.channels.retries import crashed, result_of, trouble, untried
from actors.channels.settings import OutboxProcessSettings
from actors.clock import Clock
from actors.errors import WunderError
from actors.gathering import Gathering
from actors.handles import DirectoryHandle, quietly
from actors.logs import log
from actors.loop import Loop
from actors.messages import Describe, Drain, Sweep, Wake, decode_command, encode
from actors.models.breaker import Breaker
from actors.outbox_accounts import Account, Accounts
from actors.owner_lease import OwnerLease
from actors.replies import Description, Done, Reply, to_failed
from storage.outbox_records import OutboxItem, OutboxResult
from storage.store import AsyncStorageBackend

_RECORD_BATCH = 200
_RECOVER_BATCH = 200
_RECORD_PAUSES_S = (0.25, 0.5, 1.0, 2.0, 4.0)
_REGISTER_S = 5.0


class OutboxServices(msgspec.Struct, frozen=True, kw_only=True):
    """What an outbox works with; `channels` by name."""

    settings: OutboxProcessSettings
    store: AsyncStorageBackend
    clock: Clock
    channels: Mapping[str, Channel]


class Outbox:
    """At most `max_in_flight` deliveries at a time, and of one account at most `per_account`."""

    def __init__(self, services: OutboxServices, directory: DirectoryHandle, *, actor: str, node_id: str) -> None:
        self._services = services
        self._settings = settings = services.settings.channels.outbox
        self._directory = directory
        self._actor = actor
        self._node_id = node_id
        self._accounts = Accounts(self._new_account)
        self._recording: Gathering[OutboxResult, bool] = Gathering(
            "record-outbox", self._record, most=_RECORD_BATCH, apart=lambda error: not error.retryable
        )
        self._sending: set[tuple[str, int]] = set()
        self._work = Background()
        self._side = Background()
        self._lease = OwnerLease(
            services.store,
            services.clock,
            services.settings.actors.sessions,
            node_id,
            on_taken=self._lease_taken,
            on_lost=lambda reason: None,
        )
        self._unsure = False
        self._recovery_wanted = True
        self._crowded = False
        self._draining = False
        self._timer: asyncio.TimerHandle | None = None
        interval_s = settings.poll_interval_ms / 1000
        self._looks = Loop("outbox", self.look_once, interval_s=interval_s)
        self._recoveries = Loop("outbox-recovery", self._recover_soon, interval_s=interval_s)
        self._register = Loop("register", self._register_once, interval_s=_REGISTER_S)
        self.counts: Counter[str] = Counter()

    async def start(self) -> None:
        await self._services.store.open()
        await self._lease.take()
        self._lease.start()
        for loop in (self._register, self._looks, self._recoveries):
            loop.start()

    async def stop(self) -> None:
        """Claim no more, and give up what is under way: somebody sends it again."""
        await self._leave()
        await self._lease.end()
        for channel in self._services.channels.values():
            await channel.close()
        await self._services.store.close()

    async def crash(self) -> None:
        """End as a killed process would (a fault point for tests)."""
        await self._leave()

    async def _leave(self) -> None:
        self._draining = True
        for loop in (self._looks, self._recoveries, self._register):
            await loop.stop()
        self._set_timer(None)
        await self._work.stop()
        await self._recording.stop()
        await self._side.stop()
        await self._lease.stop()

    async def handle(self, data: bytes) -> bytes:
        """One command in, one reply out; errors travel as replies."""
        try:
            return encode(await self._take(data))
        except WunderError as error:
            return encode(to_failed(error))

    async def _take(self, data: bytes) -> Reply:
        match command := decode_command(data):
            case Wake():
                self._looks.wake()
            case Sweep():
                self._recoveries.wake()
            case Drain():
                await self._drain(command.grace_s)
            case Describe():
                return self._describe()
            case _:
                raise WunderError(f"an outbox does not take {type(command).__name__}")
        return Done()

    async def _drain(self, grace_s: float) -> None:
        """Claim no more; what is under way may end within this time."""
        self._draining = True
        try:
            async with asyncio.timeout(grace_s):
                await self._work.ended()
        except TimeoutError:
            log.warning("outbox_not_drained", in_flight=len(self._sending))

    # -- looking -------------------------------------------------------------------------------------------------

    async def look_once(self) -> None:
        """Begin what can be sent now, and find out when to look again."""
        if self._draining or not self._lease.held:
            return
        if self._unsure or self._recovery_wanted:
            try:
                await self._recover()
            except WunderError:
                self._recovery_wanted = True
                raise
        store, clock = self._services.store, self._services.clock
        found = [(r, due_us) for r, due_us in await store.ready_routes() if _channel(r) in self._services.channels]
        now_us, now_s = clock.now_us(), clock.monotonic_s()
        self._accounts.forget((route for route, _ in found), now_s)
        room = self._settings.max_in_flight - len(self._sending)
        plan = self._accounts.plan(found, room=room, now_us=now_us, now_s=now_s)
        self._crowded = plan.crowded
        self._set_timer(plan.again_s)
        if plan.claims:
            await self._claim(plan.claims, now_us)

    async def _claim(self, claims: tuple[tuple[str, int], ...], now_us: int) -> None:
        self._unsure = True  # until the answer tells what was claimed
        items = await self._services.store.claim_outbox(self._lease.owner_id, claims, now_us=now_us)
        self._unsure = False
        self.counts["claims"] += 1
        got: Counter[str] = Counter()
        for item in items:
            got[item.route] += 1
            self._sending.add((item.delivery_id, item.attempt))
            self._accounts.get(item.route).started(self._services.clock.monotonic_s())
            self._work.start(self._send(item), f"send-{item.delivery_id}")
        if any(got[route] == free for route, free in claims):
            self._crowded = True  # there may be more of it than there was room for

    def _set_timer(self, in_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if in_s is not None and in_s < self._settings.poll_interval_ms / 1000:
            self._timer = asyncio.get_running_loop().call_later(in_s, self._looks.wake)

    # -- sending -------------------------------------------------------------------------------------------------

    async def _send(self, item: OutboxItem) -> None:
        clock, account = self._services.clock, self._accounts.get(item.route)
        told = None
        retry_after_s: float | None = None
        try:
            outcome = await self._outcome(item)
            told = trouble(item.channel, outcome)
            most_s = self._settings.max_retry_after_s
            if isinstance(outcome, Refused) and outcome.retry_after_s is not None:
                retry_after_s = min(outcome.retry_after_s, most_s)
            result = result_of(item, outcome, now_us=clock.now_us(), max_retry_after_s=most_s)
            self._count(item, result)
            await self._record_surely(result)
        finally:
            account.ended(told, clock.monotonic_s(), retry_after_s=retry_after_s)
            self._sending.discard((item.delivery_id, item.attempt))
            if self._crowded or told == "outage":
                self._looks.wake()

    async def _outcome(self, item: OutboxItem) -> Outcome:
        delivery = Delivery(
            delivery_id=item.delivery_id, attempt=item.attempt, account=item.account, peer=item.peer, body=item.body
        )
        limit_s = self._settings.send_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                return await self._services.channels[item.channel].send(delivery)
        except TimeoutError:
            return Lost(detail=f"no answer within {limit_s:g} s")
        except Exception as error:
            # A channel that does what it must not: nobody knows what it has sent.
            log.exception("channel_failed", error, channel=item.channel, delivery=item.delivery_id)
            return Lost(detail=f"the channel failed: {type(error).__name__}")

    def _count(self, item: OutboxItem, result: OutboxResult) -> None:
        self.counts[str(result.outcome)] += 1
        if result.state == "dead":
            self.counts["dead"] += 1
            log.warning("dead_letter", delivery=item.delivery_id, channel=item.channel, code=result.code)

    async def _record_surely(self, result: OutboxResult) -> None:
        """Until it is recorded, or somebody else's attempt: its slot stays taken, so a database away slows us down."""
        for pause_s in itertools.chain(_RECORD_PAUSES_S, itertools.repeat(_RECORD_PAUSES_S[-1])):
            try:
                recorded = await self._recording.ask(result)
            except WunderError:
                await asyncio.sleep(pause_s)
                continue
            if not recorded:
                self.counts["refused_by_fence"] += 1
                log.warning("late_result", delivery=result.delivery_id, attempt=result.attempt)
            return

    async def _record(self, results: list[OutboxResult]) -> list[bool]:
        try:
            done, following = await self._services.store.record_outbox(results)
        except WunderError as error:
            log.warning("results_not_recorded", deliveries=len(results), message=error.message)
            raise
        if following or any(result.state == "pending" for result in results):
            self._looks.wake()
        return done

    # -- what nobody sends any more ------------------------------------------------------------------------------

    async def _recover_soon(self) -> None:
        self._recovery_wanted = True
        self._looks.wake()

    async def _recover(self) -> None:
        """Take back what dead processes were sending, and claims of our own whose answer we never got."""
        store, now_us, mine = self._services.store, self._services.clock.now_us(), self._lease.owner_id
        self._recovery_wanted = False  # whoever asks for it from here on has to be served by the next one
        left = await store.abandoned_outbox(mine, limit=_RECOVER_BATCH + self._settings.max_in_flight)
        results = []
        for item in left:
            if (item.delivery_id, item.attempt) in self._sending:
                continue
            result = untried(item, now_us=now_us) if item.owner_id == mine else crashed(item, now_us=now_us)
            results.append(result)
            if result.outcome is not None:
                self._count(item, result)
        if results:
            await store.record_outbox(results)
            log.warning("outbox_recovered", deliveries=len(results))
        self._unsure = False
        if len(results) >= _RECOVER_BATCH:
            await self._recover_soon()

    def _lease_taken(self) -> None:
        self._recovery_wanted = True
        self._looks.wake()
        self._side.start(quietly(self._register_once()), "register")

    async def _register_once(self) -> None:
        if self._lease.held:
            await self._directory.register_outbox(self._actor, self._node_id, self._lease.owner_id)

    def _new_account(self, route: str) -> Account:
        settings = self._settings
        breaker = Breaker(settings.breaker_failures, settings.breaker_rest_s, settings.breaker_max_rest_s)
        return Account(settings.limit_of(_channel(route)), breaker)

    def _describe(self) -> Description:
        now_s = self._services.clock.monotonic_s()
        alone = self._accounts.open_breakers
        names = ("claims", "sent", "refused", "lost", "crashed", "dead", "refused_by_fence")
        gauges = {f"outbox_{name}": float(self.counts[name]) for name in names}
        gauges |= {"outbox_in_flight": float(len(self._sending)), "outbox_breakers_open": float(len(alone))}
        breakers = [
            {"channel": _channel(route), "account": route.partition(" ")[2], "for_s": round(account.wait_s(now_s), 3)}
            for route, account in sorted(alone.items())
        ]
        return Description(gauges=gauges, info={"breakers": breakers, "leases_lost": self._lease.lost})


def _channel(route: str) -> str:
    return route.partition(" ")[0]
