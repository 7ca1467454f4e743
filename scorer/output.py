"""Last hop: everything a batch sends and the offsets it has read become one Kafka transaction."""

import logging

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from fraudstream.core.errors import DependencyUnreachable, FraudstreamError, Refused
from fraudstream.core.topics import topic_name
from scorer.results import Output

logger = logging.getLogger(__name__)


class BatchAborted(FraudstreamError):
    """The transaction was aborted: nothing of the batch is visible, it must be read again."""


def fenced(error: KafkaError) -> Refused:
    """Return the error of a worker whose slot another process has taken."""
    return Refused(
        f"this worker was fenced ({error.str()}): another process has its slot now. It has written "
        "nothing since; start it again and it takes a free slot"
    )


class TransactionalOutput:
    """Produces and commits whole batches; begun only when everything is computed (ADR 0002)."""

    def __init__(self, producer: Producer, consumer: Consumer, environment: str) -> None:
        self._producer = producer
        self._consumer = consumer
        self._environment = environment

    def fence_predecessor(self, *, timeout_s: float) -> None:
        """Abort what an earlier process of this slot left open, and fence it should it still live.

        Raises:
            DependencyUnreachable: the broker does not take this worker's transactional id in time.
        """
        try:
            self._producer.init_transactions(timeout_s)
        except KafkaException as exc:
            raise DependencyUnreachable(
                f"Kafka does not let this worker begin ({exc.args[0].str()}): see what the broker says "
                "with `fraudstream stack logs`, then start the worker again"
            ) from exc

    def commit(self, outputs: list[Output], offsets: list[TopicPartition]) -> None:
        """Make `outputs` and `offsets` visible together.

        Raises:
            BatchAborted: nothing became visible; read the batch again.
            Refused: another process has taken this slot.
        """
        try:
            self._producer.begin_transaction()
            self._produce(outputs)
            group = self._consumer.consumer_group_metadata()
            self._producer.send_offsets_to_transaction(offsets, group)
            self._producer.commit_transaction()
        except KafkaException as exc:
            self._give_up(exc.args[0], exc)

    def _produce(self, outputs: list[Output]) -> None:
        topics = {name: topic_name(self._environment, name) for name in {o.topic for o in outputs}}
        produce = self._producer.produce
        for output in outputs:
            if output.headers:
                produce(topics[output.topic], output.value, output.key, headers=output.headers)
            else:
                produce(topics[output.topic], output.value, output.key)

    def _give_up(self, error: KafkaError, exc: KafkaException) -> None:
        if error.fatal():
            raise fenced(error) from exc
        if not error.txn_requires_abort() and not error.retriable():
            raise exc
        self._abort()
        raise BatchAborted(f"the Kafka transaction was aborted: {error.str()}") from exc

    def _abort(self) -> None:
        try:
            self._producer.abort_transaction(10.0)
        except KafkaException as exc:
            if exc.args[0].fatal():
                self._give_up(exc.args[0], exc)
            if not exc.args[0].retriable():
                raise
            logger.warning("the transaction is not aborted yet: %s", exc.args[0].str())
