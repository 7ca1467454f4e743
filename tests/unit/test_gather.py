"""How a batch is filled: waited for while it is small, or so large that more are on their way."""

from typing import cast

import pytest
from confluent_kafka import Consumer

from fraudstream.clients.gather import FEW, gather

LONG_S = 60.0


class Log:
    """Stands for a consumer: so many messages are there, and so many more come if they are waited for."""

    def __init__(self, there: int, coming: int = 0) -> None:
        self.there, self.coming = list(range(there)), list(range(there, there + coming))
        self.waited_s = 0.0

    def poll(self, _seconds: float) -> int | None:
        return self.there.pop(0) if self.there else None

    def consume(self, n: int, seconds: float) -> list[int]:
        assert n > 0
        if n > len(self.there) and seconds > 0:
            more = n - len(self.there)
            self.waited_s += seconds if more > len(self.coming) else seconds / 2
            self.there, self.coming = self.there + self.coming[:more], self.coming[more:]
        taken, self.there = self.there[:n], self.there[n:]
        return taken


def gathered(log: Log, most: int, wait_s: float = LONG_S) -> int:
    """Gather, and return how many; fail unless they are the first ones, in order."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fraudstream.clients.gather.monotonic_s", lambda: log.waited_s)
        found = gather(cast("Consumer", log), lambda: most, wait_s=wait_s)
    assert [*map(str, found)] == [*map(str, range(len(found)))]
    return len(found)


def test_nothing_comes_of_nothing() -> None:
    assert gathered(Log(0, coming=5), 1_000) == 0


@pytest.mark.parametrize("most", [1, 2, 10, FEW, 65, 100, 129, 500, 1_000])
def test_a_batch_that_can_be_filled_is_full_and_waits_for_nothing(most: int) -> None:
    log = Log(2_000)
    assert gathered(log, most) == most
    assert log.waited_s == 0


def test_few_are_waited_with_until_they_are_no_longer_few() -> None:
    assert gathered(Log(3, coming=40), 1_000) == 43
    assert gathered(Log(3, coming=500), 1_000) == FEW
    assert gathered(Log(3, coming=500), 10) == 10


@pytest.mark.parametrize("there", [FEW, 100, 499])
def test_many_that_are_no_half_batch_go_at_once(there: int) -> None:
    log = Log(there, coming=900)
    assert gathered(log, 1_000) == there
    assert log.waited_s == 0


@pytest.mark.parametrize("there", [500, 999])
def test_half_a_batch_waits_for_the_rest(there: int) -> None:
    assert gathered(Log(there, coming=900), 1_000) == 1_000
    assert gathered(Log(there, coming=0), 1_000) == there


def test_two_waits_together_are_no_longer_than_one() -> None:
    log = Log(3, coming=90)
    assert gathered(log, 100) == 93
    assert log.waited_s == LONG_S


def test_without_waiting_it_takes_what_is_there() -> None:
    log = Log(70, coming=900)
    assert gathered(log, 1_000, wait_s=0.0) == 70
    assert log.waited_s == 0


def test_how_many_may_be_taken_is_asked_once_the_first_is_there() -> None:
    """Partitions, and the notes of deaths in them, may come with it."""
    log = Log(10)
    found = gather(cast("Consumer", log), lambda: len(log.there) - 6, wait_s=0.0)
    assert len(found) == 3
