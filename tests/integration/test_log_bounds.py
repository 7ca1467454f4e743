"""Ends of partitions are those that a consumer of committed records is told, or the question fails."""

import json
import os
import signal
from functools import partial

import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition

from fraudstream.clients import kafka
from fraudstream.clients.log_bounds import LogBounds
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.stack.state import StackPaths
from tests.integration.test_faults import kafka_pid, own_stack
from tests.integration.test_servers_away import frozen
from tests.processes import wait_until

__all__ = ["own_stack"]


def places(settings: Settings, *partitions: int) -> list[TopicPartition]:
    name = topic_name(settings.environment, "transactions")
    return [TopicPartition(name, each) for each in partitions]


def settled(bounds: LogBounds, every: list[TopicPartition]) -> bool:
    """Tell whether partitions that were just made have their leaders."""
    try:
        return bounds.ask(every, timeout_s=10) == [(0, 0)] * len(every)
    except KafkaException:
        return False


def send(producer: Producer, place: TopicPartition, n: int) -> None:
    for _ in range(n):
        producer.produce(place.topic, b"{}", partition=place.partition)
    assert producer.flush(10) == 0


@pytest.mark.parametrize("partitions", [3])
def test_they_are_those_of_committed_records(topics: Settings) -> None:
    empty, plain, held = every = places(topics, 0, 1, 2)
    bounds = LogBounds(topics)
    wait_until(partial(settled, bounds, every), timeout_s=10, what="all have leaders")
    send(Producer(kafka.common(topics)), plain, 7)
    open_one = kafka.transactional_producer(topics, transactional_id="held")
    open_one.init_transactions(10)
    open_one.begin_transaction()
    send(open_one, held, 5)
    assert bounds.ask(every, timeout_s=10) == [(0, 0), (0, 7), (0, 0)]
    reader = kafka.reader(topics, group="any")
    assert [reader.get_watermark_offsets(each, timeout=10) for each in every] == bounds.ask(
        every, timeout_s=10
    )
    reader.close()
    open_one.commit_transaction(10)
    wait_until(
        lambda: bounds.ask([held, empty], timeout_s=10) == [(0, 6), (0, 0)],
        timeout_s=10,
        what="the records and the marker of the transaction",
    )


def test_a_partition_that_is_not_there_or_a_broker_that_is_away_fails_the_question(
    own_stack: Settings,
) -> None:
    bounds = LogBounds(own_stack)
    wait_until(partial(settled, bounds, places(own_stack, 0)), timeout_s=10, what="it has a leader")
    with pytest.raises(KafkaException):
        bounds.ask(places(own_stack, 0, 99), timeout_s=2)
    with frozen(own_stack, "kafka"), pytest.raises(KafkaException):
        bounds.ask(places(own_stack, 0), timeout_s=1)
    wait_until(partial(settled, bounds, places(own_stack, 0)), timeout_s=10, what="told again")


def started_again(settings: Settings, before: int) -> bool:
    """Tell whether the supervisor has another Kafka than that, and says that it is ready."""
    server = json.loads(StackPaths.of(settings).state.read_text())["servers"]["kafka"]
    return server["pid"] not in (None, before) and bool(server["ready"])


def test_a_broker_that_was_started_again_is_asked_with_its_new_leader_epoch(
    own_stack: Settings,
) -> None:
    bounds, place = LogBounds(own_stack), places(own_stack, 0)
    wait_until(partial(settled, bounds, place), timeout_s=10, what="it has a leader")
    pid = kafka_pid(own_stack)
    os.kill(pid, signal.SIGKILL)
    wait_until(partial(started_again, own_stack, pid), timeout_s=30, what="started again")
    wait_until(partial(settled, bounds, place), timeout_s=30, what="told again")
