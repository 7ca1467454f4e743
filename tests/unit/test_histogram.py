"""One value or many, counted already or waiting to be: a histogram has each once, whoever reads meanwhile."""

import numpy as np
import pytest
from numpy.typing import NDArray

from scorer.histogram import GATHERED, Histogram, State

EDGES = (1.0, 2.5, 10.0)


def count(histogram: Histogram) -> float:
    return histogram.read()[0][-1][1]


@pytest.mark.parametrize("value", [0.0, 1.0, 1.5, 2.5, 10.0, 10.1, 99_999.0])
def test_a_single_value_is_counted_in_the_bucket_that_it_has_among_many(value: float) -> None:
    single, many = Histogram(EDGES), Histogram(EDGES)

    single.add_one(value, 3)
    many.add([value] * 3)

    (ours, sum_of_ours), (theirs, sum_of_theirs) = single.read(1_000.0), many.read(1_000.0)
    assert ours == theirs
    assert sum_of_ours == pytest.approx(sum_of_theirs)


def test_single_values_and_many_add_up() -> None:
    histogram = Histogram(EDGES)

    histogram.add_one(2.0)
    histogram.add([0.5, 3.0])
    histogram.add_one(50.0)

    buckets, total = histogram.read()
    assert (buckets, total) == ([("1", 1), ("2.5", 2), ("10", 3), ("+Inf", 4)], 55.5)


def test_values_are_seen_at_once_though_they_are_counted_many_at_a_time() -> None:
    histogram = Histogram(EDGES)
    values = np.random.default_rng(1).uniform(0, 20, 3 * GATHERED).tolist()

    for begin in range(0, len(values), 7):
        histogram.add(values[begin : begin + 7])
        added = values[: begin + 7]
        buckets, total = histogram.read()
        assert [n for _, n in buckets[:-1]] == [sum(v <= edge for v in added) for edge in EDGES]
        assert count(histogram) == len(added)
        assert total == pytest.approx(sum(added))


class ReadAmidst(Histogram):
    """One whose reader has got so far as to know what to count, when the other thread goes on."""

    def __init__(self, values: list[float]) -> None:
        super().__init__(EDGES)
        self._amidst = values

    def _counted(self, state: State) -> tuple[NDArray[np.int64], float]:
        amidst, self._amidst = self._amidst, []
        if amidst:
            self.add(amidst)
        return super()._counted(state)


def test_values_that_are_added_and_counted_while_somebody_reads_are_seen_once() -> None:
    histogram = ReadAmidst([2.0] * GATHERED)
    histogram.add([2.0] * 7)

    assert count(histogram) == 7 + GATHERED, "they came before they were counted"
    assert count(histogram) == 7 + GATHERED
