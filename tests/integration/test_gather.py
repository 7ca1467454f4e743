"""How a worker fills a batch: it waits for more while records are few, or so many that more are coming."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from fraudstream.clients.clock import monotonic_s
from fraudstream.clients.gather import FEW, gather
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
    yield made
    made.close()


def first_of(consumer: Consumer, most: int, wait_s: float) -> list[Message]:
    """Gather until there is something: a new consumer needs some time."""
    deadline = monotonic_s() + 30
    while not (found := gather(consumer, most, wait_s)):
        assert monotonic_s() < deadline, "no record came"
    return found


def numbers(found: Sequence[Message]) -> list[int]:
    return [int(each.value() or b"") for each in found]


def test_nothing_comes_of_nothing(topics: Settings) -> None:
    with reading(topics) as consumer:
        assert gather(consumer, 1_000, LONG_S) == []


def test_few_records_are_waited_with_and_all_that_came_are_taken(
    topics: Settings, send: Send
) -> None:
    send(FEW - 2)
    with reading(topics) as consumer:
        later = threading.Timer(0.2, send, [1])
        later.start()

        found = first_of(consumer, 1_000, 2.0)

    later.join()
    assert numbers(found) == list(range(FEW - 1))


@pytest.mark.parametrize("most", [1, 10, FEW, 100, 200])
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


def test_half_a_batch_waits_for_the_other_half(topics: Settings, send: Send) -> None:
    send(200)
    with reading(topics) as consumer:
        later = threading.Timer(0.2, send, [100])
        later.start()

        found = first_of(consumer, 300, LONG_S)

    later.join()
    assert numbers(found) == list(range(300))
