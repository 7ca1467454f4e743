"""Catching up, a worker keeps its partitions close in event time and waits for none that has ended."""

from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer

from benchmarks.proof_of_features import largest_skew_days
from fraudstream.core.feature_set import DAY_MS, NINE
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.core.transaction import Entities, Transaction, encode
from tests.integration.served_scores import T0, transactional
from tests.processes import wait_until, worker
from verify.ledger import Log

LEAD_DAYS = NINE.label_delay_ms / DAY_MS / 4


def produce(producer: Producer, settings: Settings, partition: int, times: range) -> None:
    """Produce transactions of one customer at these event times, committed as one Kafka transaction."""
    name = topic_name(settings.environment, "transactions")
    producer.begin_transaction()
    for time_ms in times:
        entities = Entities(f"customer {partition}", "terminal")
        paid = Transaction(1, f"{partition}-{time_ms}", time_ms, "purchase", 100, "EUR", entities)
        producer.produce(name, key=entities.customer, value=encode(paid), partition=partition)
        producer.poll(0)
    producer.commit_transaction()


def readable_scores(settings: Settings) -> int:
    with Log(settings) as log:
        return sum(1 for _ in log.records("scores"))


@pytest.mark.parametrize("slow_one_has_more", [True, False], ids=["has_more", "has_ended"])
def test_a_partition_ahead_waits_for_one_that_has_more_and_not_for_one_that_has_ended(
    topics: Settings, tmp_path: Path, *, slow_one_has_more: bool
) -> None:
    """The partition that ends early ends in a marker of a transaction, which looks like one more record."""
    settings = msgspec.structs.replace(topics, batch_max_records=50)
    producer, days = transactional(settings), 40
    slow = range(T0, T0 + days * DAY_MS, DAY_MS // 100)
    if not slow_one_has_more:
        slow = slow[:100]
    fast = range(T0, T0 + days * DAY_MS, DAY_MS // 10)
    produce(producer, settings, 0, fast)
    produce(producer, settings, 1, slow)
    with worker(settings, tmp_path / "worker.log"):
        total = len(slow) + len(fast)
        wait_until(lambda: readable_scores(settings) == total, timeout_s=60, what="all scored")

    if slow_one_has_more:
        assert largest_skew_days(settings) < LEAD_DAYS + 5, "a batch of 50 may be 5 days"
