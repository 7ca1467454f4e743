"""How a worker fills a batch, with a real consumer (tests/unit/test_gather.py has the rule)."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.gather import gather
from fraudstream.clients.kafka import reader
from fraudstream.clients.kafka_producers import open_producer
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name

LONG_S = 60.0
"""Whoever waits for so long has waited for more than there is."""

Send = Callable[[int], None]


@pytest.fixture
def send(topics: Settings) -> Iterator[Send]:
    """Yield a function that sends so many records, numbered on, and waits until they are in the log."""
    name = topic_name(topics.environment, "transactions")
    producer = open_producer(topics, "confluent", threading.Event())
    sent = 0

    def send(n: int) -> None:
        nonlocal sent
        producer.send(name, [(b"key", b"%d" % i, 0, []) for i in range(sent, sent + n)])
        producer.flush(math.inf)
        sent += n

    yield send
    producer.close()


@contextmanager
def reading(settings: Settings) -> Iterator[Consumer]:
    """Yield a consumer from the beginning on; what is sent by now comes in one fetch."""
    made = reader(settings, group="test.gather")
    made.assign([TopicPartition(topic_name(settings.environment, "transactions"), 0, 0)])
    try:
        yield made
    finally:
        made.close()


def first_of(consumer: Consumer, most: int, wait_s: float) -> list[Message]:
    """Gather until there is something: a new consumer needs some time."""
    deadline = monotonic_s() + 30
    while not (found := gather(consumer, lambda: most, wait_s=wait_s)):
        assert monotonic_s() < deadline, "no record came"
    return found


def numbers(found: Sequence[Message]) -> list[int]:
    return [int(each.value() or b"") for each in found]


@pytest.mark.parametrize("most", [1, 10, 100, 200])
def test_a_batch_that_can_be_filled_is_full(topics: Settings, send: Send, most: int) -> None:
    send(200)
    with reading(topics) as consumer:
        assert numbers(first_of(consumer, most, LONG_S)) == list(range(most))


def test_many_that_are_no_half_batch_go_at_once(topics: Settings, send: Send) -> None:
    send(200)
    begun = monotonic_s()
    with reading(topics) as consumer:
        found = first_of(consumer, 1_000, LONG_S)

    assert monotonic_s() - begun < LONG_S / 2
    assert numbers(found) == list(range(200))
