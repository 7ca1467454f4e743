"""What of the consumer's errors ends a worker, what it waits for, and for how long batches may fail."""

import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from fraudstream.clients.kafka import TopicFacts
from fraudstream.core.errors import KafkaUnreachable, RedisUnreachable
from scorer import labels
from scorer.assignment import Assignment
from scorer.labels import LabelReader
from scorer.live_sets import LiveSets
from scorer.status import Status
from scorer.waiting import PATIENCE_S, Failing, Waiting, sound

UNASKED: Any = None

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


class Paused:
    """A consumer that has read up to offset 7 of its one partition, and tells what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition("topic", 0)]

    def pause(self, _: list[TopicPartition]) -> None:
        self.asked.append("pause")

    def resume(self, _: list[TopicPartition]) -> None:
        self.asked.append("resume")

    def poll(self, _: float) -> None:
        return None

    def position(self, places: list[TopicPartition]) -> list[TopicPartition]:
        return [TopicPartition(each.topic, each.partition, 7) for each in places]

    def seek(self, place: TopicPartition) -> None:
        self.asked.append(f"read on at {place.offset}")


@pytest.mark.parametrize("failures", [0, 2])
def test_after_a_server_was_away_reading_goes_on_at_once(failures: int) -> None:
    paused = Paused()
    consumer = cast("Consumer", paused)
    assignment = Assignment(consumer, TopicFacts("topic", "id", 1), UNASKED, UNASKED)
    assignment.positions = {0: 7}
    waiting = Waiting(
        consumer,
        assignment,
        status=Status(),
        stopping=threading.Event(),
        resumed=lambda: None,
        kafka_silent=lambda: False,
    )
    answers: list[Exception] = [RedisUnreachable("away")] * failures

    def call() -> str:
        if answers:
            raise answers.pop()
        return "answer"

    assert waiting.patiently(call) == "answer"
    once = ["pause", "resume"]
    assert paused.asked == (once * failures + ["read on at 7"] if failures else [])


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
