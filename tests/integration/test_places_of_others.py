"""How far a group is everywhere is told, though never in all partitions at one moment."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition

from fraudstream.clients import kafka
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from scorer.assignment import Assignment, group_name
from tests.processes import wait_until

UNASKED: Any = None


@contextmanager
def always_about_to_commit(settings: Settings) -> Iterator[None]:
    """Commit offsets of partition 1 and 2 in turn, a transaction of one begun before the other's ends."""
    group = group_name(settings)
    topic = topic_name(settings.environment, "transactions")
    metadata = kafka.offsets_reader(settings, group).consumer_group_metadata()
    producers = [
        kafka.transactional_producer(
            settings, transactional_id=f"{group}.{partition}", most_bytes=1_000
        )
        for partition in (1, 2)
    ]
    stopping, begun = threading.Event(), threading.Event()

    def begin(producer: Producer, partition: int, offset: int) -> None:
        producer.begin_transaction()
        place = TopicPartition(topic, partition, offset, metadata="{}")
        producer.send_offsets_to_transaction([place], metadata, 10)

    def commit() -> None:
        first, second = producers
        begin(first, 1, 1)
        for offset in count(1):
            begin(second, 2, offset)
            first.commit_transaction(10)
            begin(first, 1, offset + 1)
            second.commit_transaction(10)
            begun.set()
            if stopping.is_set():
                break
        first.abort_transaction(10)

    for each in producers:
        each.init_transactions(10)
    with ThreadPoolExecutor(1) as beside:
        done = beside.submit(commit)
        try:
            wait_until(
                lambda: begun.is_set() or done.done(), timeout_s=20, what="both have offsets"
            )
            yield
        finally:
            stopping.set()
            done.result()


@pytest.mark.parametrize("partitions", [3])
def test_it_is_told_while_there_is_always_somebody_about_to_commit(topics: Settings) -> None:
    name = topic_name(topics.environment, "transactions")
    consumer = kafka.worker_consumer(topics, group=group_name(topics), slot=0)
    facts = kafka.topic_facts(topics, [name])[name]
    assignment = Assignment(consumer, facts, UNASKED, UNASKED)
    with always_about_to_commit(topics):
        found = [assignment.committed_everywhere() for _ in range(5)]
    consumer.close()
    assert all(each[0] == -1 and each[1] > 0 and each[2] > 0 for each in found)
    assert found[-1][1] > found[0][1], "others went on meanwhile"
