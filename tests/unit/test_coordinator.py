"""A group's coordinator that is loading is asked again, for as long as a server may take."""

from concurrent.futures import Future

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException

from fraudstream.clients import kafka
from fraudstream.core.errors import KafkaUnreachable
from fraudstream.core.settings import Settings


class Loading:
    """An admin client as it is while the broker loads its log of offsets: a moment that no test can hold."""

    def __init__(self, answers: int) -> None:
        self.left = answers

    def list_consumer_group_offsets(
        self, groups: list[ConsumerGroupTopicPartitions], **_: object
    ) -> dict[str, Future[ConsumerGroupTopicPartitions]]:
        answer: Future[ConsumerGroupTopicPartitions] = Future()
        if self.left:
            self.left -= 1
            answer.set_exception(
                KafkaException(KafkaError(KafkaError.COORDINATOR_LOAD_IN_PROGRESS, "loading"))
            )
        else:
            answer.set_result(groups[0])
        return {groups[0].group_id: answer}


def test_a_coordinator_that_loads_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Loading(answers=2)
    monkeypatch.setattr(kafka, "AdminClient", lambda _: broker)
    kafka.require_coordinator(Settings(connect_timeout_ms=5_000), "g")
    assert broker.left == 0


def test_a_coordinator_that_loads_for_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = Loading(answers=1_000)
    monkeypatch.setattr(kafka, "AdminClient", lambda _: broker)
    with pytest.raises(KafkaUnreachable, match=r"no coordinator for group g \(loading\)"):
        kafka.require_coordinator(Settings(connect_timeout_ms=300), "g")
    assert 990 < broker.left < 1_000
