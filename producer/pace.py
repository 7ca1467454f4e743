"""Second hop of a replay: when is which row due, on an absolute schedule that cannot drift."""

import math
import re
import threading
from typing import Protocol

from msgspec import Struct

from fraudstream.clients.clock import monotonic_s
from fraudstream.core.errors import SettingsError

SLICE_S = 0.02
"""A paced replay sends what is due in slices so long: short enough for a smooth stream."""


class Unpaced(Struct, frozen=True):
    """As fast as possible."""


class AtRate(Struct, frozen=True):
    """So many transactions a second, whatever their event time."""

    per_s: float


class AtSpeed(Struct, frozen=True):
    """Event time runs `factor` times as fast as the wall clock."""

    factor: float


Pace = Unpaced | AtRate | AtSpeed


class Due(Struct, frozen=True):
    """What may be sent: positions below `position`, event times up to `event_time_ms` (UTC)."""

    position: float = math.inf
    event_time_ms: float = math.inf


class Timer(Protocol):
    """What a schedule needs of a clock."""

    def now_s(self) -> float:
        """Return seconds on a clock that never goes back."""

    def wait_until(self, moment_s: float) -> None:
        """Return at `moment_s` of that clock, or earlier if the replay is to stop."""


class StoppableTimer:
    """The real clock; its waiting ends at once when `stop` is set."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def now_s(self) -> float:
        """Return seconds on the monotonic clock."""
        return monotonic_s()

    def wait_until(self, moment_s: float) -> None:
        """Return at `moment_s`, or as soon as `stop` is set."""
        self._stop.wait(max(moment_s - monotonic_s(), 0.0))


class Schedule:
    """Every row has its moment, counted from the first row's; being late never moves the later ones.

    `first_position` and `first_event_ms` belong to the row that is due at second 0.
    """

    def __init__(
        self, pace: Pace, timer: Timer, *, first_position: int, first_event_ms: int
    ) -> None:
        self._pace = pace
        self._timer = timer
        self._first_position = first_position
        self._first_event_ms = first_event_ms
        self._began_s = timer.now_s()
        self._slice = -1

    def next_due(self) -> Due:
        """Wait for the next slice, unless it is past already, and return what is due by its moment."""
        if isinstance(self._pace, Unpaced):
            return Due()
        self._slice = max(self._slice + 1, math.floor(self.elapsed_s() / SLICE_S))
        moment_s = self._slice * SLICE_S
        self._timer.wait_until(self._began_s + moment_s)
        if isinstance(self._pace, AtRate):
            return Due(position=self._first_position + math.floor(moment_s * self._pace.per_s) + 1)
        return Due(event_time_ms=self._first_event_ms + moment_s * self._pace.factor * 1000)

    def elapsed_s(self) -> float:
        """Return the seconds since the first row was due."""
        return self._timer.now_s() - self._began_s

    def lag_s(self, position: int, event_time_ms: int) -> float:
        """Return by how many seconds the row at `position` is late now; 0 without a pace."""
        if isinstance(self._pace, AtRate):
            due_s = (position - self._first_position) / self._pace.per_s
        elif isinstance(self._pace, AtSpeed):
            due_s = (event_time_ms - self._first_event_ms) / (1000 * self._pace.factor)
        else:
            return 0.0
        return max(self.elapsed_s() - due_s, 0.0)


def parse_speed(text: str) -> AtSpeed:
    """Return the pace written as `60x` or `60`.

    Raises:
        SettingsError: it is no positive finite number.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*x?", text.strip().lower())
    if match is None or not 0 < float(match[1]) < math.inf:
        raise SettingsError(f"--speed {text!r}: use a positive number as in 60x (or 0.5x)")
    return AtSpeed(float(match[1]))
