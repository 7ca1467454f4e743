"""When rows are due: an absolute schedule under a clock that the test moves."""

from itertools import pairwise

import pytest

from fraudstream.core.errors import SettingsError
from producer.pace import SLICE_S, AtRate, AtSpeed, Due, Schedule, Unpaced, parse_speed


class MovedTimer:
    """A clock that moves by waiting, and by what the test adds."""

    def __init__(self) -> None:
        self.moment_s = 1_000.0

    def now_s(self) -> float:
        return self.moment_s

    def wait_until(self, moment_s: float) -> None:
        self.moment_s = max(self.moment_s, moment_s)


def schedule(pace: AtRate | AtSpeed | Unpaced, timer: MovedTimer) -> Schedule:
    return Schedule(pace, timer, first_position=40, first_event_ms=5_000_000)


def test_the_first_row_is_due_at_once() -> None:
    timer = MovedTimer()
    assert schedule(AtRate(500), timer).next_due() == Due(position=41)
    assert schedule(AtSpeed(60), timer).next_due() == Due(event_time_ms=5_000_000)
    assert timer.moment_s == 1_000.0


def test_a_rate_is_kept_without_drift_however_slow_the_sending_is() -> None:
    timer = MovedTimer()
    paced = schedule(AtRate(500), timer)
    due = paced.next_due()
    while timer.moment_s < 1_010.0:
        timer.moment_s += 0.013
        due = paced.next_due()
    elapsed_s = timer.moment_s - 1_000.0
    assert due.position == pytest.approx(41 + elapsed_s * 500, abs=500 * SLICE_S + 1)


def test_slices_follow_each_other_without_a_leap() -> None:
    timer = MovedTimer()
    paced = schedule(AtRate(1_000), timer)
    positions = [paced.next_due().position for _ in range(50)]
    steps = {b - a for a, b in pairwise(positions)}
    assert steps == {1_000 * SLICE_S}


def test_after_a_pause_everything_overdue_is_due_at_once() -> None:
    timer = MovedTimer()
    paced = schedule(AtRate(500), timer)
    paced.next_due()
    timer.moment_s += 3.0
    before_s = timer.moment_s
    assert paced.next_due().position == pytest.approx(41 + 1_500, abs=500 * SLICE_S)
    assert timer.moment_s == pytest.approx(before_s, abs=SLICE_S)


def test_event_time_runs_as_many_times_as_fast_as_the_clock() -> None:
    timer = MovedTimer()
    paced = schedule(AtSpeed(60), timer)
    while timer.moment_s < 1_002.0:
        due = paced.next_due()
    assert due.event_time_ms == pytest.approx(5_000_000 + 120_000, abs=60_000 * SLICE_S)


def test_lag_is_counted_from_the_moment_of_the_row_itself() -> None:
    timer = MovedTimer()
    by_rate, by_speed = schedule(AtRate(10), timer), schedule(AtSpeed(2), timer)
    timer.moment_s += 7.0
    assert by_rate.lag_s(60, 0) == pytest.approx(5.0)
    assert by_speed.lag_s(0, 5_004_000) == pytest.approx(5.0)
    assert by_rate.lag_s(200, 0) == 0.0


def test_without_a_pace_everything_is_due_and_nothing_is_late() -> None:
    timer = MovedTimer()
    free = schedule(Unpaced(), timer)
    assert free.next_due() == Due()
    timer.moment_s += 5.0
    assert free.lag_s(10**9, 0) == 0.0


@pytest.mark.parametrize(("text", "factor"), [("60x", 60.0), ("60", 60.0), (" 0.5X ", 0.5)])
def test_a_speed_is_a_number_with_or_without_x(text: str, factor: float) -> None:
    assert parse_speed(text) == AtSpeed(factor)


@pytest.mark.parametrize("text", ["", "x", "0x", "-3x", "nan", "fast", "1e400x", "9" * 400])
def test_another_speed_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(SettingsError, match="60x"):
        parse_speed(text)
