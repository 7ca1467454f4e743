"""What a pipeline benchmark runs on: 5,000 cards with 60 live transactions each, and a backlog for them."""

import math
import threading
from collections.abc import Sequence
from typing import Self

import msgspec
import numpy as np
from redis import Redis

from fraudstream.clients.feature_store import FeatureStore
from fraudstream.clients.kafka_producers import Header, Outgoing, open_producer
from fraudstream.core.model import FloatArray
from fraudstream.core.partitioner import partition_of
from fraudstream.core.settings import Settings
from fraudstream.core.topics import topic_name
from fraudstream.core.transaction import Feedback, Transaction, encode
from verify.bench.entities import copy_entities
from verify.bench.load import Load


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """A transaction as it is sent, to the partition of its key, after a label (-1: none)."""

    partition: int
    key: bytes
    value: bytes
    after_feedback: int

    @property
    def headers(self) -> list[Header]:
        """Return the headers of the record."""
        if self.after_feedback < 0:
            return []
        return [("after_feedback", b"%d" % self.after_feedback)]


CUSTOMERS, TERMINALS, LIVE, COPIES = 500, 1_000, 60, 10
CHUNK = 10_000


def fill(settings: Settings) -> tuple[Load, FloatArray]:
    """Fill the state of the environment; return the load that goes on from there and features [N, 9]."""
    store = FeatureStore.connect(
        settings.redis_url,
        settings.environment,
        connect_timeout_ms=5_000,
        request_timeout_ms=60_000,
    )
    load = Load(CUSTOMERS, TERMINALS, CUSTOMERS * LIVE / 21)
    for _ in range(CUSTOMERS * LIVE * 2 // 1_000):
        blob = store.pack_fold("fill", load.slices(load.transactions(1_000)))
        store.fold("fill", blob)
        load.send_labels(store)
    features = [
        store.apply("fill", load.slices(load.transactions(500))).features for _ in range(20)
    ]
    store.close()
    with Redis.from_url(settings.redis_url) as client:
        copy_entities(client, settings.environment, {"c": CUSTOMERS, "t": TERMINALS}, COPIES)
    load.spread_over(COPIES)
    return load, np.concatenate(features)


def send(settings: Settings, load: Load, n: int) -> int:
    """Send n transactions, each label before the first ones after it is known; return how many labels.

    Raises:
        FraudstreamError: Kafka did not take a record.
    """
    producer = open_producer(settings, "confluent", threading.Event())
    topics = {each: topic_name(settings.environment, each) for each in ("transactions", "feedback")}
    places = [partition_of(f"{i}".encode(), settings.partitions) for i in range(load.customers)]
    feedback, sent = -1, 0
    for _ in range(n // CHUNK):
        batch = load.transactions(CHUNK)
        labels = [_label(each) for each in load.known_labels()]
        if labels:
            sent += len(labels)
            feedback = producer.send_and_wait(topics["feedback"], labels)
        headers: list[Header] = [("after_feedback", b"%d" % feedback)] if feedback >= 0 else []
        producer.send(topics["transactions"], [_paid(each, places, headers) for each in batch])
    producer.flush(math.inf)
    producer.close()
    return sent


def _label(label: Feedback) -> Outgoing:
    return label.transaction_id.encode(), encode(label), 0, []


def _paid(paid: Transaction, places: Sequence[int], headers: list[Header]) -> Outgoing:
    customer = paid.entities.customer
    return customer.encode(), encode(paid), places[int(customer)], headers


class Stream:
    """The load as records to be sent; labels it sends itself, each before the first that must know it."""

    def __init__(self, settings: Settings, load: Load) -> None:
        self._load = load
        self._topic = topic_name(settings.environment, "feedback")
        self._places = [
            partition_of(f"{i}".encode(), settings.partitions) for i in range(load.customers)
        ]
        self._producer = open_producer(settings, "confluent", threading.Event())
        self._feedback = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._producer.close()

    def send_labels(self) -> None:
        """Send the labels that are known by now, and wait until they are in the log.

        Raises:
            FraudstreamError: Kafka did not take one.
        """
        if labels := [_label(each) for each in self._load.known_labels()]:
            self._feedback = self._producer.send_and_wait(self._topic, labels)

    def take(self, n: int) -> list[Sent]:
        """Return the next n transactions."""
        return [
            Sent(self._places[int(name)], name.encode(), encode(each), self._feedback)
            for each in self._load.transactions(n)
            if (name := each.entities.customer)
        ]
