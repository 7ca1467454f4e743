"""A deployment error is told from bad data by the first records, however the batches fall."""

import numpy as np
import pytest

from fraudstream.clients.feature_library import Applied
from fraudstream.core.errors import (
    DependencyUnreachable,
    KafkaUnreachable,
    RedisUnreachable,
    Refused,
    WritesRefused,
)
from fraudstream.core.health import Health
from scorer.output import BatchAborted
from scorer.status import HANGS_S, Status


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


@pytest.mark.parametrize(
    ("error", "label", "why"),
    [
        (KafkaUnreachable, "kafka", "Kafka does not answer"),
        (BatchAborted, "kafka", "Kafka does not answer"),
        (RedisUnreachable, "redis", "Redis does not answer"),
        (WritesRefused, "writes_refused", "Redis takes no writes"),
    ],
)
def test_a_worker_that_waits_says_for_which_server(
    error: "type[DependencyUnreachable | BatchAborted]", label: str, why: str
) -> None:
    status = Status(state="ready")
    status.wait_for(error("away").what)
    assert (status.waiting_for, status.health()) == (label, Health("waiting", why))
    status.go_on(owns=True)
    assert (status.waiting_for, status.health()) == (None, Health("ready"))


def test_a_worker_that_has_lost_its_partitions_is_not_ready() -> None:
    status = Status(state="ready")
    status.go_on(owns=False)
    assert status.health() == Health("starting")


def test_a_worker_that_rebuilds_shows_how_far_it_is_and_not_the_server_that_it_waited_for() -> None:
    status = Status(rebuild_done=1, rebuild_total=2)
    status.wait_for("redis")
    status.become("rebuilding")
    assert (status.waiting_for, status.health()) == (None, Health("rebuilding", done=1, of=2))


def test_what_was_applied_before_is_counted_as_redelivered_alone() -> None:
    yes, no = True, False
    late, later, again = np.array([[yes, yes, no], [no, yes, yes], [no, yes, no]])
    status = Status()

    status.count_features(
        Applied(np.zeros((3, 9), np.float32), np.arange(3), np.arange(3), later, late, again)
    )

    assert (status.redelivered, status.truncated, status.beyond_retention) == (1, 1, 1)
    assert type(status.redelivered) is int


def test_a_loop_that_does_not_go_on_hangs_until_it_does() -> None:
    status = Status(state="ready")
    status.moved_s -= HANGS_S + 1
    assert (status.health().state, status.health().hangs) == ("waiting", True)
    status.move()
    assert status.health() == Health("ready")
