"""What of the consumer's errors ends a worker, what it waits for, and for how long batches may fail."""

from types import SimpleNamespace
from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from fraudstream.clients.kafka import TopicFacts
from fraudstream.core.errors import KafkaUnreachable
from scorer import labels
from scorer.labels import LabelReader
from scorer.live_sets import LiveSets
from scorer.waiting import PATIENCE_S, Failing, sound

TIMED_OUT = KafkaError._TIMED_OUT  # noqa: SLF001 - librdkafka's own codes begin so
ALL_DOWN = KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001
STOOD_STILL = KafkaError._MAX_POLL_EXCEEDED  # noqa: SLF001


def failed(code: int) -> Message:
    return cast("Message", SimpleNamespace(error=lambda: KafkaError(code)))


def test_a_worker_that_stood_still_for_minutes_goes_on_to_join_again() -> None:
    assert sound([failed(STOOD_STILL)]) == []


def test_an_error_that_nobody_expects_is_raised() -> None:
    with pytest.raises(KafkaException):
        sound([failed(KafkaError.TOPIC_AUTHORIZATION_FAILED)])


def test_failures_one_after_the_other_add_up() -> None:
    failing = Failing()
    assert [failing.for_s(at) for at in (1_000.0, 1_060.0, 1_130.0)] == [0.0, 60.0, 130.0]


def test_a_failure_after_a_calm_or_after_a_success_is_the_first() -> None:
    failing = Failing()
    failing.for_s(1_000.0)
    assert failing.for_s(1_001.0 + PATIENCE_S) == 0.0
    failing.over()
    assert failing.for_s(1_010.0 + PATIENCE_S) == 0.0


class Broken:
    """A consumer whose broker is away: what it asks of it fails, and what it polls is an error."""

    def assign(self, places: list[TopicPartition]) -> None:
        self.places = places

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        raise KafkaException(KafkaError(TIMED_OUT))

    def poll(self, _: float) -> Message:
        return failed(ALL_DOWN)

    def consume(self, *_: object) -> list[Message]:
        return []


def reader() -> LabelReader:
    store = SimpleNamespace(marks=lambda *_: {0: 4})
    live = SimpleNamespace(stores={"set": store})
    topic = TopicFacts("test.feedback", "id", 1)
    return LabelReader(cast("Consumer", Broken()), cast("LiveSets", live), topic)


def test_labels_that_a_broker_does_not_give_are_waited_for() -> None:
    with pytest.raises(KafkaUnreachable, match=r"topic test\.feedback"):
        reader().apply_until(9, timeout_s=0.0)
    with pytest.raises(KafkaUnreachable, match=r"topic test\.feedback"):
        reader().apply_available()


def test_the_end_of_the_labels_is_not_waited_for_longer_than_a_worker_may_take_to_end() -> None:
    assert labels.END_S <= 5.0
