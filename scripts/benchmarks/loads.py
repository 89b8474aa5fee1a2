"""What a client process does: one class per kind of plan, each prepares, measures, and reports numbers."""

from __future__ import annotations

import asyncio
from collections import Counter

from scripts.benchmarks.links import Player, open_players, understand, wait
from scripts.benchmarks.numbers import Numbers, percentiles
from scripts.benchmarks.plan import Plan, Script
from scripts.benchmarks.readings import Checked, Reading
from scripts.benchmarks.sockets import Socket

_PROBE_AFTER_EVENTS = 5
_SESSION_TURNS = 10


class Report:
    """Numbers of a measurement and what was wrong with it (each kind of problem once, with its count)."""

    def __init__(self) -> None:
        self.numbers: Numbers = {}
        self._problems: Counter[str] = Counter()

    def blame(self, checked: Checked) -> None:
        for problem in checked.problems[:3]:
            self._problems[problem[:160]] += 1

    @property
    def problems(self) -> list[str]:
        return [f"{count} x {problem}" for problem, count in self._problems.most_common(10)]


def overhead_ns(reading: Reading, checked: Checked) -> tuple[int, int] | None:
    """What was added before the first delta and after upstream's end; upstream's clock tick (2 ms) is in it."""
    if not reading.ended_ns or not checked.stamps_ns:
        return None
    before = checked.stamps_ns[0] - reading.sent_ns
    after = reading.ended_ns - checked.stamps_ns[-1] - int(reading.script.period_s * 1e9)
    return before, after


class StreamLoad:
    """Turns that begin evenly over `ramp_s` and stream side by side."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._players: list[Player] = []
        self._readings: list[Reading] = []

    async def prepare(self) -> None:
        self._players = await open_players(self._plan, self._plan.streams)
        await asyncio.sleep(1.0)

    async def measure(self) -> None:
        plan = self._plan
        await start_evenly(self._players, plan, self._readings)
        await asyncio.gather(*(wait(reading, plan.script.seconds + plan.timeout_s) for reading in self._readings))

    def report(self) -> Report:
        report = Report()
        delays: list[int] = []
        before: list[int] = []
        after: list[int] = []
        events = 0
        for reading in self._readings:
            checked = understand(reading, self._plan)
            report.blame(checked)
            delays += checked.delays_ns
            events += checked.events
            if (overhead := overhead_ns(reading, checked)) is not None:
                before.append(overhead[0])
                after.append(overhead[1])
        turns = [first + last for first, last in zip(before, after, strict=True)]
        report.numbers = {"deltas": len(delays), "events": events, **percentiles("delta", delays)}
        for name, values in (("turn", turns), ("before", before), ("after", after)):
            report.numbers |= percentiles(name, values)
        return report


async def start_evenly(players: list[Player], plan: Plan, readings: list[Reading]) -> None:
    """Start one turn on each player, spread over `ramp_s`."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    for number, player in enumerate(players):
        await asyncio.sleep(begin + plan.ramp_s * number / len(players) - loop.time())
        readings.append(player.start(plan.script))


class TurnLoad:
    """Workers that each play short turns, one after another, on a session that is renewed now and then."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._players: list[Player] = []
        self._readings: list[tuple[Reading, bool]] = []

    async def prepare(self) -> None:
        self._players = await open_players(self._plan, self._plan.streams)
        await asyncio.sleep(1.0)

    async def measure(self) -> None:
        await asyncio.gather(*(self._work(player) for player in self._players))

    async def _work(self, player: Player) -> None:
        for number in range(self._plan.turns):
            if number and number % _SESSION_TURNS == 0:
                player.session_id = None
            new = player.session_id is None
            reading = await player.play(self._plan.script, self._plan.timeout_s)
            self._readings.append((reading, new))
            player.session_id = reading.session_id

    def report(self) -> Report:
        report = Report()
        found: dict[str, list[int]] = {}
        deltas = 0
        for reading, new in self._readings:
            checked = understand(reading, self._plan)
            report.blame(checked)
            overhead = overhead_ns(reading, checked)
            if checked.problems or overhead is None:
                continue
            deltas += len(checked.delays_ns)
            kind = "new" if new else "turn"
            found.setdefault(kind, []).append(sum(overhead))
            found.setdefault("accepted", []).append(reading.accepted_ns - reading.sent_ns)
            found.setdefault("first", []).append(checked.first_event_ns - reading.accepted_ns)
            found.setdefault("first_delta", []).append(checked.first_delta_ns - reading.sent_ns)
            found.setdefault("after", []).append(overhead[1])
        report.numbers = {"turns": len(self._readings), "deltas": deltas}
        for name, values in found.items():
            report.numbers |= percentiles(name, values)
        return report


class CancelLoad:
    """Probes that are cancelled one after another beside `streams - 1` running ones; then those, all at once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._probe: Player
        self._players: list[Player] = []
        self._probes: list[Reading] = []
        self._load: list[Reading] = []

    async def prepare(self) -> None:
        self._probe, *self._players = await open_players(self._plan, self._plan.streams)
        await start_evenly(self._players, self._plan, self._load)
        await asyncio.sleep(2.0)

    async def measure(self) -> None:
        plan = self._plan
        for _ in range(plan.turns):
            reading = self._probe.start(plan.script)
            self._probes.append(reading)
            async with asyncio.timeout(plan.timeout_s):
                # A wait for each frame would cost what is measured.
                while len(reading.raw) < _PROBE_AFTER_EVENTS and not reading.done.done():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            self._probe.link.cancel(reading)
            await wait(reading, plan.timeout_s)
        for player, reading in zip(self._players, self._load, strict=True):
            player.link.cancel(reading)
        await asyncio.gather(*(wait(reading, plan.timeout_s) for reading in self._load))

    def report(self) -> Report:
        report = Report()
        deltas = 0
        for name, readings in (("cancel", self._probes), ("all_at_once", self._load)):
            values: list[int] = []
            for reading in readings:
                checked = understand(reading, self._plan)
                report.blame(checked)
                deltas += len(checked.delays_ns)
                if not checked.problems:
                    values.append(reading.ended_ns - reading.cancel_sent_ns)
            report.numbers |= percentiles(name, values)
        report.numbers |= {"probes": len(self._probes), "deltas": deltas}
        return report


class IdleLoad:
    """Connections that say nothing."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sockets: list[Socket] = []

    async def prepare(self) -> None:
        """The server has had one turn, so that what it loads late is loaded."""
        await open_players(self._plan, 1)

    async def measure(self) -> None:
        for first in range(0, self._plan.connections, 20):
            count = min(20, self._plan.connections - first)
            self._sockets += await asyncio.gather(*(Socket.open(self._plan) for _ in range(count)))

    def report(self) -> Report:
        report = Report()
        report.numbers = {"connections": len(self._sockets)}
        return report


LOADS = {"stream": StreamLoad, "turn": TurnLoad, "cancel": CancelLoad, "idle": IdleLoad}

__all__ = ["LOADS", "Report", "Script"]
