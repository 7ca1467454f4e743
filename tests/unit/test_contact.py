"""A worker ends when its own client is not answered and a new one is, both for long, and not before."""

import threading
from typing import cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from scorer.contact import AGREEING_LOOKS, FAILING_LOOKS, Contact, Watched
from tests.processes import wait_until

PLACE = TopicPartition("transactions", 0)


class Client:
    """A consumer that is answered, or not."""

    def __init__(self) -> None:
        self.answered = True
        self.gate = threading.Lock()

    def get_watermark_offsets(self, _: TopicPartition, timeout: float) -> tuple[int, int]:
        assert timeout > 0
        assert self.gate.locked()
        if not self.answered:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001
        return 0, 1


class Worker:
    """Two consumers, what a new client finds, and how often the end was called for."""

    def __init__(self) -> None:
        self.clients = [Client(), Client()]
        self.others = True
        self.ended = 0
        self.contact = Contact(
            [Watched(cast("Consumer", each), PLACE, each.gate) for each in self.clients],
            lambda: self.others,
            self._end,
        )

    def _end(self) -> None:
        self.ended += 1

    def look(self, times: int) -> int:
        for _ in range(times):
            self.contact.look()
        return self.ended


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.mark.parametrize("lost", [0, 1])
def test_a_client_that_alone_is_not_answered_ends_the_worker(worker: Worker, lost: int) -> None:
    assert worker.look(100) == 0
    worker.clients[lost].answered = False
    assert worker.look(FAILING_LOOKS + AGREEING_LOOKS - 1) == 0
    assert worker.look(1) == 1


def test_a_broker_that_answers_nobody_is_waited_for(worker: Worker) -> None:
    worker.clients[0].answered = worker.others = False
    assert worker.look(100) == 0
    worker.others = True
    assert worker.look(AGREEING_LOOKS - 1) == 0, "it is back, and may be found in a moment"
    worker.clients[0].answered = True
    assert worker.look(100) == 0
    worker.clients[0].answered = False
    assert worker.look(FAILING_LOOKS + AGREEING_LOOKS - 1) == 0, "counted anew"


def test_a_broker_that_comes_and_goes_is_waited_for(worker: Worker) -> None:
    worker.clients[1].answered = False
    for _ in range(50):
        worker.others = not worker.others
        assert worker.look(1) == 0


def test_it_looks_in_a_thread_of_its_own_and_no_more_once_it_is_stopped(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scorer.contact.EACH_S", 0.001)
    worker.clients[0].answered = False
    with worker.contact:
        wait_until(lambda: worker.ended > 0, timeout_s=10, what="seen")
    ended = worker.ended
    assert not worker.contact._thread.is_alive()  # noqa: SLF001
    assert worker.ended == ended
