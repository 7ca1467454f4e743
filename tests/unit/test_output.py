"""What becomes of a producer whose commit fails; a stand-in plays librdkafka."""

from typing import cast

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from fraudstream.core.errors import KafkaUnreachable
from scorer.output import BatchAborted, TransactionalOutput

TIMED_OUT, LOCAL_FENCED = -185, -144  # librdkafka's own codes
UNANSWERED = KafkaError(TIMED_OUT, "retry call to resume", retriable=True)
ABORTABLE = KafkaError(KafkaError.UNKNOWN_MEMBER_ID, "who?", txn_requires_abort=True)
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
    ("error", "aborts", "producers"),
    [
        pytest.param(ABORTABLE, 1, 1, id="it can be aborted"),
        pytest.param(UNANSWERED, 0, 2, id="not answered in time: an abort might not return"),
        pytest.param(FENCED, 0, 2, id="the producer can go no further"),
    ],
)
def test_a_failed_batch_is_aborted_or_left_to_a_new_producer(
    error: KafkaError, aborts: int, producers: int
) -> None:
    made = Made(error)
    with pytest.raises(BatchAborted):
        made.commit()
    made.output.restore()
    assert [each.aborts for each in made.producers] == [aborts, *[0] * (producers - 1)]
    made.output.restore()
    assert len(made.producers) == producers


def test_what_no_new_producer_mends_ends_the_worker() -> None:
    with pytest.raises(KafkaException):
        Made(REFUSED).commit()


class Away(Standing):
    def list_topics(self, *, timeout: float) -> None:
        raise KafkaException(KafkaError(TIMED_OUT))


def test_a_broker_that_is_away_at_the_beginning_is_named() -> None:
    output = TransactionalOutput(lambda: cast("Producer", Away(REFUSED)), "test")
    with pytest.raises(KafkaUnreachable, match="does not let this worker begin"):
        output.fence_predecessor(timeout_s=1)


class Aborting(Standing):
    """A producer whose predecessor is still being aborted, for the first ones that ask."""

    def init_transactions(self, timeout: float) -> None:
        raise KafkaException(self.error)


def test_while_the_last_transaction_is_aborted_new_producers_ask_for_as_long_as_there_is_time() -> (
    None
):
    error = KafkaError(KafkaError.CONCURRENT_TRANSACTIONS, "still at it", retriable=True)
    made: list[Standing] = []

    def make() -> Producer:
        made.append(Aborting(error) if len(made) < 2 else Standing(error))
        return cast("Producer", made[-1])

    TransactionalOutput(make, "test").fence_predecessor(timeout_s=1)
    assert len(made) == 3
    never = TransactionalOutput(lambda: cast("Producer", Aborting(error)), "test")
    with pytest.raises(KafkaUnreachable):
        never.fence_predecessor(timeout_s=0.3)
