"""A deployment error is told from bad data by the first records, however the batches fall."""

import pytest

from fraudstream.core.errors import Refused
from scorer.status import Status


def run(batches: list[tuple[int, int]]) -> Status:
    """Count batches of (scored, dead letters), looking after each."""
    status = Status()
    for scored, dead in batches:
        status.count(scored=scored, alerts=0, dead=["malformed_json"] * dead)
        status.check_probe()
    return status


@pytest.mark.parametrize(
    "batches",
    [
        [(0, 500), (0, 500)],
        [(0, 400), (0, 1_000)],
        [(1, 0), (0, 1_000)],
        [(0, 2_000)],
        [(400, 0), (0, 5_000)],
        [(0, 501)],
    ],
)
def test_more_than_half_dead_letters_among_the_first_records_stop_the_worker(
    batches: list[tuple[int, int]],
) -> None:
    with pytest.raises(Refused, match="are dead letters: this looks like a wrong topic or schema"):
        run(batches)


@pytest.mark.parametrize(
    "batches",
    [
        [(500, 500)],
        [(0, 500)],
        [(1_000, 0), (0, 5_000)],
        [(600, 400), (0, 1_000)],
        [(0, 499), (600, 0), (0, 3_000)],
    ],
)
def test_bad_data_later_or_less_of_it_does_not(batches: list[tuple[int, int]]) -> None:
    assert run(batches).probed == (sum(map(sum, batches)) >= 1_000)
