"""The loss ledger where topics begin later than at offset 0: what has expired is no difference, a loss is."""

import json
from typing import Any

from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from tests.integration.test_ledger import commit, send
from tests.processes import run

TOTAL, LOST = 100, 90


def score_all(settings: Settings) -> None:
    """Score everything but one by hand, in the partition of the transactions."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap})
    for number in range(TOTAL):
        place = {"source_partition": 0, "source_offset": number}
        value = json.dumps({"transaction_id": f"t{number}"} | place)
        if number != LOST:
            producer.produce(topic_name(settings.environment, "scores"), value, partition=0)
    assert producer.flush(30) == 0


def expire(settings: Settings, name: str, below: int) -> None:
    """Delete the beginning of partition 0, as retention does."""
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap})
    place = TopicPartition(topic_name(settings.environment, name), 0, below)
    for done in admin.delete_records([place]).values():
        done.result()


def counts(settings: Settings, *options: str) -> dict[str, Any]:
    """Return the last report of a ledger that finds the loss, and no other difference."""
    done = run(settings, "ledger", "--json", "-", *options)
    assert done.returncode == 1
    assert f"lost 1 (0:{LOST}), duplicates 0 (none)" in done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1] if options else done.stdout)
    assert (found["unfounded"], found["mismatched"]) == (0, 0)
    return found


def test_what_has_expired_is_told_apart_from_a_loss_by_the_count_and_by_the_watch(
    topics: Settings,
) -> None:
    send(topics, range(TOTAL))
    score_all(topics)
    commit(topics, TOTAL)
    expire(topics, "transactions", 20)
    for options in ((), ("--watch", "--for", "1")):
        found = counts(topics, *options)
        assert (found["transactions"], found["scored"], found["expired"]) == (80, 79, 20)
    expire(topics, "scores", 50)
    for options in ((), ("--watch", "--for", "1")):
        found = counts(topics, *options)
        assert (found["transactions"], found["scored"], found["unknown"]) == (80, 49, 30)
        assert found["expired"] == 0
    assert "49 scored + 0 dead letters + 0 waiting + 30 unknown" in run(topics, "ledger").stdout
