"""What becomes of a producer whose commit fails; a stand-in plays librdkafka."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import cast

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from fraudstream.clients import kafka
from fraudstream.core.errors import KafkaUnreachable
from scorer.output import BatchAborted, TransactionalOutput

TIMED_OUT, LOCAL_FENCED = -185, -144  # librdkafka's own codes
UNANSWERED = KafkaError(TIMED_OUT, "retry call to resume", retriable=True)
ABORTABLE = KafkaError(KafkaError.UNKNOWN_MEMBER_ID, "who?", txn_requires_abort=True)
GIVEN_UP = KafkaError(TIMED_OUT, "offsets", txn_requires_abort=True)
FENCED = KafkaError(LOCAL_FENCED, "another", fatal=True)
REFUSED = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED, "no")


class Standing:
    """A producer whose offsets are refused with an error."""

    def __init__(self, error: KafkaError) -> None:
        self.error = error
        self.aborts = 0

    def list_topics(self, *, timeout: float) -> None:
        pass

    def init_transactions(self, timeout: float) -> None:
        pass

    def begin_transaction(self) -> None:
        pass

    def produce(self, topic: str, value: bytes, key: bytes) -> None:
        pass

    def send_offsets_to_transaction(self, *_: object) -> None:
        raise KafkaException(self.error)

    def abort_transaction(self, timeout: float) -> None:
        self.aborts += 1

    def purge(self) -> None:
        pass


class Made:
    """An output and the producers that it made, one after the other."""

    def __init__(self, error: KafkaError) -> None:
        self.producers: list[Standing] = []

        def make() -> Producer:
            self.producers.append(Standing(error))
            return cast("Producer", self.producers[-1])

        self.output = TransactionalOutput(make, "test")
        self.output.fence_predecessor(timeout_s=1)

    def commit(self) -> None:
        self.output.commit([], [], None)


@pytest.mark.parametrize(
    ("error", "aborts"),
    [
        pytest.param(ABORTABLE, 1, id="Kafka has refused it"),
        pytest.param(UNANSWERED, 0, id="not answered in time: an abort might not return"),
        pytest.param(GIVEN_UP, 0, id="not answered, and librdkafka has given up"),
        pytest.param(FENCED, 0, id="the producer can go no further"),
    ],
)
def test_after_a_batch_that_failed_a_new_producer_begins(error: KafkaError, aborts: int) -> None:
    made = Made(error)
    with pytest.raises(BatchAborted):
        made.commit()
    made.output.restore()
    made.output.restore()
    assert [each.aborts for each in made.producers] == [aborts, 0]


def test_what_no_new_producer_mends_ends_the_worker() -> None:
    with pytest.raises(KafkaException):
        Made(REFUSED).commit()


class Away(Standing):
    def init_transactions(self, timeout: float) -> None:
        raise KafkaException(KafkaError(TIMED_OUT))


def test_a_broker_that_is_away_at_the_beginning_is_named() -> None:
    output = TransactionalOutput(lambda: cast("Producer", Away(REFUSED)), "test")
    with pytest.raises(KafkaUnreachable, match="does not let this worker begin"):
        output.fence_predecessor(timeout_s=1)


class Clock:
    """A clock that goes on as a broker that does not get ready lets time pass."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Unready(Standing):
    """A producer that is told again and again that what the last one left open is being aborted."""

    def __init__(self, clock: Clock, *, tries: int) -> None:
        super().__init__(KafkaError(KafkaError.CONCURRENT_TRANSACTIONS, "later", retriable=True))
        self.clock = clock
        self.tries = tries

    def list_topics(self, *, timeout: float) -> None:
        self.clock.now_s += min(0.3, timeout)

    def init_transactions(self, timeout: float) -> None:
        if self.tries:
            self.tries -= 1
            self.clock.now_s += timeout
            raise KafkaException(self.error)

    def abort_transaction(self, timeout: float) -> None:
        """Wait for a record that has come back, which is dropped once this is called anew."""
        self.init_transactions(timeout)


@pytest.mark.parametrize(
    ("call", "tries", "told_s"),
    [
        (kafka.init_transactions, 0, 0.3),
        (kafka.init_transactions, 3, 0.45),
        (kafka.init_transactions, 1_000, 4.0),
        (kafka.abort_transaction, 0, 0.0),
        (kafka.abort_transaction, 1, 1.0),
        (kafka.abort_transaction, 1_000, 4.0),
    ],
)
def test_a_producer_that_cannot_begin_or_abort_yet_tries_again_soon_and_ends_in_time(
    call: Callable[[Producer, float], None],
    tries: int,
    told_s: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(kafka, "monotonic_s", clock)
    unready = cast("Producer", Unready(clock, tries=tries))
    with pytest.raises(KafkaException) if tries == 1_000 else nullcontext():
        call(unready, 4.0)
    assert clock.now_s == pytest.approx(told_s)


def test_a_producer_that_cannot_begin_is_not_tried_again_where_that_is_for_good() -> None:
    class Refused(Standing):
        def init_transactions(self, timeout: float) -> None:
            self.aborts += 1
            raise KafkaException(self.error)

    refused = Refused(REFUSED)
    with pytest.raises(KafkaException):
        kafka.init_transactions(cast("Producer", refused), 4.0)
    assert refused.aborts == 1
