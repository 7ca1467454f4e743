"""What is broken, when, in which order: all of it follows from the number of kills and a seed."""

import random
from collections.abc import Sequence
from typing import Literal

import msgspec

from verify.chaos.points import POINTS, REBUILDING

What = Literal[
    "kill",
    "freeze",
    "resize",
    "swap",
    "kafka killed",
    "kafka frozen",
    "redis killed",
    "redis frozen",
    "redis emptied",
]
SERVER_FAULTS: tuple[What, ...] = ("redis killed", "kafka frozen", "kafka killed", "redis frozen")
RANDOM = "random"
"""In place of a point: the kill comes at a random time, from outside."""

POINT_SHARE = 0.75
TAKEOVER_SHARE = 0.04
WAIT_SHARE = 0.35
"""After so many of the kills the recovery is waited for; after the others the next fault comes into it."""
MOST_PASSINGS = 25
SIZES = (1, 2, 2, 3, 3, 4)
SWAPS = 2


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happens; what is not meant for its kind is without meaning.

    `seconds` is how long a server is frozen, or how long after the one before a random kill comes.
    `restart` False: nobody takes the slot of the killed worker until others have its partitions.
    """

    what: What
    point: str = ""
    passings: int = 1
    restart: bool = True
    wait: bool = True
    seconds: float = 0.0
    workers: int = 2

    @property
    def breaks_a_server(self) -> bool:
        """Return whether it is a fault of Kafka or Redis, or needs one."""
        return self.what.startswith(("kafka", "redis")) or self.point == REBUILDING


def make_schedule(kills: int, seed: int, *, points: Sequence[str] = POINTS) -> list[Event]:
    """Return `kills` kills of workers and, among them, everything else; the same for the same arguments.

    With fewer kills than points, as many points as there are kills are drawn. What makes Redis be filled
    from the beginning of the log comes in the first half, and seldom: it takes longer and longer.
    """
    dice = random.Random(seed)  # noqa: S311 - a schedule, no secret
    chosen = list(points) if kills >= len(points) else dice.sample(list(points), kills)
    rebuilders = [REBUILDING] * max(1, kills // 100) if REBUILDING in chosen else []
    cheap = [point for point in chosen if point != REBUILDING]
    at_points = max(len(cheap), round(kills * POINT_SHARE) - len(rebuilders))
    names = [cheap[i % len(cheap)] for i in range(min(at_points, kills - len(rebuilders)))]
    names += [RANDOM] * (kills - len(names) - len(rebuilders))
    dice.shuffle(names)
    events = [_kill(name, dice) for name in names]
    others = _others(kills, dice)
    others += [(dice.randint(0, kills // 2), _kill(name, dice)) for name in rebuilders]
    for place, event in sorted(others, key=lambda pair: -pair[0]):
        events.insert(place, event)
    return events


def planned_points(events: Sequence[Event]) -> list[str]:
    """Return the points at which workers are to die, in their order."""
    found = {event.point for event in events if event.what == "kill"}
    return [point for point in POINTS if point in found]


def _kill(name: str, dice: random.Random) -> Event:
    restarting = name.startswith("prove.") or name == REBUILDING
    return Event(
        what="kill",
        point=name,
        passings=1 if restarting else dice.randint(1, MOST_PASSINGS),
        restart=restarting or dice.random() >= TAKEOVER_SHARE,
        wait=dice.random() < WAIT_SHARE,
        seconds=dice.random() * 0.5,
    )


def _others(kills: int, dice: random.Random) -> list[tuple[int, Event]]:
    """Return events that are no kills of workers, each with its place among the kills."""

    def somewhere() -> int:
        return dice.randint(1, max(kills - 1, 1))

    found = [(kills * (i + 1) // (SWAPS + 1), Event(what="swap")) for i in range(SWAPS)]
    found += [(somewhere(), Event(what="freeze")) for _ in range(max(1, kills // 25))]
    found += [
        (somewhere(), Event(what="resize", workers=dice.choice(SIZES)))
        for _ in range(max(1, kills // 8))
    ]
    found += [
        (dice.randint(0, kills // 2), Event(what="redis emptied"))
        for _ in range(max(1, kills // 80))
    ]
    begin = dice.randrange(len(SERVER_FAULTS))
    for i in range(max(1, kills // 14)):
        what = SERVER_FAULTS[(begin + i) % len(SERVER_FAULTS)]
        found.append((somewhere(), Event(what=what, seconds=dice.uniform(2, 7))))
    return found
