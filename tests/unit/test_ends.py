"""Ends of partitions where the broker is slow or answers some questions only: never wrong, never gone."""

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from fraudstream.core.settings import Settings
from scorer import ends
from scorer.ends import Ends

SILENT = KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001 - as librdkafka says it
Answer = Future[SimpleNamespace]


class Broker:
    """Stands for the client: its answers come when a test says so."""

    def __init__(self, *_: object, **__: object) -> None:
        self.client = self
        self.questions: list[dict[TopicPartition, Answer]] = []
        self.renewed = 0

    def renew(self) -> None:
        self.renewed += 1

    def list_offsets(self, places: dict[TopicPartition, Any], **_: object) -> dict[Any, Answer]:
        self.questions.append({place: Future() for place in places})
        return self.questions[-1]

    def answer(self, *offsets: int | KafkaException) -> None:
        for each, offset in zip(self.questions[-1].values(), offsets, strict=True):
            if isinstance(offset, KafkaException):
                each.set_exception(offset)
            else:
                each.set_result(SimpleNamespace(offset=offset))


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    found = Broker()
    monkeypatch.setattr(ends, "Asking", lambda *_, **__: found)
    monkeypatch.setattr(ends, "ANSWER_S", 0.0)
    return found


@pytest.fixture
def asked(broker: Broker) -> Ends:
    """Ends of partitions 0 and 1 that were 10 and 20, asked again without an answer yet."""
    found = Ends(Settings(), "transactions")
    assert found.now([0, 1]) == {}
    broker.answer(10, 20)
    assert found.now([0, 1]) == {0: 10, 1: 20}
    assert found.now([0, 1]) == {0: 10, 1: 20}, "as they were last told"
    return found


def test_an_answer_that_is_slow_is_taken_up_later(broker: Broker, asked: Ends) -> None:
    assert asked.now([0, 1]) == {0: 10, 1: 20}
    assert len(broker.questions) == 2, "one question at a time"
    broker.answer(11, 21)
    assert asked.now([0, 1]) == {0: 11, 1: 21}
    assert len(broker.questions) == 3, "which may be old by now: asked anew"
    assert broker.renewed == 0


def test_what_is_answered_counts_though_another_partition_is_not(
    broker: Broker, asked: Ends
) -> None:
    broker.answer(SILENT, 21)
    assert asked.now([0, 1]) == {0: 10, 1: 21}
    assert broker.renewed == 1, "who asks next may be told"


@pytest.mark.parametrize("silence", [SILENT, -1001])
def test_no_answer_changes_nothing_and_a_new_client_asks_next(
    silence: int | KafkaException, broker: Broker, asked: Ends
) -> None:
    broker.answer(silence, silence)
    assert asked.now([0, 1]) == {0: 10, 1: 20}
    assert broker.renewed == 1
    broker.answer(12, 22)
    assert asked.now([1]) == {1: 22}


def test_partitions_that_are_not_owned_are_not_asked_for(broker: Broker) -> None:
    assert Ends(Settings(), "transactions").now([]) == {}
    assert broker.questions == []
