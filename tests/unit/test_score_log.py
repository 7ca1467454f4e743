"""Scores are read in any order into the memory of the window alone, and training sees the very same rows."""

import random
from collections.abc import Sequence
from functools import partial

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fraudstream.clients.score_log import FEW, ScoreColumns, ScoreLog
from fraudstream.core.errors import FraudstreamError
from fraudstream.core.feature_set import DAY_MS, NINE
from trainer.build import Dataset, build, newest, window

T0 = 1_532_476_800_000

DELAY_MS = NINE.label_delay_ms
HOUR_MS = 3_600_000
WINDOW_DAYS = 2


def score(number: int, event_time_ms: int) -> bytes:
    """Return a score as the trainer reads it; its first feature is its number."""
    return msgspec.json.encode(
        {
            "transaction_id": str(number),
            "event_time_ms": event_time_ms,
            "customer": f"c{number % 7}",
            "feature_set": NINE.hash,
            "features": [float(number)] + [0.0] * 8,
        }
    )


def columns(days: int | None, as_of_ms: int | None = None) -> ScoreColumns:
    return ScoreColumns(
        NINE, partial(window, as_of_ms=as_of_ms, label_delay_ms=DELAY_MS, days=days)
    )


def read(
    times: Sequence[int], *, days: int | None, as_of_ms: int | None = None, batch: int = 3
) -> ScoreLog:
    """Return scores of these times, read in batches as a training on `days` does."""
    found = columns(days, as_of_ms)
    numbered = list(enumerate(times))
    for first in range(0, len(times), batch):
        found.add([score(*each) for each in numbered[first : first + batch]])
    return found.log()


def learned_from(log: ScoreLog, as_of_ms: int) -> tuple[Dataset, list[float]]:
    labels = {str(number): "fraud" for number in range(0, 1_000, 3)}
    mature = build(log, labels, as_of_ms=as_of_ms, label_delay_ms=DELAY_MS, days=WINDOW_DAYS)
    young = newest(log, as_of_ms=as_of_ms, label_delay_ms=DELAY_MS)
    return mature, young[:, 0].tolist()


def check_same(times: Sequence[int], as_of_ms: int | None, batch: int) -> None:
    """Fail unless training sees the same rows whether or not those before the window were dropped."""
    whole = read(times, days=None, batch=batch)
    pruned = read(times, days=WINDOW_DAYS, as_of_ms=as_of_ms, batch=batch)
    at_ms = whole.newest_ms if as_of_ms is None else as_of_ms
    assert (pruned.read, pruned.newest_ms) == (whole.read, whole.newest_ms)
    assert whole.read == len(times)
    (wanted, wanted_young), (found, young) = learned_from(whole, at_ms), learned_from(pruned, at_ms)
    assert young == wanted_young
    for name in ("features", "labels", "event_time_ms", "customers"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name)), name


hours = st.integers(-30 * 24, 30 * 24)
around_the_border = st.builds(
    lambda hour, ms: T0 + hour * HOUR_MS + ms, hours, st.sampled_from([-1, 0, 1])
)


@given(
    st.lists(around_the_border, min_size=1, max_size=60),
    st.none() | around_the_border,
    st.integers(1, 20),
)
def test_training_sees_the_same_rows_whatever_their_order(
    times: list[int], as_of_ms: int | None, batch: int
) -> None:
    check_same(times, as_of_ms, batch)


@pytest.mark.parametrize("batch", [1, 3, 50])
@pytest.mark.parametrize("as_of_ms", [None, T0])
def test_the_edges_of_the_window_are_those_of_the_rows_that_are_learned_from(
    as_of_ms: int | None, batch: int
) -> None:
    border = T0 - DELAY_MS - WINDOW_DAYS * DAY_MS
    edges = [border, border + 1, border - 1, T0 - DELAY_MS, T0 - DELAY_MS + 1]
    times = [*edges, *[T0] * FEW]

    log = read(times, days=WINDOW_DAYS, as_of_ms=as_of_ms, batch=batch)

    assert log.ids() == ["1", "3", "4", *map(str, range(5, 5 + FEW))]
    assert learned_from(log, T0)[0].features[:, 0].tolist() == [1, 3]
    check_same(times, as_of_ms, batch)


@pytest.mark.parametrize("step_ms", [HOUR_MS, -HOUR_MS], ids=["oldest first", "newest first"])
def test_memory_holds_the_window_alone_however_long_the_log(step_ms: int) -> None:
    disorder = random.Random(3)
    found = columns(WINDOW_DAYS)
    window_hours = (WINDOW_DAYS + DELAY_MS // DAY_MS) * 24
    most = 0
    for first in range(0, 20 * window_hours, 48):
        hours = range(first, first + 48)
        found.add([score(n, T0 + n * step_ms + disorder.randint(0, HOUR_MS)) for n in hours])
        most = max(most, found.rows)
    assert most <= window_hours + 2 + FEW
    assert found.log().read == 20 * window_hours


def test_a_replay_of_an_old_year_costs_no_memory_and_moves_no_window() -> None:
    year_ms = 365 * DAY_MS
    times = [T0 + n * HOUR_MS - (year_ms if n % 2 else 0) for n in range(48)]

    log = read(times, days=WINDOW_DAYS)

    assert log.ids() == [str(n) for n in range(0, 48, 2)]
    check_same(times, None, 5)


def test_what_came_after_the_time_that_labels_count_at_takes_no_memory() -> None:
    log = read([T0, T0 + 1, T0 - 1], days=None, as_of_ms=T0)

    assert (log.ids(), log.read) == (["0", "2"], 3)


@pytest.mark.parametrize("place", [0, 50, 100])
def test_a_few_wrong_clocks_move_no_window(place: int) -> None:
    right = [T0 + n * HOUR_MS // 2 for n in range(100)]
    wrong = [T0 + 300 * DAY_MS + n for n in range(FEW - 1)]
    times = [*right[:place], *wrong, *right[place:]]

    log = read(times, days=WINDOW_DAYS)

    assert right[-FEW] <= log.newest_ms <= right[-1]
    assert len(log.ids()) == len(times)
    check_same(times, None, 7)


def test_the_newest_is_the_newest_while_traffic_is_steady_and_after_a_pause_once_enough_came() -> (
    None
):
    steady = [T0 + n * HOUR_MS for n in range(100)]
    later = [T0 + 300 * DAY_MS + n for n in range(FEW)]

    assert read(steady, days=WINDOW_DAYS).newest_ms == steady[-1]
    log = read([*steady, *later], days=WINDOW_DAYS)
    assert log.newest_ms == later[-1]
    assert len(log.ids()) == FEW


def test_of_hardly_any_scores_the_newest_counts() -> None:
    assert read([T0, T0 + 900 * DAY_MS], days=None).newest_ms == T0 + 900 * DAY_MS
    assert read([], days=None).newest_ms == 0


def test_without_days_everything_is_kept() -> None:
    log = read([T0, T0 + 900 * DAY_MS], days=None)

    assert (len(log.transaction_ids), log.read) == (2, 2)


def test_a_score_takes_less_than_a_hundred_bytes() -> None:
    found = columns(None)
    found.add([score(10_000_000 + n, T0 + n) for n in range(20_000)])
    assert found.nbytes / found.rows < 100


def test_a_record_that_is_no_score_is_refused_with_what_to_do() -> None:
    with pytest.raises(FraudstreamError, match="the topic scores holds a record that is no score"):
        columns(None).add([b'{"transaction_id": 1}'])
