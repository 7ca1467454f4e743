"""One value or many: a histogram counts the same."""

import numpy as np
import pytest

from scorer.histogram import Histogram

EDGES = (1.0, 2.5, 10.0)


@pytest.mark.parametrize("value", [0.0, 1.0, 1.5, 2.5, 10.0, 10.1, 99_999.0])
def test_a_single_value_is_counted_in_the_bucket_that_it_has_among_many(value: float) -> None:
    single, many = Histogram(EDGES), Histogram(EDGES)

    single.add_one(value, 3)
    many.add(np.array([value] * 3))

    (ours, sum_of_ours), (theirs, sum_of_theirs) = single.read(1_000.0), many.read(1_000.0)
    assert ours == theirs
    assert sum_of_ours == pytest.approx(sum_of_theirs)


def test_single_values_and_arrays_add_up() -> None:
    histogram = Histogram(EDGES)

    histogram.add_one(2.0)
    histogram.add(np.array([0.5, 3.0], np.float32))
    histogram.add_one(50.0)

    buckets, total = histogram.read()
    assert (buckets, total) == ([("1", 1), ("2.5", 2), ("10", 3), ("+Inf", 4)], 55.5)
