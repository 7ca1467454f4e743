"""Catching up, workers keep partitions close in event time and wait for none that has ended."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.proof_of_features import largest_skew_days
from fraudstream.core.feature_set import DAY_MS, NINE
from fraudstream.core.metrics import EVENT_TIME
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.core.transaction import Entities, Transaction, encode
from tests.integration.served_scores import T0, transactional
from tests.integration.test_workers import view
from tests.ports import free_port
from tests.processes import Worker, faster, wait_until, worker
from verify.ledger import Log, count

LEAD_DAYS = NINE.label_delay_ms / DAY_MS / 4
DAYS = 40
END = T0 + DAYS * DAY_MS


def produce(producer: Producer, settings: Settings, times: Mapping[int, range]) -> None:
    """Produce transactions of one customer a partition at these event times, in one Kafka transaction."""
    begin(producer, settings, times)
    producer.commit_transaction()


def begin(producer: Producer, settings: Settings, times: Mapping[int, range]) -> None:
    """Produce all of a Kafka transaction but its end, so that nobody sees anything yet."""
    name = topic_name(settings.environment, "transactions")
    producer.begin_transaction()
    for partition, each in times.items():
        for time_ms in each:
            entities = Entities(f"customer {partition}", "terminal")
            paid = Transaction(
                1, f"{partition}-{time_ms}", time_ms, "purchase", 100, "EUR", entities
            )
            producer.produce(name, key=entities.customer, value=encode(paid), partition=partition)
            producer.poll(0)
    assert producer.flush(60) == 0


def readable_scores(settings: Settings) -> int:
    with Log(settings) as log:
        return sum(1 for _ in log.records("scores"))


@pytest.mark.parametrize("slow_one_has_more", [True, False], ids=["has_more", "has_ended"])
def test_a_partition_ahead_waits_for_one_that_has_more_and_not_for_one_that_has_ended(
    topics: Settings, tmp_path: Path, *, slow_one_has_more: bool
) -> None:
    """The partition that ends early ends in a marker of a transaction, which looks like one more record."""
    settings = msgspec.structs.replace(topics, batch_max_records=50)
    slow = range(T0, END, DAY_MS // 100)
    if not slow_one_has_more:
        slow = slow[:100]
    fast = range(T0, END, DAY_MS // 10)
    produce(transactional(settings), settings, {0: fast, 1: slow})
    with worker(settings, tmp_path / "worker.log"):
        total = len(slow) + len(fast)
        wait_until(lambda: readable_scores(settings) == total, timeout_s=60, what="all scored")

    if slow_one_has_more:
        assert largest_skew_days(settings) < LEAD_DAYS + 5, "a batch of 50 may be 5 days"


@contextmanager
def two_workers(settings: Settings, folder: Path, *changes: str) -> Iterator[tuple[Worker, Worker]]:
    """Run two workers that own a partition each; yield them in the order of their partitions."""
    with (
        worker(settings, folder / "a.log", changes=changes) as a,
        worker(settings, folder / "b.log", changes=changes) as b,
    ):

        def owner(partition: int) -> Worker | None:
            owns = [each for each in (a, b) if f"owns partitions [{partition}]" in each.said()]
            return owns[0] if owns else None

        wait_until(lambda: bool(owner(0) and owner(1)), timeout_s=40, what="a partition each")
        first, second = owner(0), owner(1)
        assert first is not None
        assert second is not None
        yield first, second


def scored(log: Log, settings: Settings) -> int:
    """Return how many are committed; the marker that each partition ends in is not."""
    return sum(log.committed(f"{settings.environment}.scorer").values())


def wait_for_all(log: Log, settings: Settings, total: int) -> None:
    wait_until(lambda: scored(log, settings) == total, timeout_s=90, what="all scored")
    assert count(log, f"{settings.environment}.scorer").balanced


def produce_at_once(
    settings: Settings, workers: tuple[Worker, Worker], times: Mapping[int, range]
) -> None:
    """Produce while the workers are stopped, so that none sees a partition without the other."""
    producer = transactional(settings)
    begin(producer, settings, times)
    for each in workers:
        each.process.send_signal(signal.SIGSTOP)
    producer.commit_transaction()
    for each in workers:
        each.process.send_signal(signal.SIGCONT)


FAST, SLOW = range(T0, END, DAY_MS // 50), range(T0, END, DAY_MS // 400)
PATIENT = "neighbours are waited for for a minute"
NOT_WAITED_FOR = "it is not waited for any more"


def test_workers_wait_for_each_other(topics: Settings, log: Log, tmp_path: Path) -> None:
    settings = faster(topics, batch_max_records=50, web_port=free_port(adjacent=2))
    with two_workers(settings, tmp_path, PATIENT) as workers:
        produce_at_once(settings, workers, {0: FAST, 1: SLOW})
        held = 'fraudstream_scorer_held{partition="0"} 1'
        wait_until(
            lambda: any(held in view(settings.web_port + slot, "/metrics")[1] for slot in (0, 1)),
            timeout_s=30,
            what="who is ahead waits and says so",
        )
        wait_for_all(log, settings, len(FAST) + len(SLOW))
        assert all(NOT_WAITED_FOR not in each.said() for each in workers)
        shown = [view(settings.web_port + slot, "/metrics")[1] for slot in (0, 1)]
    times = {
        sample.labels["partition"]: sample.value
        for text in shown
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if family.name == EVENT_TIME.name
    }
    assert times == {"0": FAST[-1], "1": SLOW[-1]}
    assert largest_skew_days(settings) < LEAD_DAYS + 2, "a batch of 50 may be a day"


def test_workers_that_do_not_tell_each_other_how_far_they_are_drift_apart(
    topics: Settings, log: Log, tmp_path: Path
) -> None:
    settings = faster(topics, batch_max_records=50)
    with two_workers(settings, tmp_path, "commits carry no event time") as workers:
        produce_at_once(settings, workers, {0: FAST, 1: SLOW})
        wait_for_all(log, settings, len(FAST) + len(SLOW))
    assert largest_skew_days(settings) > 2 * (LEAD_DAYS + 2), "the test above would not see it"


@pytest.mark.parametrize("records", [0, 100], ids=["empty", "has_ended"])
def test_a_worker_does_not_wait_for_a_partition_of_another_that_has_no_more(
    topics: Settings, log: Log, tmp_path: Path, records: int
) -> None:
    """It ends in the marker of a transaction, which looks like one more record."""
    settings = faster(topics, batch_max_records=50)
    with two_workers(settings, tmp_path) as workers:
        produce(transactional(settings), settings, {0: FAST, 1: SLOW[:records]})
        wait_for_all(log, settings, len(FAST) + records)
        assert all(NOT_WAITED_FOR not in each.said() for each in workers)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(signal.SIGKILL, id="killed"),
        pytest.param(signal.SIGSTOP, id="frozen", marks=pytest.mark.proof),
    ],
)
def test_a_worker_waits_for_the_partition_of_a_dead_one_until_it_takes_it_over(
    topics: Settings, log: Log, tmp_path: Path, how: signal.Signals
) -> None:
    """With patience for a slow machine too: a takeover of more than the usual 10 s is not waited for."""
    settings = faster(topics, batch_max_records=50)
    with two_workers(settings, tmp_path, PATIENT) as (alive, dead):
        produce_at_once(settings, (alive, dead), {0: FAST, 1: SLOW})
        wait_until(lambda: scored(log, settings) > 2_000, timeout_s=30, what="some scored")
        dead.process.send_signal(how)
        wait_for_all(log, settings, len(FAST) + len(SLOW))
        assert "owns partitions [0, 1]" in alive.said()
    assert largest_skew_days(settings) < LEAD_DAYS + 2, "a batch of 50 may be a day"
