"""Plays a schedule: each event comes when the one before is over, or in the middle of its recovery."""

import random
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.settings import Settings
from fraudstream.stack.locks import pause
from fraudstream.stack.state import ServerName
from verify.chaos import breaking
from verify.chaos.fleet import Fleet, Worker
from verify.chaos.points import REBUILDING
from verify.chaos.report import Rebuilt
from verify.chaos.schedule import RANDOM, Event
from verify.chaos.stage import Sender, Tell, promote_version
from verify.chaos.watch import Pending, Watch

POLL_S = 0.01
DEATH_S = 20.0
"""A point that is not passed so often within this time is tried again later, with fewer passings."""
MOST_TRIES = 6
OWNED_S = 120.0
COMMIT_S = 120.0
"""A product that stands still for so long while its servers run has failed."""
REBUILD_DEATH_S = 90.0
ZOMBIE_S = 9.0
"""Longer than the session timeout of 6 s, until which nobody knows that the worker is gone."""
TOOK_OVER_S = 7.0


class Parts(NamedTuple):
    """What a run is made of."""

    fleet: Fleet
    sender: Sender
    watch: Watch


class Player:
    """Carries out events one after the other; `kills_by_point` counts what was really hit."""

    def __init__(
        self, settings: Settings, parts: Parts, *, versions: Sequence[str], tell: Tell, seed: int
    ) -> None:
        self._settings = settings
        self._fleet, self._sender, self._watch = parts.fleet, parts.sender, parts.watch
        self._versions = deque(versions)
        self.promoted: list[str] = []
        """The versions that were swapped in."""
        self._tell = tell
        self._dice = random.Random(seed)  # noqa: S311 - a schedule, no secret
        self._zombies: list[tuple[Worker, float]] = []
        self.kills_by_point: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.rebuilds: list[Rebuilt] = []

    @property
    def kills(self) -> int:
        """Return how many workers were killed."""
        return sum(self.kills_by_point.values())

    def play(self, events: Sequence[Event]) -> None:
        """Carry out all events; a kill whose point was not passed in time is repeated at the end.

        If it never comes about there, a worker is killed at a random time instead.

        Raises:
            FraudstreamError: no score is committed any more, or none of a new version, a server stays away,
                the replay fails, or a worker's log lacks its place.
        """
        left = deque((event, 1) for event in events)
        while left:
            event, tries = left.popleft()
            self._tick()
            if event.what != "kill":
                self._other(event)
            elif not self._kill(event):
                self.missed[event.point] += 1
                left.extend(_instead(event, tries))
        self._wake(at_once=True)
        self._await_served()

    def _tick(self) -> None:
        self._sender.check()
        self._wake()
        self._fleet.look()

    def _wake(self, *, at_once: bool = False) -> None:
        """Let the zombies go on whose time has come."""
        due = [each for each in self._zombies if at_once or monotonic_s() > each[1]]
        for each in due:
            each[0].wake()
            self._zombies.remove(each)
            self.others["zombie woken"] += 1
            self._watch.tell("zombie woken")

    def _wait(self, seconds: float, over: Callable[[], bool] = lambda: False) -> bool:
        """Look after the workers until something is so, at most so long; return whether it is."""
        deadline = monotonic_s() + seconds
        while not over():
            if monotonic_s() > deadline:
                return False
            self._tick()
            pause(POLL_S)
        return True

    # ------------------------------------------------------------- workers

    def _kill(self, event: Event) -> bool:
        """Kill a worker as the event says; return whether it died there."""
        self._watch.drop()
        if event.point == REBUILDING:
            return self._kill_rebuilder(event)
        if event.point.startswith("prove."):
            return self._kill_newcomer(event)
        victim = self._victim()
        if event.point == RANDOM:
            self._wait(event.seconds)
            if not victim.alive:
                return False
            victim.kill()
        elif not self._die_at(victim, event.point, event.passings, DEATH_S):
            return False
        self._died(victim, event)
        return True

    def _victim(self) -> Worker:
        """Return a worker that has partitions; wait for one."""
        found: list[Worker] = []

        def there() -> bool:
            found[:] = [each for each in self._fleet.able if each.owned()]
            return bool(found)

        if not self._wait(OWNED_S, there):
            raise self._stuck(f"no worker has partitions within {OWNED_S:.0f} s")
        return self._dice.choice(found)

    def _die_at(self, victim: Worker, point: str, passings: int, seconds: float) -> bool:
        victim.arm(point, passings)
        if self._wait(seconds, lambda: not victim.alive):
            return victim.killed
        self._tell(f"point {point} was not passed {passings} times: see {victim.log}")
        victim.tell_where()
        victim.disarm()
        return victim.killed

    def _died(self, victim: Worker, event: Event) -> None:
        """Count a death, see to the replacement, and measure how long the partitions stand still.

        Raises:
            FraudstreamError: the dead had partitions, and its log does not tell its place in the group.
        """
        self._count(event.point)
        partitions = victim.owned()
        if partitions and victim.place() is None:
            raise FraudstreamError(f"{victim.log} tells of partitions and of no place in the group")
        if not event.restart:
            self._fleet.wanted = max(len(self._fleet.able), 1)
        kind = partial(self._kind_of_recovery, victim)
        pending = self._watch.expect(kind, partitions) if partitions else None
        self._fleet.look()
        if pending is not None and (event.wait or not event.restart):
            self._recovered(pending)
        if not event.restart:
            self._fleet.wanted = max(self._fleet.wanted, 2)

    def _kind_of_recovery(self, dead: Worker) -> str:
        """Return what a recovery was, once it is over: the dead worker came back, or others took over."""
        return "restarted_worker" if self._fleet.restarted(dead) else "takeover"

    def _stuck(self, what: str) -> FraudstreamError:
        """Return the error of a product that does not go on, after the workers have logged where they are."""
        for each in self._fleet.able:
            each.tell_where()
        logs = ", ".join(each.log.name for each in self._fleet.able)
        return FraudstreamError(f"{what}; what {logs} are doing stands in their logs")

    def _count(self, point: str) -> None:
        self.kills_by_point[point] += 1
        self._tell(f"kill {self.kills}: {point}")
        self._watch.tell(f"kill {self.kills} ({point})")

    def _recovered(self, pending: Pending) -> None:
        if not self._wait(COMMIT_S, lambda: pending.took_s is not None):
            whose = f" of partitions {sorted(pending.partitions)}" if pending.partitions else ""
            raise self._stuck(
                f"no score{whose} was committed within {COMMIT_S:.0f} s after a fault ({pending.kind()})"
            )

    def _kill_newcomer(self, event: Event) -> bool:
        """Kill a worker, and the one that comes in its place while it finds its place."""
        victim = self._victim()
        victim.kill()
        self._count(RANDOM)
        newcomer = self._fleet.start()
        if not self._die_at(newcomer, event.point, event.passings, DEATH_S * 2):
            return False
        self._died(newcomer, event)
        return True

    def _kill_rebuilder(self, event: Event) -> bool:
        """Empty Redis and kill whichever worker fills it."""
        self._victim()
        armed = self._fleet.able
        for each in armed:
            each.arm(event.point, event.passings)
        self._empty_redis()
        self._wait(REBUILD_DEATH_S, lambda: any(each.killed for each in armed))
        for each in armed:
            each.disarm()
        killed = [each for each in armed if each.killed]
        if not killed:
            return False
        pending = self._watch.expect("rebuild_of_a_killed_rebuilder", polled=True)
        for _ in killed:
            self._count(event.point)
        self._recovered(pending)
        return True

    # -------------------------------------------------------------- others

    def _other(self, event: Event) -> None:
        self.others[event.what] += 1
        self._tell(event.what)
        self._watch.tell(event.what)
        self._watch.drop()
        if event.what == "freeze":
            self._freeze_worker()
        elif event.what == "resize":
            self._resize(event.workers)
        elif event.what == "swap":
            self._swap()
        elif event.what == "redis emptied":
            self._rebuild()
        else:
            self._break_server(event)

    def _swap(self) -> None:
        """Promote the next version, once the newest has scored: else that swap would not be proven."""
        self._await_served()
        version = self._versions.popleft()
        promote_version(self._settings, version)
        self.promoted.append(version)

    def _await_served(self) -> None:
        """Wait until the version that was swapped in last has scored something.

        Raises:
            FraudstreamError: it never does.
        """
        if not self.promoted:
            return
        version = self.promoted[-1]
        if not self._wait(COMMIT_S, lambda: self._watch.has_seen(version)):
            raise self._stuck(
                f"version {version} was promoted and has scored nothing within {COMMIT_S:.0f} s"
            )

    def _freeze_worker(self) -> None:
        """Freeze a worker beyond its session; it wakes while the run goes on."""
        victim = self._victim()
        partitions = victim.owned()
        self._fleet.wanted = max(self._fleet.wanted, 2)
        victim.freeze()
        self._zombies.append((victim, monotonic_s() + ZOMBIE_S))
        self._fleet.look()
        self._recovered(self._watch.expect("takeover", partitions))

    def _resize(self, workers: int) -> None:
        self._fleet.wanted = workers
        leaving = self._fleet.able[workers:]
        for each in leaving:
            self._fleet.stop(each)
        self._fleet.look()

    def _rebuild(self) -> None:
        records = self._sender.position
        self._empty_redis()
        pending = self._watch.expect("rebuild", polled=True)
        self._recovered(pending)
        self.rebuilds.append(Rebuilt(records, round((pending.took_s or 0.0) * 1000, 1)))

    def _empty_redis(self) -> None:
        breaking.empty_redis(self._settings)

    def _break_server(self, event: Event) -> None:
        name: ServerName = "kafka" if event.what.startswith("kafka") else "redis"
        if event.what.endswith("killed"):
            breaking.kill(self._settings, name)
        else:
            breaking.freeze(self._settings, name, event.seconds)
        self._recovered(self._watch.expect(f"{name}_back", polled=name == "redis"))


def _instead(event: Event, tries: int) -> list[tuple[Event, int]]:
    """Return what is to be tried for a kill that did not come about so often, and for which time."""
    if tries < MOST_TRIES:
        return [(event, tries + 1)]
    if event.point == RANDOM:
        return []  # each victim ended by itself first, and the report has a kill less than was ordered
    return [(msgspec.structs.replace(event, point=RANDOM), 1)]
