"""Labels are taken from a consumer that somebody else may be asking just then; a stand-in plays it."""

from types import SimpleNamespace
from typing import Any, cast

from confluent_kafka import Consumer

from fraudstream.clients.kafka import TopicFacts
from scorer.labels import LabelReader


class Feedback:
    """A consumer without records that counts how often it is asked for some."""

    def __init__(self) -> None:
        self.polls = 0

    def assign(self, _: object) -> None:
        pass

    def poll(self, _: float) -> None:
        self.polls += 1


def test_who_asks_the_broker_by_the_consumer_is_not_waited_for() -> None:
    consumer = Feedback()
    store = SimpleNamespace(marks=lambda *_: {0: 4})
    live = SimpleNamespace(stores={"44df": store})
    reader = LabelReader(
        cast("Consumer", consumer), cast("Any", live), TopicFacts("feedback", "id", 1)
    )
    with reader.gate:
        reader.apply_available()
    assert consumer.polls == 0
    reader.apply_available()
    assert consumer.polls == 1
    assert not reader.gate.locked()
