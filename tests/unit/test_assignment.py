"""Where a worker goes on: group, features and log must fit, or it refuses and says what to do."""

import pytest

from fraudstream.core.errors import Refused
from scorer.assignment import Bounds, check_bounds


@pytest.mark.parametrize(
    ("committed", "mark", "low", "high"),
    [
        (-1, -1, 0, 0),
        (-1, -1, 0, 500),
        (500, 499, 0, 900),
        (500, 899, 0, 900),  # applied further than committed: answered from replies
        (500, 499, 300, 500),
        (500, 400, 0, 900),  # the features lost something: they are rebuilt
        (500, -1, 0, 900),
    ],
)
def test_scoring_goes_on_where_group_and_log_fit(
    committed: int, mark: int, low: int, high: int
) -> None:
    check_bounds(Bounds(partition=0, committed=committed, mark=mark, low=low, high=high))


@pytest.mark.parametrize(
    ("committed", "mark", "low", "high", "says"),
    [
        (-1, -1, 10, 500, "log begins at offset 10"),
        (500, 499, 600, 900, "go on at 500, but the log has 600"),
        (500, 499, 0, 20, "go on at 500, but the log has 0 to 20"),
        (-1, 499, 0, 500, "offsets are gone"),
        (-1, 700, 0, 600, "was the topic recreated"),
    ],
)
def test_a_mismatch_is_refused_with_two_ways_out(
    committed: int, mark: int, low: int, high: int, says: str
) -> None:
    with pytest.raises(Refused, match=says) as caught:
        check_bounds(Bounds(partition=3, committed=committed, mark=mark, low=low, high=high))
    assert "partition 3" in str(caught.value)
    assert "fraudstream topics create" in str(caught.value)
